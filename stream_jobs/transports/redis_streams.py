"""Redis Streams: the embedded profile's transport. One consumer group per job; unacknowledged records come again.

The group's pending list is what was given and not acknowledged. A source first gives again what an earlier one left
there, then reads on; a reply that is lost with its connection is looked up there too, since Redis counts it as given.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from redis import Redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeout
from redis.retry import Retry

from stream_jobs.transports.base import (
    COUNTED,
    IN_FLIGHT,
    Acknowledger,
    Backlog,
    End,
    Publisher,
    Record,
    sender_instant,
)

BATCH = 2_000
"""Records read at once."""

IDLE = timedelta(milliseconds=2)
"""How long an empty stream is left alone."""

AWAY = timedelta(milliseconds=100)
"""How long a server that is away is left alone."""

PATIENCE = 60.0
"""Seconds for which a source waits for a server that is away."""

MAX_DEAD_LETTERS = 1_000_000
"""Dead letters kept; the oldest go first."""

CONSUMER = "worker"

log = logging.getLogger(__name__)


def connect(url: str) -> Redis:
    """A client that tries again for about ten seconds when the server is away, then raises."""
    retry = Retry(ExponentialBackoff(cap=2, base=0.05), 10)
    return Redis.from_url(url, retry=retry, retry_on_error=[RedisConnectionError])


def publish(client: Any, stream: str, bodies: Sequence[bytes], ingested_at: Sequence[int | None]) -> list[bytes]:
    """Append messages in order; returns their ids. An instant is when the sender first had the event, if it knows."""
    with client.pipeline(transaction=False) as pipe:
        for body, at in zip(bodies, ingested_at, strict=True):
            pipe.xadd(stream, {"body": body} if at is None else {"body": body, "ingested_at": at})
        ids: list[bytes] = pipe.execute()
    return ids


def _record(partition: str, entry: bytes, fields: dict[bytes, bytes]) -> Record:
    appended = int(entry.split(b"-", 1)[0]) * 1_000
    stated = sender_instant(fields.get(b"ingested_at"))
    return Record(partition, entry.decode(), fields.get(b"body", b""), appended if stated is None else stated, appended)


class _Partition(StatefulSourcePartition[Record, str]):
    def __init__(self, url: str, stream: str, group: str, bound: int) -> None:
        self._client = connect(url)
        self._stream, self._group, self._bound = stream, group, bound
        try:
            self._client.xgroup_create(stream, group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._client.set_retry(Retry(NoBackoff(), 0))  # from here on the source itself waits, without blocking the job
        self._left: int | None = None  # pending records that this source has yet to give; None: to be counted
        self._in_flight = 0
        self._last = "0-0"
        self._replaying = True
        self._away_since: float | None = None
        self.caught_up = False

    def next_batch(self) -> list[Record]:
        self.caught_up = False
        try:
            records = self._read()
        except (RedisConnectionError, RedisTimeout) as error:
            self._wait(error)
            return []
        self._away_since = None
        return records

    def _read(self) -> list[Record]:
        if self._left is None:
            self._left = self._pending_after_last()
        if self._bound - self._in_flight < BATCH:
            self._in_flight = self._pending() - self._left
        room = min(BATCH, self._bound - self._in_flight)
        if room <= 0:
            return []
        after: Any = self._last if self._replaying else ">"
        found: Any = self._client.xreadgroup(self._group, CONSUMER, {self._stream: after}, count=room)
        entries = found[0][1] if found else []
        if self._replaying:
            self._replaying = bool(entries)
            self._left = max(self._left - len(entries), 0) if entries else 0
        self.caught_up = not entries and after == ">"
        if entries:
            self._last = entries[-1][0].decode()
            self._in_flight += len(entries)
        return [_record(self._stream, entry, fields or {}) for entry, fields in entries]

    def _pending(self) -> int:
        found: Any = self._client.xpending(self._stream, self._group)
        return int(found["pending"])

    def _pending_after_last(self) -> int:
        found: Any = self._client.xpending_range(self._stream, self._group, f"({self._last}", "+", 10_000_000)
        return len(found)

    def _wait(self, error: Exception) -> None:
        """Note that the server is away; what it gave without our hearing of it is pending, after the last record."""
        now = time.monotonic()
        if self._away_since is None:
            log.warning("Redis stream '%s': %s; waiting up to %g s for the server", self._stream, error, PATIENCE)
        self._away_since = self._away_since or now
        if now - self._away_since > PATIENCE:
            raise error
        self._replaying, self._left = True, None

    def next_awake(self) -> datetime | None:
        return datetime.now(UTC) + (IDLE if self._away_since is None else AWAY)

    def snapshot(self) -> str:
        return ""  # the group in Redis knows the position

    def close(self) -> None:
        self._client.close()


@dataclass(frozen=True)
class _Source(FixedPartitionedSource[Record, str]):
    url: str
    stream: str
    group: str
    in_flight: int

    def list_parts(self) -> list[str]:
        return [self.stream]

    def build_part(self, step_id: str, for_part: str, resume_state: str | None) -> _Partition:
        return _Partition(self.url, for_part, self.group, self.in_flight)


class _Acknowledger:
    def __init__(self, url: str, group: str, dead_letters: str) -> None:
        self._client = connect(url)
        self._group, self._dead_letters = group, dead_letters

    def acknowledge(self, partition: str, ids: Sequence[str]) -> None:
        if ids:
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

    def close(self) -> None:
        self._client.close()


class _Publisher:
    def __init__(self, url: str, stream: str) -> None:
        self._client, self._stream = connect(url), stream

    def publish(self, bodies: Sequence[bytes], ingested_at: Sequence[int | None], keys: Sequence[bytes]) -> None:
        publish(self._client, self._stream, bodies, ingested_at)  # one stream is in order for every key

    def close(self) -> None:
        self._client.close()


class _Backlog:
    def __init__(self, url: str, stream: str, group: str) -> None:
        self._client, self._stream, self._group = connect(url), stream, group

    def end(self) -> str:
        if not self._client.exists(self._stream):
            return "0-0"
        stream: Any = self._client.xinfo_stream(self._stream)
        return str(stream["last-generated-id"].decode())

    def lag(self, end: End = None) -> int:
        end = end or self.end()
        if _order(end) == (0, 0):
            return 0
        groups: Any = self._client.xinfo_groups(self._stream)
        found = {entry["name"].decode(): entry["last-delivered-id"].decode() for entry in groups}
        given = found.get(self._group, "0-0")
        beyond: Any = ()
        if _order(given) < _order(end):
            beyond = self._client.xrange(self._stream, f"({given}", end, COUNTED)
        pending: Any = ()
        if self._group in found:
            pending = self._client.xpending_range(self._stream, self._group, "-", end, COUNTED)
        return len(beyond) + len(pending)

    def close(self) -> None:
        self._client.close()


def _order(identifier: str) -> tuple[int, int]:
    milliseconds, _, number = identifier.partition("-")
    return int(milliseconds), int(number)


@dataclass(frozen=True)
class RedisStreams:
    """The transport over one stream, read by one consumer group."""

    url: str
    stream: str
    group: str
    dead_letters: str
    in_flight: int = IN_FLIGHT

    def source(self) -> _Source:
        return _Source(self.url, self.stream, self.group, self.in_flight)

    def acknowledger(self) -> Acknowledger:
        return _Acknowledger(self.url, self.group, self.dead_letters)

    def publisher(self) -> Publisher:
        return _Publisher(self.url, self.stream)

    def backlog(self) -> Backlog:
        return _Backlog(self.url, self.stream, self.group)

    def rewind(self, to: str) -> None:
        client = connect(self.url)
        try:
            found: Any = client.xinfo_groups(self.stream) if client.exists(self.stream) else []
            groups = {entry["name"].decode(): entry for entry in found}
            if self.group not in groups:
                return
            there = "0-0"
            if to in groups:
                there = groups[to]["last-delivered-id"].decode()
                waiting: Any = client.xpending_range(self.stream, to, "-", "+", 1)
                if waiting:  # all before the first that waits is done
                    there = _before(waiting[0]["message_id"].decode())
            if _order(there) < _order(groups[self.group]["last-delivered-id"].decode()):
                ours: Any = client.xpending_range(self.stream, self.group, f"({there}", "+", 10_000_000)
                if ours:  # or they would be given twice
                    client.xack(self.stream, self.group, *(entry["message_id"] for entry in ours))
                client.xgroup_setid(self.stream, self.group, there)
        finally:
            client.close()


def _before(entry: str) -> str:
    """An id below which nothing is left out: the greatest below `entry`, as far as ids go."""
    milliseconds, number = _order(entry)
    return f"{milliseconds}-{number - 1}" if number else f"{milliseconds - 1}-{2**64 - 1}"
