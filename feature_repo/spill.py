"""What a retrieval keeps on disk when a history exceeds its memory: events divided by entity, and finished columns.

An entity's events lie in one bucket, in the order in which they were read, so a bucket answers for its entities as the
whole history would.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.window_state import Floats, Ints, code

FAN_OUT = 256
"""Buckets; the least that has to fit into memory is one of them, or the events of one entity."""

GATHERED = 65_536
"""Events divided at a time: each bucket gets some hundred."""


def bucket_of(keys: pa.Array | pa.ChunkedArray) -> Ints:
    """The bucket of each key, by its text; the keys that are null share one."""
    encoded = pc.dictionary_encode(pc.cast(keys, pa.string()))
    chunks = encoded.chunks if isinstance(encoded, pa.ChunkedArray) else [encoded]
    found = [np.empty(0, np.int64)]
    for chunk in chunks:
        table = np.array([*(code(text) % FAN_OUT for text in chunk.dictionary.to_pylist()), 0], np.int64)
        found.append(table[pc.fill_null(chunk.indices, len(table) - 1).to_numpy(zero_copy_only=False)])
    return np.concatenate(found)


class Buckets:
    """Events in files below a folder; `add` all, then `groups` and `take` each group once."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._key = key
        self._writers: dict[int, tuple[pa.OSFile, pa.RecordBatchStreamWriter]] = {}
        self._sizes = np.zeros(FAN_OUT, np.int64)
        self._waiting: list[pa.RecordBatch] = []
        self._schema: pa.Schema | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Put events where they belong."""
        self._schema = self._schema or batch.schema
        self._waiting.append(batch)
        if sum(len(one) for one in self._waiting) >= GATHERED:
            self._divide()

    def groups(self, limit: int) -> Iterator[range]:
        """Neighbouring buckets that together have at most `limit` bytes, or are one."""
        self._divide()
        for sink, writer in self._writers.values():
            writer.close()
            sink.close()
        first = size = 0
        for number, more in enumerate(self._sizes.tolist()):
            if number > first and size + more > limit:
                yield range(first, number)
                first, size = number, 0
            size += more
        yield range(first, FAN_OUT)

    def take(self, group: range) -> pa.Table:
        """The events of these buckets, which are removed from the disk."""
        parts = [self._schema.empty_table()] if self._schema else []
        for number in group:
            if number in self._writers:
                with pa.OSFile(str(self._path(number))) as file, pa.ipc.open_stream(file) as stream:
                    parts.append(stream.read_all())
                self._path(number).unlink()
        return pa.concat_tables(parts)

    def _divide(self) -> None:
        if not self._waiting:
            return
        events = pa.Table.from_batches(self._waiting)
        self._waiting = []
        numbers = bucket_of(events[self._key])
        order = np.argsort(numbers, kind="stable")
        divided = events.take(pa.array(order)).combine_chunks()
        cuts = np.searchsorted(numbers[order], np.arange(FAN_OUT + 1))
        for number in np.flatnonzero(np.diff(cuts)).tolist():
            part = divided.slice(cuts[number], cuts[number + 1] - cuts[number])
            self._writer(number).write_table(part)
            self._sizes[number] += part.nbytes

    def _writer(self, number: int) -> pa.RecordBatchStreamWriter:
        if number not in self._writers:
            sink = pa.OSFile(str(self._path(number)), "wb")
            self._writers[number] = sink, pa.ipc.new_stream(sink, self._schema)
        return self._writers[number][1]

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:03d}.arrow"


def gather(batches: Iterable[pa.RecordBatch], key: str, limit: int | None, folder: Path) -> pa.Table | Buckets:
    """All events as a table, or in buckets below `folder` if they have more bytes than `limit`."""
    held: list[pa.RecordBatch] = []
    size, buckets = 0, None
    for batch in batches:
        if buckets is None:
            held.append(batch)
            size += batch.nbytes
            if limit is None or size <= limit:
                continue
            folder.mkdir()
            buckets = Buckets(folder, key)
        else:
            held = [batch]
        while held:
            buckets.add(held.pop(0))
    return pa.Table.from_batches(held) if buckets is None else buckets


class Columns:
    """Columns of float64 in a file without a name, null as NaN; written row by row, in any order."""

    def __init__(self, folder: Path, rows: int, names: Sequence[str]) -> None:
        self._names = list(names)
        with (folder / "columns").open("w+b") as file:
            file.truncate(max(8 * rows * len(self._names), 1))
            self._mapped = mmap.mmap(file.fileno(), 0)
        (folder / "columns").unlink()
        self._cells: Floats = np.frombuffer(self._mapped, np.float64, rows * len(self._names)).reshape(rows, -1)

    def put(self, rows: Ints, columns: Mapping[str, Any]) -> None:
        """Write all columns of these rows."""
        self._cells[rows] = np.column_stack([_floats(columns[name]) for name in self._names])

    def get(self, rows: slice) -> dict[str, npt.NDArray[np.float64]]:
        """Copies of the columns of these rows."""
        found = np.array(self._cells[rows].T, order="C")
        return dict(zip(self._names, found, strict=True))

    def let_go(self) -> None:
        """Give back the memory that the pages in use take; what they hold stays."""
        self._mapped.madvise(mmap.MADV_DONTNEED)


def _floats(column: Any) -> Floats:
    values = column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column
    return np.asarray(values, np.float64)
