"""The compiled inner loops of the window maths. Everything that produces a windowed number runs `_finish_one`.

Sums and deviations are those of `window_sums`: sample standard deviation, null below two values.

An array of statistics has the shape (rows, windows, 1 + 6 * values + distinct): the count, then for each value column
its number of values, sum, mean, std, min, max, then for each distinct column its different values. Null is NaN.

A sealed state has, after the columns of its events, the tiles of the older ones (see `window_tiles`): the instant below
which there are only tiles, their number, then as columns of that length each tile's beginning, its last event's instant
and its events; the `PARTS` of each value column; and of each distinct column how many of its codes have their last
sealed event in the tile. For each distinct column its events say when their code was last sealed: what is in a tile and
among the events alike is counted once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from feature_repo.window_jit import jit
from feature_repo.window_sums import (
    FILLED,
    LEAST,
    MOST,
    PARTS,
    SQUARES,
    SQUARES_LOW,
    SUM,
    SUM_LOW,
    clear,
    deviation,
    take,
    take_all,
)

HEADER = 6
"""Words of 8 bytes before the arrays of a state: magic, entries, stamp, last dropped, applied, last ingest."""

FORMAT = 1
SEALED_FORMAT = 2
"""Formats, told in bits 32 to 47 of the magic: of a state that holds all its events, and of one with tiles."""

NEVER = np.iinfo(np.int64).min


@jit
def _finish_one(
    at: int,
    known: int,
    ts: Any,
    ts0: int,
    n: int,
    created: Any,
    created0: int,
    values: Any,
    v0: int,
    v_stride: int,
    n_values: int,
    distinct: Any,
    d0: int,
    d_stride: int,
    n_distinct: int,
    windows: Any,
    tiles: Any,
    acc: Any,
    seen_key: Any,
    seen_mark: Any,
    mark: int,
    out: Any,
    x0: int,
    twice: Any,
) -> int:
    """Finish all windows of one row at `at` from n events in time order; returns the last event's instant or NEVER.

    Events at or after `at` don't exist, nor do those that were created after `known`. One pass from the newest event to
    the oldest, and on over the tiles: windows are nested, so each is written out when the pass crosses its far edge.
    `x0` is the word of `distinct` (then a state's, as `values` are its floats) where the tiles are, -1 without any;
    `twice` is room for a number for each distinct column and tile.
    """
    n_windows = windows.shape[0]
    mask = seen_key.shape[0] - 1
    count = 0.0
    last = NEVER
    n_tiles = distinct[x0 + 1] if x0 >= 0 else 0
    tile0 = x0 + 2
    for k in range(n_values):
        clear(acc, k)
    for m in range(n_distinct):
        acc[n_values + m, 0] = 0.0
        for j in range(n_tiles):
            twice[m, j] = 0
    j = n_tiles - 1
    w = 0
    i = n - 1
    while w < n_windows:
        edge = at - windows[w]
        if tiles[w] > 0:
            edge -= edge % tiles[w]
        while i >= 0 and ts[ts0 + i] >= edge:
            t = ts[ts0 + i]
            if t < at and (created0 < 0 or created[created0 + i] <= known):
                if last == NEVER:
                    last = t
                count += 1.0
                for k in range(n_values):
                    x = values[v0 + k * v_stride + i]
                    if not math.isnan(x):
                        take(acc, k, x)
                for m in range(n_distinct):
                    code = distinct[d0 + m * d_stride + i]
                    if code != 0:
                        # One table for all columns: the column's number is mixed into the key's slot and mark.
                        slot = (code * -7046029254386353131 + m) & mask
                        wanted = mark + m
                        while seen_mark[slot] >= mark and not (seen_mark[slot] == wanted and seen_key[slot] == code):
                            slot = (slot + 1) & mask
                        if seen_mark[slot] < mark:
                            seen_mark[slot] = wanted
                            seen_key[slot] = code
                            acc[n_values + m, 0] += 1.0
                            if n_tiles > 0:
                                before = distinct[d0 + (n_distinct + m) * d_stride + i]
                                place = np.searchsorted(distinct[tile0 : tile0 + n_tiles], before, side="right")
                                if place > 0:
                                    twice[m, place - 1] += 1
            i -= 1
        while j >= 0 and distinct[tile0 + j] >= edge:
            if distinct[tile0 + n_tiles + j] < at:
                count += _take_tile(values, distinct, tile0, n_tiles, j, n_values, n_distinct, acc, twice)
            j -= 1
        write_window(out[w], count, acc, n_values, n_distinct)
        w += 1
    while last == NEVER and i >= 0:
        if ts[ts0 + i] < at and (created0 < 0 or created[created0 + i] <= known):
            last = ts[ts0 + i]
        i -= 1
    j = n_tiles - 1
    while last == NEVER and j >= 0:
        if distinct[tile0 + n_tiles + j] < at:
            last = distinct[tile0 + n_tiles + j]
        j -= 1
    return last


@jit
def write_window(out: Any, count: float, acc: Any, n_values: int, n_distinct: int) -> None:
    """Write one window's statistics from its events and what `acc` has of each column."""
    out[0] = count
    for k in range(n_values):
        o = 1 + 6 * k
        filled = acc[k, FILLED]
        total = acc[k, SUM] + acc[k, SUM_LOW]
        out[o] = filled
        out[o + 1] = total
        out[o + 2] = total / filled if filled > 0.0 else math.nan
        out[o + 3] = deviation(filled, acc[k, SUM], acc[k, SUM_LOW], acc[k, SQUARES], acc[k, SQUARES_LOW])
        out[o + 4] = acc[k, LEAST] if filled > 0.0 else math.nan
        out[o + 5] = acc[k, MOST] if filled > 0.0 else math.nan
    for m in range(n_distinct):
        out[1 + 6 * n_values + m] = acc[n_values + m, 0]


@jit
def _take_tile(
    floats: Any, words: Any, tile0: int, n: int, j: int, n_values: int, n_distinct: int, acc: Any, twice: Any
) -> float:
    """Add tile j to `acc`; returns its events."""
    for k in range(n_values):
        take_all(acc, k, floats, tile0 + (3 + PARTS * k) * n + j, n)
    for m in range(n_distinct):
        acc[n_values + m, 0] += words[tile0 + (3 + PARTS * n_values + m) * n + j] - twice[m, j]
    return float(words[tile0 + 2 * n + j])


@jit
def _table_size(entries: int) -> int:
    size = 16
    while size < 2 * entries + 2:
        size *= 2
    return size


@jit
def finish_states(
    words: Any, floats: Any, starts: Any, at: Any, n_values: int, n_distinct: int, windows: Any, tiles: Any
) -> tuple[Any, Any]:
    """Finish states that lie one behind another in `words` (the same bytes as `floats`).

    `starts` (rows): the word where a row's state begins, or -1 for an entity without one. `at` (rows): the instants.
    Returns the statistics and (rows) the instant of the last event before `at`, NEVER where there is none.
    """
    rows = starts.shape[0]
    out = np.empty((rows, windows.shape[0], 1 + 6 * n_values + n_distinct), np.float64)
    last = np.empty(rows, np.int64)
    most = most_tiles = 0
    tiles_at = np.full(rows, -1, np.int64)
    for r in range(rows):
        s = starts[r]
        if s >= 0:
            most = max(most, words[s + 1])
            if words[s] >> 32 & 0xFFFF == SEALED_FORMAT:
                tiles_at[r] = s + HEADER + (2 + n_values + 2 * n_distinct) * words[s + 1]
                most_tiles = max(most_tiles, words[tiles_at[r] + 1])
    size = _table_size(most * max(n_distinct, 1))
    seen_key = np.zeros(size, np.int64)
    seen_mark = np.zeros(size, np.int64)
    acc = np.empty((n_values + n_distinct, PARTS), np.float64)
    twice = np.empty((n_distinct, most_tiles), np.int64)
    mark = 1
    for r in range(rows):
        s = starts[r]
        n = words[s + 1] if s >= 0 else 0
        base = s + HEADER
        last[r] = _finish_one(
            at[r], 0, words, base, n, words, -1, floats, base + 2 * n, n, n_values,
            words, base + (2 + n_values) * n, n, n_distinct, windows, tiles, acc, seen_key, seen_mark, mark, out[r],
            tiles_at[r], twice,
        )  # fmt: skip
        mark += n_distinct + 1
        if s >= 0 and words[s + 3] < at[r]:
            last[r] = max(last[r], words[s + 3])
    return out, last


@jit
def finish_slices(
    ts: Any,
    created: Any,
    values: Any,
    distinct: Any,
    begins: Any,
    ends: Any,
    at: Any,
    known: Any,
    windows: Any,
    tiles: Any,
) -> tuple[Any, Any]:
    """Finish rows straight from a history sorted by (entity, time).

    `values` has the shape (columns, events), `distinct` likewise. A row reads the events [begins, ends) of its entity,
    `begins` being -1 for an entity without history. With `created` of length 0 the instants of creation don't count.
    """
    rows = at.shape[0]
    n_values, n_distinct = values.shape[0], distinct.shape[0]
    events = ts.shape[0]
    flat_values, flat_distinct = values.reshape(-1), distinct.reshape(-1)
    out = np.empty((rows, windows.shape[0], 1 + 6 * n_values + n_distinct), np.float64)
    last = np.empty(rows, np.int64)
    longest = windows[-1] + tiles[-1] if windows.shape[0] else 0
    los = np.empty(rows, np.int64)
    his = np.empty(rows, np.int64)
    most = 0
    for r in range(rows):
        lo = hi = max(begins[r], 0)
        if begins[r] >= 0:
            hi = begins[r] + np.searchsorted(ts[begins[r] : ends[r]], at[r])
            lo = begins[r] + np.searchsorted(ts[begins[r] : hi], at[r] - longest)
        los[r], his[r] = lo, hi
        most = max(most, hi - lo)
    size = _table_size(most * max(n_distinct, 1))
    seen_key = np.zeros(size, np.int64)
    seen_mark = np.zeros(size, np.int64)
    acc = np.empty((n_values + n_distinct, PARTS), np.float64)
    none = np.empty((n_distinct, 0), np.int64)
    mark = 1
    for r in range(rows):
        lo, n = los[r], his[r] - los[r]
        created0 = lo if created.shape[0] else -1
        last[r] = _finish_one(
            at[r], known[r], ts, lo, n, created, created0, flat_values, lo, events, n_values,
            flat_distinct, lo, events, n_distinct, windows, tiles, acc, seen_key, seen_mark, mark, out[r],
            -1, none,
        )  # fmt: skip
        mark += n_distinct + 1
        i = lo - 1
        while last[r] == NEVER and begins[r] >= 0 and i >= begins[r]:
            if created.shape[0] == 0 or created[i] <= known[r]:
                last[r] = ts[i]
            i -= 1
    return out, last
