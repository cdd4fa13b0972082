"""An entity's state as bytes, and finished windows from states or from history: the Python face of the kernels.

A state is what the online store holds for one entity of one windowed view: a header of six 8-byte words (magic, number
of events, stamp, last dropped event, events applied, last ingest), then the events as columns: instants, identifiers,
each value column, each distinct column. Little-endian, versioned by its magic.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import mmh3
import numpy as np
import numpy.typing as npt

from feature_repo.window_kernels import HEADER, NEVER, finish_slices, finish_states
from feature_repo.window_merge import merge
from feature_repo.windows import WindowSpec, far_edge, loads, tile

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MAX_EVENTS = 4096
"""Events one entity's state may hold. Beyond it the oldest are dropped, counted, and `incomplete` says so."""

FORMAT = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_STATE: Ints = np.empty(0, np.int64)


class InvalidState(ValueError):
    """Bytes that are no state of this view: another format, or another set of columns."""


def to_us(at: datetime) -> int:
    """An aware instant in microseconds since 1970-01-01 UTC, exactly."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def from_us(at: int) -> datetime:
    """The inverse of `to_us`."""
    return _EPOCH + timedelta(microseconds=at)


def code(text: str | None) -> int:
    """The 64-bit code of a text (MurmurHash3) that stands for it in a state; 0 is null's alone."""
    if text is None:
        return 0
    return int(mmh3.hash64(text)[0]) or 1


@dataclass(frozen=True)
class _Layout:
    """What the kernels need of a spec, made once."""

    windows: Ints
    tiles: Ints
    n_values: int
    n_distinct: int
    magic: int
    retention: int


def _layout(spec: WindowSpec) -> _Layout:
    layout = spec.__dict__.get("_layout")
    if layout is None:
        layout = _Layout(
            windows=np.array(spec.windows, np.int64),
            tiles=np.array([tile(w) for w in spec.windows], np.int64),
            n_values=len(spec.values),
            n_distinct=len(spec.distinct),
            magic=0x5447_0000_0000_0000 | FORMAT << 32 | _meaning(spec),
            retention=spec.retention,
        )
        spec.__dict__["_layout"] = layout
    return layout


def _meaning(spec: WindowSpec) -> int:
    """32 bits that differ where a state of one spec would be misread, or reach back too little, under another."""
    columns = [spec.join_key, spec.event_id, spec.values, spec.distinct, spec.retention]
    return zlib.crc32(json.dumps(columns).encode())


@dataclass(frozen=True)
class Events:
    """Events of one entity, one array element each; `values` and `distinct` have the shape (columns, events)."""

    ts: Ints
    ids: Ints
    values: Floats
    distinct: Ints
    ingest: Ints


@dataclass(frozen=True)
class Slices:
    """Rows of a question against a history sorted by (entity, time): row r reads events [begins[r], ends[r])."""

    ts: Ints
    created: Ints
    values: Floats
    distinct: Ints
    begins: Ints
    ends: Ints
    known: Ints


@dataclass(frozen=True)
class Update:
    """A state after a merge; `added` events changed it, `overflowed` were dropped for room."""

    state: bytes
    added: int
    overflowed: int


def update(spec: WindowSpec, state: bytes | None, events: Events, max_events: int = MAX_EVENTS) -> Update:
    """Merge events into a state, in any order and however often: the result depends only on which events they are."""
    shape = _layout(spec)
    words, added, overflowed = merge(
        _words(shape, spec, state), events.ts, events.ids, events.values, events.distinct, events.ingest,
        shape.magic, shape.retention, max_events,
    )  # fmt: skip
    return Update(words.tobytes(), int(added), int(overflowed))


def _words(shape: _Layout, spec: WindowSpec, state: bytes | None) -> Ints:
    if state is None:
        return _NO_STATE
    width = 2 + shape.n_values + shape.n_distinct
    if len(state) >= 8 * HEADER and len(state) % 8 == 0:
        words = np.frombuffer(state, np.int64)
        if words[0] == shape.magic and len(words) == HEADER + width * words[1]:
            return words
    raise InvalidState(
        f"State of {len(state)} bytes is not of the view keyed by '{spec.join_key}': format {FORMAT} with the columns "
        f"{', '.join((spec.event_id, *spec.values, *spec.distinct))}, {spec.retention} µs back, is needed. "
        "Rebuild it from history."
    )


@dataclass(frozen=True)
class StateHeader:
    """What a state says of itself; instants in microseconds, null where there has been no event."""

    events: int
    stamp: int
    last_dropped: int | None
    applied: int
    last_ingest: int | None
    last_event: int | None


def header(spec: WindowSpec, state: bytes) -> StateHeader:
    """Read a state's header. `stamp` grows with every change of the state and orders its versions."""
    words = _words(_layout(spec), spec, state)
    n = int(words[1])
    dropped, ingest = int(words[3]), int(words[5])
    return StateHeader(
        events=n,
        stamp=int(words[2]),
        last_dropped=None if dropped == NEVER else dropped,
        applied=int(words[4]),
        last_ingest=None if ingest == NEVER else ingest,
        last_event=int(words[HEADER + n - 1]) if n else None,
    )


def incomplete(spec: WindowSpec, state: bytes, at: int) -> bool:
    """Whether events inside the longest window that ends at `at` have been dropped from the state."""
    dropped = header(spec, state).last_dropped
    return dropped is not None and bool(spec.windows) and dropped >= far_edge(spec.windows[-1], at)


def finish(spec: WindowSpec, source: Sequence[bytes | None] | Slices, at: Ints) -> dict[str, Floats]:
    """Finished features by name, one float64 array of (rows,) each, null as NaN, as of `at` (rows).

    An entity without state or history has counts and sums of 0 and nulls elsewhere.
    """
    shape = _layout(spec)
    if isinstance(source, Slices):
        statistics, last = finish_slices(
            source.ts, source.created, source.values, source.distinct, source.begins, source.ends, at, source.known,
            shape.windows, shape.tiles,
        )  # fmt: skip
    else:
        starts = np.full(len(source), -1, np.int64)
        position = 0
        for row, state in enumerate(source):
            if state is not None:
                starts[row] = position
                position += len(_words(shape, spec, state))
        words = np.frombuffer(b"".join(state for state in source if state is not None), np.int64)
        statistics, last = finish_states(
            words,
            words.view(np.float64),
            starts,
            at,
            shape.n_values,
            shape.n_distinct,
            shape.windows,
            shape.tiles,
        )
    since = np.where(last == NEVER, np.nan, (at - last) / 1e6)
    return {name: since if window < 0 else statistics[:, window, place] for name, window, place in spec.places}


def finish_columns(spec_text: str, inputs: Mapping[str, Any], state_column: str, at_column: str) -> dict[str, Any]:
    """The body of a view's on-demand transformation: finished features from its columns of states and of instants.

    Lists give lists with None for null, as Feast's online path wants them; anything else gives float64 arrays.
    """
    spec, source, at = loads(spec_text), inputs[state_column], inputs[at_column]
    if isinstance(at, list):
        features = finish(spec, source, np.asarray(at, np.int64))
        return {name: to_list(column) for name, column in features.items()}
    return dict(finish(spec, source, np.asarray(at, np.int64)))


def to_list(column: npt.NDArray[Any]) -> list[Any]:
    """A list of Python values with None for NaN."""
    values: list[Any] = column.tolist()
    return [None if value != value else value for value in values] if column.dtype.kind == "f" else values
