"""The compiled merge of events into an entity's state: what the stream job and a rebuild from history both run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from feature_repo.window_kernels import HEADER, NEVER


@njit(cache=True, nogil=True)
def _repeated(known: Any, ids: Any) -> Any:
    """Which of `ids` are among `known` or occur earlier in `ids`. 0 stands for no identity and never is repeated."""
    n_known, new = known.shape[0], ids.shape[0]
    repeated = np.zeros(new, np.bool_)
    if new <= 8:  # the usual case: looking is cheaper than a table
        for a in range(new):
            found = False
            for b in range(a):
                found |= ids[b] == ids[a]
            for k in range(n_known):
                found |= known[k] == ids[a]
            repeated[a] = found and ids[a] != 0
        return repeated
    size = 16
    while size < 2 * (n_known + new):
        size *= 2
    table = np.zeros(size, np.int64)
    for e in range(n_known + new):
        wanted = known[e] if e < n_known else ids[e - n_known]
        slot = (wanted * -7046029254386353131) & (size - 1)
        while table[slot] != 0 and table[slot] != wanted:
            slot = (slot + 1) & (size - 1)
        if e >= n_known:
            repeated[e - n_known] = wanted != 0 and table[slot] == wanted
        table[slot] = wanted
    return repeated


@njit(cache=True, nogil=True)
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
    once = np.nonzero(~_repeated(old[HEADER + n_old : HEADER + 2 * n_old], ids))[0]
    order = once[np.argsort(ts[once], kind="mergesort")]
    new = order.shape[0]
    for a in range(1, new):  # ties by id; they are few
        b = a
        while b > 0 and ts[order[b - 1]] == ts[order[b]] and ids[order[b - 1]] > ids[order[b]]:
            order[b - 1], order[b] = order[b], order[b - 1]
            b -= 1
    # Entry e of the union: source[e] >= 0 is an old entry, below it is the new event -source[e] - 1.
    source = np.empty(n_old + new, np.int64)
    total = i = j = 0
    latest = NEVER
    while i < n_old or j < new:
        take_old = j >= new
        same = False
        if i < n_old and j < new:
            e = order[j]
            t_old, id_old = old[HEADER + i], old[HEADER + n_old + i]
            same = t_old == ts[e] and id_old == ids[e]
            take_old = same or t_old < ts[e] or (t_old == ts[e] and id_old < ids[e])
        if take_old:
            source[total] = i
            latest = max(latest, old[HEADER + i])
            i += 1
            total += 1
            if same:
                j += 1
            continue
        e = order[j]
        j += 1
        if total > 0:
            p = source[total - 1]
            t_p = old[HEADER + p] if p >= 0 else ts[-p - 1]
            id_p = old[HEADER + n_old + p] if p >= 0 else ids[-p - 1]
            if t_p == ts[e] and id_p == ids[e]:
                continue
        source[total] = -e - 1
        latest = max(latest, ts[e])
        total += 1
    dropped = forgotten
    first = 0
    while first < total:
        p = source[first]
        t_p = old[HEADER + p] if p >= 0 else ts[-p - 1]
        if t_p >= latest - retention:
            break
        dropped = max(dropped, t_p)
        first += 1
    overflowed = 0
    for _ in range(total - first - bound):
        p = source[first]
        t_p = old[HEADER + p] if p >= 0 else ts[-p - 1]
        if p >= 0 or t_p > forgotten:
            overflowed += 1
        dropped = max(dropped, t_p)
        first += 1
    added = 0
    seen = old[5] if old.shape[0] else NEVER
    for e in range(total):
        p = source[e]
        if p < 0 and (e >= first or ts[-p - 1] > forgotten):
            added += 1
            seen = max(seen, ingest[-p - 1])
    n = total - first
    out = np.empty(HEADER + width * n, np.int64)
    floats = out.view(np.float64)
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
    old_floats = old.view(np.float64)
    for e in range(n):
        p = source[first + e]
        if p >= 0:
            out[HEADER + e] = old[HEADER + p]
            out[HEADER + n + e] = old[HEADER + n_old + p]
            for k in range(n_values):
                floats[HEADER + (2 + k) * n + e] = old_floats[HEADER + (2 + k) * n_old + p]
            for m in range(n_distinct):
                c = 2 + n_values + m
                out[HEADER + c * n + e] = old[HEADER + c * n_old + p]
        else:
            q = -p - 1
            out[HEADER + e] = ts[q]
            out[HEADER + n + e] = ids[q]
            for k in range(n_values):
                floats[HEADER + (2 + k) * n + e] = values[k, q]
            for m in range(n_distinct):
                out[HEADER + (2 + n_values + m) * n + e] = distinct[m, q]
    return out, added, overflowed
