"""Kafka: the transport past one machine. One Bytewax partition per Kafka partition; one consumer group per job.

A group's position in a partition moves only when records are acknowledged, and never past one that is not
(`stream_jobs.transports.prefix`). The broker's word on that position is the only state: a source that starts anew, a
source at its bound and an acknowledger in another process all ask it. It is Bytewax that gives the partitions to
workers, not Kafka's group protocol, so two jobs of one group would both read everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from bytewax.inputs import FixedPartitionedSource
from confluent_kafka import Producer, TopicPartition

from stream_jobs.transports.base import IN_FLIGHT, Acknowledger, Backlog, End, Publisher, Record
from stream_jobs.transports.kafka_client import CALL, KafkaFailed, commit, committed, consumer, patiently, positions
from stream_jobs.transports.kafka_committer import Committer
from stream_jobs.transports.kafka_producer import connect, deliver, publish
from stream_jobs.transports.kafka_source import KafkaPartition
from stream_jobs.transports.kafka_topics import (
    admin,
    create_dead_letters,
    create_topic,
    end_offsets,
    places_of,
)
from stream_jobs.transports.prefix import Prefix, span

__all__ = ["Kafka", "KafkaFailed", "connect", "create_dead_letters", "create_topic", "publish"]


@dataclass(frozen=True)
class _Source(FixedPartitionedSource[Record, str]):
    kafka: Kafka

    def list_parts(self) -> list[str]:
        places = places_of(self.kafka.bootstrap, self.kafka.topic)
        return [f"{place.topic}-{place.partition}" for place in places]

    def build_part(self, step_id: str, for_part: str, resume_state: str | None) -> KafkaPartition:
        return KafkaPartition(self.kafka.bootstrap, self.kafka.group, _place(for_part), self.kafka.in_flight)


def _place(partition: str, offset: int = 0) -> TopicPartition:
    topic, _, number = partition.rpartition("-")
    return TopicPartition(topic, int(number), offset)


class _Acknowledger:
    """Commits for a group without reading for it; the broker has a position a few milliseconds after the call."""

    def __init__(self, bootstrap: str, group: str, dead_letters: str) -> None:
        self._bootstrap, self._group, self._dead_letters = bootstrap, group, dead_letters
        self._prefixes: dict[str, Prefix] = {}

    @cached_property
    def _committer(self) -> Committer:
        return Committer(consumer(self._bootstrap, self._group), f"group '{self._group}' at {self._bootstrap}")

    @cached_property
    def _producer(self) -> Producer:
        return connect(self._bootstrap)

    def acknowledge(self, partition: str, ids: Sequence[str]) -> None:
        if partition not in self._prefixes:
            self._prefixes[partition] = self._load(partition)
        prefix = self._prefixes[partition]
        before = prefix.end
        for identifier in ids:
            prefix.done(*span(identifier))
        if prefix.end > before:
            self._committer.reach(_place(partition, prefix.end))

    def _load(self, partition: str) -> Prefix:
        subject = f"Group '{self._group}' on {partition}"
        looking = consumer(self._bootstrap, self._group)
        try:
            done = patiently(subject, lambda: committed(looking, _place(partition)))
        finally:
            looking.close()
        if done is None:
            raise KafkaFailed(f"{subject} has no position: no source of it was ever started; nothing to acknowledge.")
        return Prefix(done)

    def close(self) -> None:
        if "_committer" in self.__dict__:
            self._committer.close()

    def bury(self, records: Sequence[tuple[Record, str]]) -> None:
        def letter(record: Record, reason: str) -> tuple[None, bytes, list[tuple[str, bytes]]]:
            named = (("reason", reason), ("stream", record.partition), ("id", record.id))
            return None, record.body, [(name, text.encode(errors="replace")) for name, text in named]

        deliver(self._producer, self._dead_letters, (letter(record, reason) for record, reason in records))


class _Publisher:
    def __init__(self, bootstrap: str, topic: str) -> None:
        self._producer, self._topic = connect(bootstrap), topic

    def publish(self, bodies: Sequence[bytes], ingested_at: Sequence[int | None], keys: Sequence[bytes]) -> None:
        publish(self._producer, self._topic, bodies, ingested_at, keys)

    def close(self) -> None:
        self._producer.flush(CALL)


class _Backlog:
    def __init__(self, bootstrap: str, topic: str, group: str) -> None:
        self._subject = f"Group '{group}' on {topic}"
        self._client, self._admin = consumer(bootstrap, group), admin(bootstrap)
        self._places = places_of(bootstrap, topic)

    def end(self) -> list[int]:
        return patiently(self._subject, lambda: end_offsets(self._admin, self._places))

    def lag(self, end: End = None) -> int:
        ends = self.end() if end is None else end
        done = patiently(self._subject, lambda: positions(self._client, self._places))
        first = patiently(self._subject, self._oldest) if None in done else [0] * len(done)
        places = zip(ends, done, first, strict=True)
        return sum(max(last - (oldest if at is None else at), 0) for last, at, oldest in places)

    def _oldest(self) -> list[int]:
        return [self._client.get_watermark_offsets(place, CALL)[0] for place in self._places]

    def close(self) -> None:
        self._client.close()


@dataclass(frozen=True)
class Kafka:
    """The transport over one topic, read by one consumer group; a record's id is its offset (`prefix.span_id`)."""

    bootstrap: str
    topic: str
    group: str
    dead_letters: str
    in_flight: int = IN_FLIGHT

    def source(self) -> _Source:
        return _Source(self)

    def acknowledger(self) -> Acknowledger:
        return _Acknowledger(self.bootstrap, self.group, self.dead_letters)

    def publisher(self) -> Publisher:
        return _Publisher(self.bootstrap, self.topic)

    def backlog(self) -> Backlog:
        return _Backlog(self.bootstrap, self.topic, self.group)

    def rewind(self, to: str) -> None:
        places = places_of(self.bootstrap, self.topic)
        ours, other = (consumer(self.bootstrap, group) for group in (self.group, to))
        try:
            here, there = (patiently(f"Rewind to '{to}'", partial(positions, one, places)) for one in (ours, other))
            oldest = [other.get_watermark_offsets(place, CALL)[0] for place in places]
            wanted = [first if at is None else at for at, first in zip(there, oldest, strict=True)]
            back = [
                TopicPartition(place.topic, place.partition, at)
                for place, now, at in zip(places, here, wanted, strict=True)
                if now is not None and at < now
            ]
            if back:
                patiently(f"Rewind of '{self.group}'", partial(commit, ours, back))
        finally:
            ours.close()
            other.close()
