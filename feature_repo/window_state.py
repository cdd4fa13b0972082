"""An entity's state as bytes, and finished windows from states or from history: the Python face of the kernels.

A state is what the online store holds for one entity of one windowed view: a header of six 8-byte words (magic, number
of events, stamp, last dropped event, events applied, last ingest), then the events as columns: instants, identifiers,
each value column, each distinct column. Little-endian, versioned by its magic. A large state is sealed by its writer
(`window_batch`): older events are tiles then (`window_tiles`), behind the columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import mmh3
import numpy as np
import numpy.typing as npt

from feature_repo.window_busy import Blocks, finish_rows
from feature_repo.window_kernels import HEADER, NEVER, finish_states
from feature_repo.window_layout import InvalidState as InvalidState
from feature_repo.window_layout import layout_of, words_of
from feature_repo.window_merge import merge
from feature_repo.window_reading import lacking_states, place_states
from feature_repo.windows import STATE_SLACK, WindowSpec, far_edge, loads

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MAX_EVENTS = 131_072
"""Events one entity's state may hold besides sealed ones: 4 MB of four columns, or in a sealed state the payments of 25
to 34 hours, so 65 a minute. Beyond it the oldest are dropped, counted, and `incomplete` says so."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
class Events:
    """Events of one entity, one array element each; `values` and `distinct` have the shape (columns, events)."""

    ts: Ints
    ids: Ints
    values: Floats
    distinct: Ints
    ingest: Ints

    def where(self, which: Any) -> Events:
        """Those that a mask or a slice picks."""
        return Events(
            self.ts[which],
            self.ids[which],
            np.ascontiguousarray(self.values[:, which]),
            np.ascontiguousarray(self.distinct[:, which]),
            self.ingest[which],
        )


@dataclass(frozen=True)
class Slices:
    """Rows of a question against a history sorted by (entity, time): row r reads events [begins[r], ends[r]).

    `blocks` is what is made of the history on the way, kept for its next question.
    """

    ts: Ints
    created: Ints
    values: Floats
    distinct: Ints
    begins: Ints
    ends: Ints
    known: Ints
    blocks: dict[tuple[int, int], Blocks] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Update:
    """A state after a merge; `added` events changed it, `overflowed` were dropped for room."""

    state: bytes
    added: int
    overflowed: int


def update(spec: WindowSpec, state: bytes | None, events: Events, max_events: int = MAX_EVENTS) -> Update:
    """Merge events into a state, in any order and however often: the result depends only on which events they are.

    It seals nothing, and raises `InvalidState` for a state that is sealed: that takes its ledger, `window_batch`.
    """
    shape = layout_of(spec)
    old = words_of(shape, spec, state, sealed=False)
    words, added, overflowed = merge(
        old, events.ts, events.ids, events.values, events.distinct, events.ingest,
        shape.magic, shape.retention, max_events,
    )  # fmt: skip
    return Update(words.tobytes(), int(added), int(overflowed))


@dataclass(frozen=True)
class StateHeader:
    """What a state says of itself; instants in microseconds, null where there has been no event.

    `events` are those it holds one by one, all since `sealed_before` where that is not null.
    """

    events: int
    stamp: int
    last_dropped: int | None
    applied: int
    last_ingest: int | None
    last_event: int | None
    sealed_before: int | None = None


def header(spec: WindowSpec, state: bytes) -> StateHeader:
    """Read a state's header. `stamp` grows with every change of the state and orders its versions."""
    shape = layout_of(spec)
    words = words_of(shape, spec, state)
    n = int(words[1])
    dropped, ingest = int(words[3]), int(words[5])
    return StateHeader(
        events=n,
        stamp=int(words[2]),
        last_dropped=None if dropped == NEVER else dropped,
        applied=int(words[4]),
        last_ingest=None if ingest == NEVER else ingest,
        last_event=int(words[HEADER + n - 1]) if n else None,
        sealed_before=int(words[HEADER + shape.sealed_width * n]) if words[0] == shape.sealed_magic else None,
    )


class States:
    """Entities' states, joined once however often they are finished; row r reads state `rows[r]`.

    Raises `InvalidState` for a state of another view.
    """

    def __init__(self, spec: WindowSpec, states: Sequence[bytes | None], rows: Sequence[int]) -> None:
        shape = layout_of(spec)
        there = [state for state in states if state is not None]
        data = b"".join(there)
        lengths = np.array([-1 if state is None else len(state) for state in states], np.int64)
        self.words: Ints = np.frombuffer(data, np.int64, len(data) // 8)
        starts, other = place_states(self.words, lengths, shape.magic, shape.width)
        if other >= 0:  # a sealed one, or none of this view
            for state in states[other:]:
                words_of(shape, spec, state)
        self.starts: Ints = starts[np.asarray(rows, np.int64)]
        self._finished: tuple[Ints, dict[str, Floats]] | None = None

    def finished(self, spec: WindowSpec, at: Ints) -> dict[str, Floats]:
        """What `finish` gives; two views over the same states at the same instants share the work."""
        if self._finished is None or self._finished[0] is not at:
            self._finished = at, _finished(spec, self.words, self.starts, at)
        return self._finished[1]

    def incomplete(self, spec: WindowSpec, at: Ints) -> npt.NDArray[np.bool_]:
        """For each row what `incomplete` says of its state; false without one."""
        shape = layout_of(spec)
        if not spec.windows:
            return np.zeros(len(at), np.bool_)
        longest, step = int(shape.windows[-1]), int(shape.tiles[-1])
        lacking: npt.NDArray[np.bool_] = lacking_states(
            self.words, self.starts, at, longest, step, shape.sealed_magic, STATE_SLACK
        )
        return lacking


def incomplete(spec: WindowSpec, state: bytes, at: int) -> bool:
    """Whether a state cannot answer for the longest window that ends at `at`.

    Events inside the window have been dropped from it, or it is sealed and `at` lies further than `STATE_SLACK` behind
    its latest event.
    """
    shape = layout_of(spec)
    words = words_of(shape, spec, state)
    if not spec.windows:
        return False
    magic, n, _, dropped = words[:4].tolist()
    if magic == shape.sealed_magic and at < words[HEADER + n - 1] - STATE_SLACK:
        return True
    longest = spec.windows[-1]
    # No edge is rounded by more than a sixtieth: most of what was dropped is too old to be looked at more closely.
    return dropped >= at - longest - longest // 60 and bool(dropped >= far_edge(longest, at))


def finish(spec: WindowSpec, source: Sequence[bytes | None] | States | Slices, at: Ints) -> dict[str, Floats]:
    """Finished features by name, one float64 array of (rows,) each, null as NaN, as of `at` (rows).

    An entity without state or history has counts and sums of 0 and nulls elsewhere.
    """
    if isinstance(source, States):
        return source.finished(spec, at)
    if not isinstance(source, Slices):
        return States(spec, source, range(len(source))).finished(spec, at)
    statistics, last = finish_rows(
        layout_of(spec), source.ts, source.created, source.values, source.distinct, source.begins, source.ends,
        at, source.known, made=source.blocks,
    )  # fmt: skip
    return _named(spec, statistics, last, at)


def _finished(spec: WindowSpec, words: Ints, starts: Ints, at: Ints) -> dict[str, Floats]:
    shape = layout_of(spec)
    statistics, last = finish_states(
        words, words.view(np.float64), starts, at, shape.n_values, shape.n_distinct, shape.windows, shape.tiles
    )
    return _named(spec, statistics, last, at)


def _named(spec: WindowSpec, statistics: Floats, last: Ints, at: Ints) -> dict[str, Floats]:
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
