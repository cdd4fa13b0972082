"""The reading side of Kafka: one partition as Bytewax reads it.

Invariant: the broker's word on the group's position is the only state, and reading begins there; a record is given once
as long as the partition lives, and never further ahead of that position than the bound.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from bytewax.inputs import StatefulSourcePartition
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from stream_jobs.transports.base import Record, sender_instant
from stream_jobs.transports.kafka_client import (
    CALL,
    PAUSE,
    KafkaFailed,
    commit,
    committed,
    consumer,
    passing,
    patiently,
)
from stream_jobs.transports.prefix import span_id

BATCH = 2_000
"""Records taken at once."""

IDLE = timedelta(milliseconds=2)
"""How long a partition is left alone between two batches."""

ASK = 0.01
"""Seconds between two questions to the broker about what was acknowledged, when the bound is near."""

QUESTION = 0.5
"""Seconds such a question may hold up the job."""

SETTLE = 10.0
"""Seconds a broker that came back gets to find the end of its log."""

log = logging.getLogger(__name__)


class KafkaPartition(StatefulSourcePartition[Record, str]):
    """One partition for one group; at most `bound` positions are given and not acknowledged."""

    def __init__(self, bootstrap: str, group: str, place: TopicPartition, bound: int) -> None:
        self._name = f"{place.topic}-{place.partition}"
        self._place, self._bound = place, bound
        self._consumer = consumer(bootstrap, group)
        self._subject = f"Group '{group}' on {self._name}"
        self._done, begin = patiently(self._subject, self._begin)
        self._next = self._done
        self._asked = 0.0
        self._consumer.assign([TopicPartition(place.topic, place.partition, begin)])

    def _begin(self) -> tuple[int, int]:
        """The group's position, the oldest record if there was none, and where reading begins.

        The position is set in any case: it shows that the group is read for.
        """
        deadline = time.monotonic() + SETTLE
        while True:
            oldest, end = self._consumer.get_watermark_offsets(self._place, CALL)
            done = committed(self._consumer, self._place)
            done = oldest if done is None else done
            if done <= end:
                break
            if time.monotonic() > deadline:
                raise KafkaFailed(
                    f"{self._subject} stands at {done}, but the partition ends at {end}: the topic was made anew or "
                    "has lost records. Set the group back (kafka-consumer-groups --reset-offsets), or choose another "
                    "FRAUD_CONSUMER_GROUP."
                )
            time.sleep(PAUSE)
        commit(self._consumer, [TopicPartition(self._place.topic, self._place.partition, done)])
        if done < oldest:
            log.error("%s: retention removed %d records before they were read", self._subject, oldest - done)
        return done, max(done, oldest)

    def next_batch(self) -> list[Record]:
        self.caught_up = False
        room = self._room()
        if room <= 0:
            return []
        try:
            messages = self._consumer.consume(min(BATCH, room), timeout=0)
        except KafkaException as raised:
            self._judge(raised.args[0])
            return []
        self.caught_up = not messages
        return [self._record(message) for message in messages if self._sound(message)]

    def _room(self) -> int:
        """How many more positions may be given; asks the broker what was acknowledged only when the bound is near."""
        now = time.monotonic()
        if self._bound - (self._next - self._done) < BATCH and now - self._asked >= ASK:
            self._asked = now
            try:
                self._done = committed(self._consumer, self._place, QUESTION) or self._done
            except KafkaException as raised:
                self._judge(raised.args[0])
        return self._bound - (self._next - self._done)

    def _sound(self, message: Message) -> bool:
        error = message.error()
        if error is not None:
            self._judge(error)
        return error is None

    def _judge(self, error: KafkaError) -> None:
        """Nothing, if librdkafka gets over the error when the broker is back; else raises."""
        if passing(error):
            log.warning("%s: %s", self._subject, error.str())
            return
        way = "Retention overtook the job; start it again." if error.code() == KafkaError._AUTO_OFFSET_RESET else ""
        raise KafkaFailed(f"{self._subject}: {error.name()}, {error.str()}. {way}".rstrip())

    def _record(self, message: Message) -> Record:
        offset: Any = message.offset()
        identifier = span_id(self._next, offset)
        self._next = offset + 1
        appended = message.timestamp()[1] * 1_000
        stated = None
        headers: Any = message.headers() or ()
        for name, text in headers:
            if name == "ingested_at":
                stated = sender_instant(text)
                break
        value: Any = message.value()
        return Record(self._name, identifier, value or b"", appended if stated is None else stated, appended)

    def next_awake(self) -> datetime | None:
        return datetime.now(UTC) + IDLE

    def snapshot(self) -> str:
        return ""  # the group's position in Kafka is the one that counts

    def close(self) -> None:
        self._consumer.close()
