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
from feature_repo.window_state import MAX_EVENTS, Events, Ints, header
from feature_repo.windows import WindowSpec

TOGETHER = 2048
"""Events up to which a state is cheaper to merge together with others than by itself."""

__all__ = ["Sealed", "Stored", "Updates", "plain_of", "stamp_of", "update_many"]


def stamp_of(spec: WindowSpec, stored: Stored) -> int:
    """The stamp (µs) with which to store a state."""
    return header(spec, plain_of(stored)).stamp


def plain_of(stored: Stored) -> bytes:
    """The state that readers see, without its ledger."""
    return stored if isinstance(stored, bytes) else stored.state


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
    sizes = np.fromiter(map(_words, stored), np.int64, len(stored))
    large = (sizes < 0) | (sizes + layout.width * counts > HEADER + layout.width * min(TOGETHER, max_events))
    if not large.any():
        small = [one for one in stored if isinstance(one, bytes)]
        return _together(layout, spec, small, sizes, counts, events, max_events, seal_above)
    alone = np.flatnonzero(large).tolist()
    small = [one for one, by_itself in zip(stored, large, strict=True) if isinstance(one, bytes) and not by_itself]
    others = events.where(np.repeat(~large, counts))
    rest = _together(layout, spec, small, sizes[~large], counts[~large], others, max_events, seal_above)
    ends = np.cumsum(counts)
    for place in alone:  # ascending, so that each is put where it belongs
        one = LargeState.of(layout, spec, stored[place])
        one.merge(events.where(slice(ends[place] - counts[place], ends[place])), max_events, seal_above)
        rest.states.insert(place, one.dumps())
        rest.stamps.insert(place, int(one.words[2]))
        rest = Updates(
            rest.states,
            rest.stamps,
            rest.added + one.added,
            rest.overflowed + one.overflowed,
            rest.sealed + one.refused,
        )
    return rest


def _together(
    layout: Layout,
    spec: WindowSpec,
    states: Sequence[bytes],
    sizes: Ints,
    counts: Ints,
    events: Events,
    max_events: int,
    seal_above: int,
) -> Updates:
    starts = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=starts[1:])
    firsts = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(counts, out=firsts[1:])
    words = _joined(layout, spec, states, starts)
    out, ends, stamps, added, overflowed = merge_many(
        words, starts, firsts, events.ts, events.ids, events.values, events.distinct, events.ingest,
        layout.magic, layout.retention, max_events,
    )  # fmt: skip
    data = out[: ends[-1]].tobytes()
    cuts = (ends * 8).tolist()
    parts: list[Stored] = [data[a:b] for a, b in pairwise(cuts)]
    for place in np.flatnonzero(np.diff(ends) > HEADER + layout.width * seal_above).tolist():
        large = LargeState.of(layout, spec, parts[place])
        if large.settle(max_events, seal_above):
            parts[place] = large.dumps()
    return Updates(parts, stamps.tolist(), int(added), int(overflowed), 0)


def _words(stored: Stored | None) -> int:
    """Words of a plain state, 0 for none, -1 for a sealed one."""
    return 0 if stored is None else -1 if isinstance(stored, Sealed) else len(stored) // 8


def _joined(layout: Layout, spec: WindowSpec, states: Sequence[bytes], starts: Ints) -> Ints:
    """The words of all states, one after the other; raises what `words_of` raises for the first that is none."""
    data = b"".join(states)
    if 8 * starts[-1] == len(data):
        words = np.frombuffer(data, np.int64)
        sizes = np.diff(starts)
        heads = starts[:-1][sizes > 0]
        sizes = sizes[sizes > 0]
        if (
            len(heads) == len(states)
            and (sizes >= HEADER).all()
            and (words[heads] == layout.magic).all()
            and (HEADER + layout.width * words[heads + 1] == sizes).all()
        ):
            return words
    for state in states:
        words_of(layout, spec, state, sealed=False)
    raise AssertionError("States were refused of which none can be.")
