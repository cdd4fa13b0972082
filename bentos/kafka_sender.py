"""Messages to one Kafka topic from an event loop: a batch is sent whole, and confirmed by its last delivery report.

Invariant: what not every in-sync replica has confirmed raises; it is never taken for sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from feature_repo.settings import Settings
from monitoring.kafka_security import security

POLL = 0.1
"""Seconds the thread of a producer waits for reports before it looks whether it is to end."""

LINGER_MS = 1
"""A batch of payments is a batch already; this is for its parts."""


class _Batch:
    """Reports still to come; the first error among them, and whom to tell. Reports come in the producer's thread."""

    __slots__ = ("done", "error", "left", "loop")

    def __init__(self, count: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.left, self.error = count, None

    error: KafkaError | None

    def report(self, error: KafkaError | None, _: Any) -> None:
        self.error = self.error or error
        self.left -= 1
        if self.left == 0:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
                self.loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if self.done.done():
            return
        if self.error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(KafkaException(self.error))


class Sender:
    """For one event loop. `timeout` is how long a batch may take to be confirmed, in seconds.

    Raises `InvalidKafkaSecurity` where the settings of TLS and SASL contradict each other.
    """

    def __init__(self, current: Settings, topic: str, timeout: float) -> None:
        self._topic, self._timeout = topic, timeout
        # What is given up here is sent again from elsewhere: a message must not wait in the queue for long after.
        given_up = {"delivery.timeout.ms": max(int(timeout * 2_000), 1_000)}
        safe = {"acks": "all", "enable.idempotence": True, "partitioner": "murmur2_random"}
        quick = {"linger.ms": LINGER_MS, "compression.type": "lz4", "reconnect.backoff.max.ms": 500}
        said = {"logger": logging.getLogger("bentoml.service.tollgate.kafka")}
        self._options: dict[str, Any] = {**given_up, **safe, **quick, **said, **security(current)}
        self._options["bootstrap.servers"] = current.kafka_bootstrap
        self._running: _Running | None = None

    async def send(self, messages: Sequence[tuple[bytes, bytes]]) -> None:
        """Send messages `(key, body)` and return when all are confirmed.

        Raises `KafkaException`, `BufferError` or `TimeoutError` where some are not, or may not be.
        """
        batch = _Batch(len(messages))
        producer = self._producer()
        for name, body in messages:
            producer.produce(self._topic, body, name, on_delivery=batch.report)
        await asyncio.wait_for(batch.done, self._timeout)

    async def alive(self) -> bool:
        """Whether a broker answers that has the topic."""
        with contextlib.suppress(KafkaException):
            producer = self._producer()
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(None, producer.list_topics, self._topic, self._timeout)
            return found.topics[self._topic].error is None
        return False

    def close(self) -> None:
        """End the producer; what it has not sent within the time-out is given up."""
        if self._running is not None:
            self._running.close(self._timeout)
            self._running = None

    def _producer(self) -> Producer:
        if self._running is not None and self._running.fatal.is_set():  # it will never send anything again
            self._running.close(0.0)
            self._running = None
        if self._running is None:
            self._running = _Running(self._options)
        return self._running.producer


class _Running:
    """A producer and the thread that takes its reports."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.fatal = threading.Event()
        self._ended = threading.Event()
        self.producer = Producer(options | {"error_cb": self._note})
        self._thread = threading.Thread(target=self._poll, name="decision log", daemon=True)
        self._thread.start()

    def close(self, patience: float) -> None:
        self.producer.flush(patience)
        self._ended.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._ended.is_set():
            self.producer.poll(POLL)

    def _note(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self.fatal.set()
