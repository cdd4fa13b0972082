"""Decisions out of the Kafka topic that the service appends to: all its partitions, for one process.

Invariant: the group's position moves only past a batch that is done; what is given after a failure begins there.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
from confluent_kafka import KafkaException, TopicPartition

from feature_repo.settings import Settings
from monitoring.decision_chain import Anchor
from monitoring.decision_log import LoggedDecision
from monitoring.decision_message import logged
from stream_jobs.entries import BATCH
from stream_jobs.transports.kafka_client import CALL, KafkaFailed, commit, consumer, passing, patiently, positions
from stream_jobs.transports.kafka_topics import admin, end_offsets, places_of


class KafkaDecisions:
    """A `DecisionSource`. What is old, Kafka's retention takes out."""

    def __init__(self, current: Settings) -> None:
        self._subject = f"Group '{current.decisions_group}' on {current.decisions_stream}"
        self._places = places_of(current.kafka_bootstrap, current.decisions_stream)
        self._consumer = consumer(current.kafka_bootstrap, current.decisions_group)
        self._admin = admin(current.kafka_bootstrap)
        self._reached: dict[int, int] = {}
        self.again()

    def take(self, wait: float) -> list[LoggedDecision]:
        """See `DecisionSource`."""
        found = []
        for message in self._consumer.consume(BATCH, timeout=wait):
            error = message.error()
            if error is not None:
                if not passing(error):
                    raise KafkaFailed(f"{self._subject}: {error.name()}, {error.str()}.")
                continue
            place, offset = message.partition(), message.offset()
            found.append(_message(f"{message.topic()}-{place}-{offset}", message.value() or b""))
            self._reached[place] = offset + 1
        return found

    def done(self, anchor: Anchor) -> None:
        """See `DecisionSource`; the anchor is in the table alone."""
        self._commit(self._reached)

    def again(self) -> None:
        """See `DecisionSource`."""
        done = patiently(self._subject, lambda: positions(self._consumer, self._places))
        first = [self._consumer.get_watermark_offsets(place, CALL)[0] for place in self._places]
        begin = [max(at or 0, oldest) for at, oldest in zip(done, first, strict=True)]
        self._reached = {place.partition: at for place, at in zip(self._places, begin, strict=True)}
        self._commit(self._reached)  # also says to a supervisor that the group is read for
        self._consumer.assign([TopicPartition(p.topic, p.partition, self._reached[p.partition]) for p in self._places])

    def lag(self) -> int:
        """See `DecisionSource`."""
        try:
            ends = end_offsets(self._admin, self._places)
        except KafkaException as raised:
            raise KafkaFailed(f"{self._subject}: {raised.args[0].str()}.") from raised
        return sum(end - self._reached[place.partition] for place, end in zip(self._places, ends, strict=True))

    def tidy(self, now: datetime) -> int:
        """Nothing: see the topic's retention."""
        return 0

    def close(self) -> None:
        """See `DecisionSource`."""
        self._consumer.close()

    def _commit(self, reached: dict[int, int]) -> None:
        places = [TopicPartition(place.topic, place.partition, reached[place.partition]) for place in self._places]
        patiently(self._subject, lambda: commit(self._consumer, places))


def _message(entry: str, body: bytes) -> LoggedDecision:
    try:
        return logged(entry, body)
    except ValueError:
        return LoggedDecision(entry, body, np.empty(0, np.float32), b"", "")
