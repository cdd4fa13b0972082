"""Many states updated in one call of the kernel: what makes a stream job cheap per event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit

from feature_repo.window_merge import merge
from feature_repo.window_state import MAX_EVENTS, Events, Ints, _layout, _words
from feature_repo.windows import WindowSpec


@dataclass(frozen=True)
class Updates:
    """States after their merges, in the order given, with their stamps (µs); `added` and `overflowed` count events."""

    states: list[bytes]
    stamps: list[int]
    added: int
    overflowed: int


@njit(cache=True, nogil=True)
def _merge_many(
    words: Any,
    starts: Any,
    firsts: Any,
    ts: Any,
    ids: Any,
    values: Any,
    distinct: Any,
    ingest: Any,
    magic: int,
    retention: int,
    bound: int,
) -> tuple[Any, Any, Any, int, int]:
    """Merge events [firsts[e], firsts[e + 1]) into the state words [starts[e], starts[e + 1]) of each entity e."""
    entities = starts.shape[0] - 1
    width = 2 + values.shape[0] + distinct.shape[0]
    # No state can grow by more than its new events.
    room = words.shape[0] + entities * 6 + width * ts.shape[0]
    out = np.empty(room, np.int64)
    ends = np.empty(entities + 1, np.int64)
    stamps = np.empty(entities, np.int64)
    ends[0] = 0
    added = overflowed = 0
    for e in range(entities):
        a, b = firsts[e], firsts[e + 1]
        state, more, dropped = merge(
            words[starts[e] : starts[e + 1]], ts[a:b], ids[a:b],
            np.ascontiguousarray(values[:, a:b]), np.ascontiguousarray(distinct[:, a:b]), ingest[a:b],
            magic, retention, bound,
        )  # fmt: skip
        out[ends[e] : ends[e] + state.shape[0]] = state
        ends[e + 1] = ends[e] + state.shape[0]
        stamps[e] = state[2]
        added += more
        overflowed += dropped
    return out, ends, stamps, added, overflowed


def update_many(
    spec: WindowSpec,
    states: Sequence[bytes | None],
    counts: Ints,
    events: Events,
    max_events: int = MAX_EVENTS,
) -> Updates:
    """`window_state.update` for many entities: the first `counts[0]` events are the first entity's, and so on."""
    shape = _layout(spec)
    sizes = [0 if state is None else len(_words(shape, spec, state)) for state in states]
    starts = np.zeros(len(states) + 1, np.int64)
    np.cumsum(sizes, out=starts[1:])
    firsts = np.zeros(len(states) + 1, np.int64)
    np.cumsum(counts, out=firsts[1:])
    words = np.frombuffer(b"".join(state for state in states if state is not None), np.int64)
    out, ends, stamps, added, overflowed = _merge_many(
        words, starts, firsts, events.ts, events.ids, events.values, events.distinct, events.ingest,
        shape.magic, shape.retention, max_events,
    )  # fmt: skip
    data = out[: ends[-1]].tobytes()
    cuts = (ends * 8).tolist()
    parts = [data[a:b] for a, b in pairwise(cuts)]
    return Updates(parts, stamps.tolist(), int(added), int(overflowed))
