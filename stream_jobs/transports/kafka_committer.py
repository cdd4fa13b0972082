"""Positions on their way to the broker, which takes milliseconds for each: a job never waits for them.

Invariant: one request is under way at a time, and the next carries the newest position of every partition. What has not
arrived when the process dies is delivered again.
"""

from __future__ import annotations

import threading
from functools import partial

from confluent_kafka import Consumer, TopicPartition

from stream_jobs.transports.kafka_client import commit, patiently


class Committer:
    """Commits through a consumer that it owns, in a thread that starts with the first position."""

    def __init__(self, client: Consumer, subject: str) -> None:
        self._client, self._subject = client, subject
        self._wanted: dict[tuple[str, int], TopicPartition] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="kafka-committer", daemon=True)

    def reach(self, place: TopicPartition) -> None:
        """Have this position committed soon. Raises `KafkaFailed` if an earlier one could not be."""
        with self._changed:
            if self._failed is not None:
                raise self._failed
            self._wanted[place.topic, place.partition] = place
            if self._thread.ident is None:
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Return when every position is committed. Raises `KafkaFailed` if one could not be."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()
        self._client.close()
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        while places := self._next():
            try:
                patiently(f"Commit of {self._subject}", partial(commit, self._client, places))
            except Exception as error:  # the next call of the job raises it
                with self._changed:
                    self._failed = error
                return

    def _next(self) -> list[TopicPartition]:
        with self._changed:
            self._changed.wait_for(lambda: self._wanted or self._closing)
            places = list(self._wanted.values())
            self._wanted.clear()
            return places
