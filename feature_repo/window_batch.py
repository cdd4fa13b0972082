"""Many states updated in one call: what makes a stream job cheap per event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from feature_repo.window_kernels import HEADER
from feature_repo.window_layout import Layout, layout_of, words_of
from feature_repo.window_merge import merge_many
from feature_repo.window_sealed import SEAL_ABOVE, LargeState, Sealed, Stored
from feature_repo.window_state import MAX_EVENTS, Events, Ints
from feature_repo.windows import WindowSpec

TOGETHER = 2048
"""Events up to which a state is cheaper to merge together with others than by itself."""

__all__ = ["Sealed", "Stored", "Updates", "update_many"]


@dataclass(frozen=True)
class Updates:
    """What to store after the merges, in the order given, with the stamps (µs).

    `added`, `overflowed` (dropped for room) and `sealed` (refused below a seal, perhaps repetitions) count events.
    """

    states: list[Stored]
    stamps: list[int]
    added: int
    overflowed: int
    sealed: int


def update_many(
    spec: WindowSpec,
    stored: Sequence[Stored | None],
    counts: Ints,
    events: Events,
    max_events: int = MAX_EVENTS,
    seal_above: int = SEAL_ABOVE,
) -> Updates:
    """Merge events into many entities' states: the first `counts[0]` events are the first entity's, and so on.

    The events may come in any order and however often. Finished windows don't depend on `seal_above`. Raises
    `InvalidState` for a state of another view, and for a sealed one without its ledger.
    """
    layout = layout_of(spec)
    words = [None if isinstance(one, Sealed) else words_of(layout, spec, one, sealed=False) for one in stored]
    width, limit = layout.width, HEADER + layout.width * min(TOGETHER, max_events)
    alone = [
        place
        for place, (one, more) in enumerate(zip(words, np.asarray(counts).tolist(), strict=True))
        if one is None or len(one) + width * more > limit
    ]
    if not alone:
        small = [one if isinstance(one, bytes) else b"" for one in stored]
        return _together(layout, spec, small, counts, events, max_events, seal_above)
    counts = np.asarray(counts)
    others = np.ones(len(stored), np.bool_)
    others[alone] = False
    small = [one if isinstance(one, bytes) else b"" for one, other in zip(stored, others, strict=True) if other]
    rest = _together(
        layout, spec, small, counts[others], events.where(np.repeat(others, counts)), max_events, seal_above
    )
    ends = np.cumsum(counts)
    for place in alone:  # ascending, so that each is put where it belongs
        large = LargeState.of(layout, spec, stored[place])
        large.merge(events.where(slice(ends[place] - counts[place], ends[place])), max_events, seal_above)
        rest.states.insert(place, large.dumps())
        rest.stamps.insert(place, int(large.words[2]))
        rest = Updates(
            rest.states,
            rest.stamps,
            rest.added + large.added,
            rest.overflowed + large.overflowed,
            rest.sealed + large.refused,
        )
    return rest


def _together(
    layout: Layout,
    spec: WindowSpec,
    states: Sequence[bytes],
    counts: Ints,
    events: Events,
    max_events: int,
    seal_above: int,
) -> Updates:
    starts = np.zeros(len(states) + 1, np.int64)
    np.cumsum([len(state) // 8 for state in states], out=starts[1:])
    firsts = np.zeros(len(states) + 1, np.int64)
    np.cumsum(counts, out=firsts[1:])
    words = np.frombuffer(b"".join(states), np.int64)
    out, ends, stamps, added, overflowed = merge_many(
        words, starts, firsts, events.ts, events.ids, events.values, events.distinct, events.ingest,
        layout.magic, layout.retention, max_events,
    )  # fmt: skip
    data = out[: ends[-1]].tobytes()
    cuts = (ends * 8).tolist()
    parts: list[Stored] = [data[a:b] for a, b in pairwise(cuts)]
    for place in np.flatnonzero(np.diff(ends) > HEADER + layout.width * seal_above).tolist():
        large = LargeState.of(layout, spec, parts[place])
        large.settle(max_events, seal_above)
        parts[place] = large.dumps()
    return Updates(parts, stamps.tolist(), int(added), int(overflowed), 0)
