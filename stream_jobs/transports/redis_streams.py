"""Redis Streams: the embedded profile's transport. One consumer group per job; unacknowledged records come again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.retry import Retry

from stream_jobs.transports.base import Acknowledger, Record

BATCH = 2_000
"""Records read at once; bounds what is in flight, and so what a crash delivers again."""

IDLE = timedelta(milliseconds=2)
"""How long an empty stream is left alone."""

MAX_DEAD_LETTERS = 1_000_000
"""Dead letters kept; the oldest go first."""


def connect(url: str) -> Redis:
    """A client that tries again for about ten seconds when the server is away, then raises."""
    retry = Retry(ExponentialBackoff(cap=2, base=0.05), 10)
    return Redis.from_url(url, retry=retry, retry_on_error=[RedisConnectionError])


def publish(client: Any, stream: str, bodies: Sequence[bytes], ingested_at: Sequence[int]) -> list[bytes]:
    """Append messages in order; returns their ids."""
    with client.pipeline(transaction=False) as pipe:
        for body, at in zip(bodies, ingested_at, strict=True):
            pipe.xadd(stream, {"body": body, "ingested_at": at})
        ids: list[bytes] = pipe.execute()
    return ids


def _record(partition: str, entry: bytes, fields: dict[bytes, bytes]) -> Record:
    appended = int(entry.split(b"-", 1)[0]) * 1_000
    stated = fields.get(b"ingested_at", b"")
    ingested = int(stated) if stated.isdigit() else appended
    return Record(partition, entry.decode(), fields.get(b"body", b""), ingested, appended)


class _Partition(StatefulSourcePartition[Record, str]):
    def __init__(self, url: str, stream: str, group: str) -> None:
        self._client = connect(url)
        self._stream, self._group = stream, group
        try:
            self._client.xgroup_create(stream, group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        # What this group was given before and never acknowledged comes first, from the beginning.
        self._next: str = "0"

    def next_batch(self) -> list[Record]:
        found: Any = self._client.xreadgroup(self._group, "worker", {self._stream: self._next}, count=BATCH)
        entries = found[0][1] if found else []
        if self._next != ">":
            self._next = entries[-1][0].decode() if entries else ">"
        return [_record(self._stream, entry, fields or {}) for entry, fields in entries]

    def next_awake(self) -> datetime | None:
        return datetime.now(UTC) + IDLE

    def snapshot(self) -> str:
        return ""  # the group in Redis knows the position

    def close(self) -> None:
        self._client.close()


@dataclass(frozen=True)
class _Source(FixedPartitionedSource[Record, str]):
    url: str
    stream: str
    group: str

    def list_parts(self) -> list[str]:
        return [self.stream]

    def build_part(self, step_id: str, for_part: str, resume_state: str | None) -> _Partition:
        return _Partition(self.url, for_part, self.group)


class _Acknowledger:
    def __init__(self, url: str, group: str, dead_letters: str) -> None:
        self._client = connect(url)
        self._group, self._dead_letters = group, dead_letters

    def acknowledge(self, partition: str, ids: Sequence[str]) -> None:
        self._client.xack(partition, self._group, *ids)

    def bury(self, records: Sequence[tuple[Record, str]]) -> None:
        with self._client.pipeline(transaction=False) as pipe:
            for record, reason in records:
                letter: dict[Any, Any] = {
                    "body": record.body,
                    "reason": reason,
                    "stream": record.partition,
                    "id": record.id,
                }
                pipe.xadd(self._dead_letters, letter, maxlen=MAX_DEAD_LETTERS, approximate=True)
            pipe.execute()


@dataclass(frozen=True)
class RedisStreams:
    """The transport over one stream, read by one consumer group."""

    url: str
    stream: str
    group: str
    dead_letters: str

    def source(self) -> _Source:
        return _Source(self.url, self.stream, self.group)

    def acknowledger(self) -> Acknowledger:
        return _Acknowledger(self.url, self.group, self.dead_letters)
