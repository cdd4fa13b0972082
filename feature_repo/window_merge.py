"""The compiled merge of events into an entity's state: what the stream job and a rebuild from history both run."""

from __future__ import annotations

from typing import Any

import numpy as np

from feature_repo.window_jit import jit
from feature_repo.window_kernels import HEADER, NEVER


@jit
def _repeated(known: Any, ids: Any) -> Any:
    """Which of `ids` are among `known` or occur earlier in `ids`. 0 stands for no identity and never is repeated."""
    new = ids.shape[0]
    repeated = np.zeros(new, np.bool_)
    if new <= 4:  # the usual case: looking is cheaper than a table
        for a in range(new):
            found = False
            for b in range(a):
                found |= ids[b] == ids[a]
            for k in range(known.shape[0]):
                found |= known[k] == ids[a]
            repeated[a] = found and ids[a] != 0
        return repeated
    size = 16
    while size < 8 * new:  # sparse: most of `known` should meet an empty slot
        size *= 2
    table = np.zeros(size, np.int64)
    first = np.empty(size, np.int64)
    for e in range(new):
        slot = (ids[e] * -7046029254386353131) & (size - 1)
        while table[slot] != 0 and table[slot] != ids[e]:
            slot = (slot + 1) & (size - 1)
        if ids[e] != 0 and table[slot] == ids[e]:
            repeated[e] = True
        elif ids[e] != 0:
            table[slot], first[slot] = ids[e], e
    for k in range(known.shape[0]):
        slot = (known[k] * -7046029254386353131) & (size - 1)
        while table[slot] != 0:
            if table[slot] == known[k]:
                repeated[first[slot]] = True
                break
            slot = (slot + 1) & (size - 1)
    return repeated


@jit
def _in_order(ts: Any, ids: Any, known: Any) -> Any:
    """The places of the events that are new, by (time, id)."""
    once = np.nonzero(~_repeated(known, ids))[0]
    order = once[np.argsort(ts[once], kind="mergesort")]
    for a in range(1, order.shape[0]):  # ties by id; they are few
        b = a
        while b > 0 and ts[order[b - 1]] == ts[order[b]] and ids[order[b - 1]] > ids[order[b]]:
            order[b - 1], order[b] = order[b], order[b - 1]
            b -= 1
    return order


@jit
def merge(
    old: Any,
    ts: Any,
    ids: Any,
    values: Any,
    distinct: Any,
    ingest: Any,
    magic: int,
    retention: int,
    bound: int,
) -> tuple[Any, int, int]:
    """Merge events (in any order, some perhaps already counted) into a state; returns (words, added, overflowed).

    `old` is empty for a new entity. `values` has the shape (columns, events), `distinct` likewise. Events are kept
    ordered by (time, id), and one whose id is there already is not added again: as it came first, so it stays. What
    lies further than `retention` behind the latest event is forgotten but for its instant; beyond `bound` entries the
    oldest are, and `overflowed` says how many. What is forgotten and delivered again changes nothing, the stamp
    included.
    """
    n_values, n_distinct = values.shape[0], distinct.shape[0]
    width = 2 + n_values + n_distinct
    n_old = old[1] if old.shape[0] else 0
    forgotten = old[3] if old.shape[0] else NEVER
    old_ts, old_ids = old[HEADER : HEADER + n_old], old[HEADER + n_old : HEADER + 2 * n_old]
    order = _in_order(ts, ids, old_ids)
    new = order.shape[0]
    # Entries before `kept` come ahead of all that is new. Entry kept + e of the union: source[e] >= 0 is an old entry,
    # below it is the new event -source[e] - 1.
    kept = np.searchsorted(old_ts, ts[order[0]]) if new else n_old
    source = np.empty(n_old - kept + new, np.int64)
    total, i, j = 0, kept, 0
    while i < n_old or j < new:
        if j == new:
            take_old = True
        elif i == n_old:
            take_old = False
        else:
            e = order[j]
            take_old = old_ts[i] < ts[e] or (old_ts[i] == ts[e] and old_ids[i] <= ids[e])
        if take_old:
            source[total] = i
            i += 1
            total += 1
            continue
        e = order[j]
        j += 1
        # Only events without identity can still be the same.
        p = source[total - 1] if total else kept - 1
        if (p >= 0 and old_ts[p] == ts[e] and old_ids[p] == ids[e]) or (
            p < 0 and total > 0 and ts[-p - 1] == ts[e] and ids[-p - 1] == ids[e]
        ):
            continue
        source[total] = -e - 1
        total += 1
    latest = old_ts[n_old - 1] if n_old else NEVER
    if new:
        latest = max(latest, ts[order[new - 1]])
    total += kept
    dropped = forgotten
    first = overflowed = 0
    while first < total:
        p = first if first < kept else source[first - kept]
        t_p = old_ts[p] if p >= 0 else ts[-p - 1]
        if t_p >= latest - retention:
            if total - first <= bound:
                break
            if p >= 0 or t_p > forgotten:
                overflowed += 1
        dropped = max(dropped, t_p)
        first += 1
    added = 0
    seen = old[5] if old.shape[0] else NEVER
    for e in range(kept, total):
        p = source[e - kept]
        if p < 0 and (e >= first or ts[-p - 1] > forgotten):
            added += 1
            seen = max(seen, ingest[-p - 1])
    n = total - first
    out = np.empty(HEADER + width * n, np.int64)
    stamp = old[2] if old.shape[0] else NEVER
    if added > 0:
        # Of two states from the same history the one that knows more has the greater stamp, also if what it knows more
        # is old: hence `seen`.
        reached = max(latest, dropped, seen)
        stamp = reached if stamp == NEVER else max(stamp + 1, reached)
    out[0] = magic
    out[1] = n
    out[2] = stamp
    out[3] = dropped
    out[4] = (old[4] if old.shape[0] else 0) + added
    out[5] = seen
    floats = out.view(np.float64)
    whole = max(kept - first, 0)  # entries that are moved as they are
    for c in range(width):
        here, there = HEADER + c * n, HEADER + c * n_old
        out[here : here + whole] = old[there + first : there + first + whole]
        for e in range(whole, n):
            p = source[first + e - kept]
            if p >= 0:
                out[here + e] = old[there + p]
            elif c == 0:
                out[here + e] = ts[-p - 1]
            elif c == 1:
                out[here + e] = ids[-p - 1]
            elif c < 2 + n_values:
                floats[here + e] = values[c - 2, -p - 1]
            else:
                out[here + e] = distinct[c - 2 - n_values, -p - 1]
    return out, added, overflowed


@jit
def merge_many(
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
    """Merge events [firsts[e], firsts[e + 1]) into the state words [starts[e], starts[e + 1]) of each entity e.

    Returns the new states' words, where each ends (after a 0), their stamps, and the events added and overflowed.
    """
    entities = starts.shape[0] - 1
    width = 2 + values.shape[0] + distinct.shape[0]
    # No state can grow by more than its new events.
    room = words.shape[0] + entities * HEADER + width * ts.shape[0]
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
