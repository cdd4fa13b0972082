"""The logs that the transports' contract is tested on, one interface over all, and a source driven as Bytewax does."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from confluent_kafka import TopicPartition

from stream_jobs.transports import kafka, redis_streams
from stream_jobs.transports.base import IN_FLIGHT, Record, Transport
from stream_jobs.transports.files import JsonLines
from stream_jobs.transports.kafka_client import consumer
from stream_jobs.transports.kafka_topics import partitions_of
from tests.kafka_broker import Broker


def unique(name: str) -> str:
    return f"{name}.{uuid.uuid4().hex[:8]}"


class Log(Protocol):
    """A log of one test's own."""

    def transport(self, group: str = "job", in_flight: int = IN_FLIGHT) -> Transport: ...

    def publish(self, bodies: Sequence[bytes], at: int | None = None, keys: Sequence[bytes] | None = None) -> None: ...

    def publish_stating(self, body: bytes, ingested_at: bytes) -> None:
        """A message whose sender states any bytes as the instant."""

    def dead(self) -> list[dict[str, Any]]:
        """What a person finds: `reason`, `stream`, `id` and `body`, each a text."""

    def spec(self) -> str:
        """Python for the transport, for another process."""


@dataclass
class RedisLog:
    url: str
    name: str = field(default_factory=lambda: unique("transactions"))

    @property
    def client(self) -> Any:
        return redis_streams.connect(self.url)

    def transport(self, group: str = "job", in_flight: int = IN_FLIGHT) -> redis_streams.RedisStreams:
        return redis_streams.RedisStreams(self.url, self.name, group, f"{self.name}.dead", in_flight)

    def publish(self, bodies: Sequence[bytes], at: int | None = None, keys: Sequence[bytes] | None = None) -> None:
        redis_streams.publish(self.client, self.name, bodies, [at] * len(bodies))

    def publish_stating(self, body: bytes, ingested_at: bytes) -> None:
        self.client.xadd(self.name, {"body": body, "ingested_at": ingested_at})

    def dead(self) -> list[dict[str, Any]]:
        found = self.client.xrange(f"{self.name}.dead")
        return [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in found]

    def spec(self) -> str:
        return f"from stream_jobs.transports.redis_streams import RedisStreams\ntransport = {self.transport()!r}"


@dataclass
class KafkaLog:
    broker: Broker
    partitions: int = 3
    name: str = field(default_factory=lambda: unique("transactions"))

    def __post_init__(self) -> None:
        self.partitions = self.broker.topic(self.name, self.partitions)
        self.broker.topic(f"{self.name}.dead")
        self.producer = kafka.connect(self.broker.bootstrap)

    def transport(self, group: str = "job", in_flight: int = IN_FLIGHT) -> kafka.Kafka:
        name = f"{self.name}.{group}"  # a group has positions in every topic; here each test has its own
        return kafka.Kafka(self.broker.bootstrap, self.name, name, f"{self.name}.dead", in_flight)

    def publish(self, bodies: Sequence[bytes], at: int | None = None, keys: Sequence[bytes] | None = None) -> None:
        kafka.publish(self.producer, self.name, bodies, [at] * len(bodies), keys or [b"card"] * len(bodies))

    def publish_stating(self, body: bytes, ingested_at: bytes) -> None:
        self.producer.produce(self.name, body, b"card", headers=[("ingested_at", ingested_at)])
        self.producer.flush(10)

    def dead(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        looking = consumer(self.broker.bootstrap, unique("person"))
        for number in range(partitions_of(self.broker.bootstrap, f"{self.name}.dead") or 0):
            place = TopicPartition(f"{self.name}.dead", number, 0)
            end = looking.get_watermark_offsets(place, 10)[1]
            looking.assign([place])
            for message in looking.consume(end, timeout=10) if end else ():
                headers: Any = message.headers()
                found.append({name: value.decode() for name, value in headers} | {"body": message.value().decode()})
        looking.close()
        return found

    def spec(self) -> str:
        return f"from stream_jobs.transports.kafka import Kafka\ntransport = {self.transport()!r}"


@dataclass
class FileLog:
    path: Path

    def __post_init__(self) -> None:
        self.path.touch()

    def transport(self, group: str = "job", in_flight: int = IN_FLIGHT) -> JsonLines:
        return JsonLines(self.path, group, in_flight)

    def publish(self, bodies: Sequence[bytes], at: int | None = None, keys: Sequence[bytes] | None = None) -> None:
        with self.path.open("ab") as file:
            for body in bodies:
                file.write((body if at is None else b'{"ingested_at": %d, "body": %s}' % (at, body)) + b"\n")

    def publish_stating(self, body: bytes, ingested_at: bytes) -> None:
        self.publish([b'{"ingested_at": "%s", "body": %s}' % (ingested_at, body)])

    def dead(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.with_suffix(".dead.jsonl").read_text().splitlines()]

    def spec(self) -> str:
        return (
            "from pathlib import Path, PosixPath\nfrom stream_jobs.transports.files import JsonLines\n"
            f"transport = {self.transport()!r}"
        )


class Run:
    """A source with all its partitions, asked as Bytewax asks: again at once, or when it said."""

    def __init__(self, transport: Transport) -> None:
        source: Any = transport.source()
        self.names = source.list_parts()
        self.parts = {name: source.build_part("records", name, None) for name in self.names}
        self.calls = 0

    def take(self, number: int, seconds: float = 30.0) -> list[Record]:
        """At least this many records, or what came until the time was over or all had ended."""
        records: list[Record] = []
        deadline = time.monotonic() + seconds
        while len(records) < number and self.parts and time.monotonic() < deadline:
            records += self._round()
        return records

    def rest(self, seconds: float = 0.4) -> list[Record]:
        """Whatever comes within this time."""
        return self.take(10**9, seconds)

    def _round(self) -> list[Record]:
        records: list[Record] = []
        for name, part in list(self.parts.items()):
            self.calls += 1
            try:
                records += part.next_batch()
            except StopIteration:
                self.parts.pop(name).close()
        due = [at for part in self.parts.values() if (at := part.next_awake()) is not None]
        if len(due) == len(self.parts) > 0:
            time.sleep(max((min(due) - datetime.now(UTC)).total_seconds(), 0.0))
        return records

    def close(self) -> None:
        while self.parts:
            self.parts.popitem()[1].close()


@contextmanager
def reading(transport: Transport) -> Iterator[Run]:
    """A run of a source; its end is a crash: nothing is said to the transport but what was acknowledged."""
    run = Run(transport)
    try:
        yield run
    finally:
        run.close()
