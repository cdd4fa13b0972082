"""A file of JSON lines as a transport: to load a day's events, or to run a job on what a test wrote.

A line is an event, or an envelope with the instant at which it was first had. Its identity is its byte offset; the
position travels in Bytewax's own recovery snapshots.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from stream_jobs.transports.base import Acknowledger, Record

BATCH = 1_000


class _Partition(StatefulSourcePartition[Record, int]):
    def __init__(self, path: Path, position: int) -> None:
        self._path = path
        self._file: BinaryIO = path.open("rb")
        self._file.seek(position)

    def next_batch(self) -> list[Record]:
        records: list[Record] = []
        while len(records) < BATCH:
            offset = self._file.tell()
            line = self._file.readline()
            if not line:
                break
            if line.strip():
                body, stated = _open(line.strip())
                at = int(self._path.stat().st_mtime * 1_000_000) if stated is None else stated
                records.append(Record(str(self._path), str(offset), body, at, at))
        if not records:
            raise StopIteration
        return records

    def snapshot(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def _open(line: bytes) -> tuple[bytes, int | None]:
    """A line is an event, or an envelope `{"ingested_at": µs, "body": event}` that says when it was first had."""
    try:
        value = json.loads(line)
    except ValueError:
        return line, None  # the job buries it with the reason
    if isinstance(value, dict) and value.keys() == {"ingested_at", "body"} and isinstance(value["ingested_at"], int):
        return json.dumps(value["body"]).encode(), value["ingested_at"]
    return line, None


@dataclass(frozen=True)
class _Source(FixedPartitionedSource[Record, int]):
    path: Path

    def list_parts(self) -> list[str]:
        return [str(self.path)]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Partition:
        return _Partition(Path(for_part), resume_state or 0)


class _Acknowledger:
    def __init__(self, dead_letters: Path) -> None:
        self._dead_letters = dead_letters

    def acknowledge(self, partition: str, ids: Sequence[str]) -> None:
        """Nothing to forget: a file stays."""

    def bury(self, records: Sequence[tuple[Record, str]]) -> None:
        with self._dead_letters.open("a") as file:
            for record, reason in records:
                letter = {"reason": reason, "offset": record.id, "body": record.body.decode(errors="replace")}
                file.write(json.dumps(letter) + "\n")


@dataclass(frozen=True)
class JsonLines:
    """The transport over one file; dead letters go to a file beside it."""

    path: Path

    def source(self) -> _Source:
        return _Source(self.path)

    def acknowledger(self) -> Acknowledger:
        return _Acknowledger(self.path.with_suffix(".dead.jsonl"))
