"""A file of JSON lines as a transport: to load a day's events, or to run a job on what a test wrote.

A line is an event, or an envelope with the instant at which it was first had. Its id is the bytes it spans. A group's
position lies in a file beside it, and passes over a line only when that line and all before it are acknowledged.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from stream_jobs.transports.base import COUNTED, IN_FLIGHT, LAST_INSTANT, Acknowledger, Backlog, End, Publisher, Record
from stream_jobs.transports.prefix import Prefix, span, span_id

BATCH = 1_000

WAIT = timedelta(milliseconds=10)
"""How long a source at its bound waits for acknowledgements."""


def _position(file: Path) -> int:
    return int(file.read_text()) if file.exists() else 0


def _reach(file: Path, position: int) -> None:
    whole = file.with_name(f"{file.name}.new")
    whole.write_text(str(position))
    os.replace(whole, file)


class _Partition(StatefulSourcePartition[Record, str]):
    def __init__(self, path: Path, position: Path, bound: int) -> None:
        self._path, self._position, self._bound = path, position, bound
        self._given: deque[int] = deque()  # where each line that was given ends, until it is acknowledged
        self._file: BinaryIO = path.open("rb")
        self._next = self._file.seek(_position(position))
        self._awake: datetime | None = None

    def next_batch(self) -> list[Record]:
        if self._bound - len(self._given) < BATCH:
            self._forget()
        room = min(BATCH, self._bound - len(self._given))
        records: list[Record] = []
        while len(records) < room and (line := self._file.readline()):
            if line.strip():
                records.append(self._record(line.strip()))
        if room > 0 and not records:
            raise StopIteration
        self._awake = None if records else datetime.now(UTC) + WAIT
        return records

    def _record(self, line: bytes) -> Record:
        end = self._file.tell()
        body, stated = _open(line)
        appended = int(self._path.stat().st_mtime * 1_000_000)
        identifier = span_id(self._next, end - 1)
        self._next = end
        self._given.append(end)
        return Record(str(self._path), identifier, body, appended if stated is None else stated, appended)

    def _forget(self) -> None:
        done = _position(self._position)
        while self._given and self._given[0] <= done:
            self._given.popleft()

    def next_awake(self) -> datetime | None:
        return self._awake

    def snapshot(self) -> str:
        return ""  # the file of the group's position is what counts

    def close(self) -> None:
        self._file.close()


def _open(line: bytes) -> tuple[bytes, int | None]:
    """A line is an event, or an envelope `{"ingested_at": µs, "body": event}` that says when it was first had."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return line, None  # the job buries it with the reason
    if isinstance(value, dict) and value.keys() == {"ingested_at", "body"}:
        stated = value["ingested_at"]
        if type(stated) is int and 0 <= stated <= LAST_INSTANT:
            return json.dumps(value["body"]).encode(), stated
    return line, None


@dataclass(frozen=True)
class _Source(FixedPartitionedSource[Record, str]):
    file: JsonLines

    def list_parts(self) -> list[str]:
        return [str(self.file.path)]

    def build_part(self, step_id: str, for_part: str, resume_state: str | None) -> _Partition:
        return _Partition(self.file.path, self.file.position, self.file.in_flight)


class _Acknowledger:
    def __init__(self, position: Path, dead_letters: Path) -> None:
        self._position, self._dead_letters = position, dead_letters
        self._prefix = Prefix(_position(position))

    def acknowledge(self, partition: str, ids: Sequence[str]) -> None:
        before = self._prefix.end
        for identifier in ids:
            self._prefix.done(*span(identifier))
        if self._prefix.end > before:
            _reach(self._position, self._prefix.end)

    def bury(self, records: Sequence[tuple[Record, str]]) -> None:
        with self._dead_letters.open("a") as file:
            for record, reason in records:
                letter = {"reason": reason, "stream": record.partition, "id": record.id}
                file.write(json.dumps(letter | {"body": record.body.decode(errors="replace")}) + "\n")

    def close(self) -> None:
        """Nothing is under way."""


class _Publisher:
    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")

    def publish(self, bodies: Sequence[bytes], ingested_at: Sequence[int | None], keys: Sequence[bytes]) -> None:
        """Raises `ValueError`, and writes nothing, if a message is no line."""
        lines = []
        for body, at in zip(bodies, ingested_at, strict=True):
            if b"\n" in body or not body.strip():
                raise ValueError(
                    f"Message {body[:60]!r} cannot be a line of a file; it must not be empty or have breaks."
                )
            lines.append((body if at is None else b'{"ingested_at": %d, "body": %s}' % (at, body)) + b"\n")
        self._file.write(b"".join(lines))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class _Backlog:
    def __init__(self, path: Path, position: Path) -> None:
        self._path, self._position = path, position

    def end(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    def lag(self, end: End = None) -> int:
        end = self.end() if end is None else end
        done = _position(self._position)
        if done >= end:
            return 0
        with self._path.open("rb") as file:
            file.seek(done)
            return sum(1 for line in islice(BytesIO(file.read(end - done)), COUNTED) if line.strip())

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class JsonLines:
    """The transport over one file, read by one group; its position and the dead letters go to files beside it."""

    path: Path
    group: str = "job"
    in_flight: int = IN_FLIGHT

    @property
    def position(self) -> Path:
        """The file that says how many bytes the group is done with."""
        return self.path.with_name(f"{self.path.name}.{self.group}.position")

    def source(self) -> _Source:
        return _Source(self)

    def acknowledger(self) -> Acknowledger:
        return _Acknowledger(self.position, self.path.with_suffix(".dead.jsonl"))

    def publisher(self) -> Publisher:
        return _Publisher(self.path)

    def backlog(self) -> Backlog:
        return _Backlog(self.path, self.position)

    def rewind(self, to: str) -> None:
        there = _position(JsonLines(self.path, to).position)
        if there < _position(self.position):
            _reach(self.position, there)
