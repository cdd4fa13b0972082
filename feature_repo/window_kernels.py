"""The compiled inner loops of the window maths. Everything that produces a windowed number runs `_finish_one`.

Sums are kept as unevaluated pairs of doubles (106 bits: Dekker 1971, Knuth TAOCP 4.2.2), which for amounts of money is
exact, so that a sum depends neither on the order of arrival nor on how the history was cut into states. Deviations come
from the same pairs: sample standard deviation, null below two values.

An array of statistics has the shape (rows, windows, 1 + 6 * values + distinct): the count, then for each value column
its number of values, sum, mean, std, min, max, then for each distinct column its different values. Null is NaN.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

HEADER = 6
"""Words of 8 bytes before the arrays of a state: magic, entries, stamp, last dropped, applied, last ingest."""

NEVER = np.iinfo(np.int64).min

_jit = njit(cache=True, nogil=True)


@_jit
def _two_sum(hi: float, lo: float, x: float) -> tuple[float, float]:
    s = hi + x
    b = s - hi
    e = (hi - (s - b)) + (x - b)
    lo = lo + e
    hi = s + lo
    return hi, lo - (hi - s)


@_jit
def _two_product(x: float) -> tuple[float, float]:
    p = x * x
    c = 134217729.0 * x  # Veltkamp: 2**27 + 1
    h = c - (c - x)
    t = x - h
    return p, ((h * h - p) + 2.0 * h * t) + t * t


@_jit
def _deviation(n: float, hi: float, lo: float, sq_hi: float, sq_lo: float) -> float:
    # n * sum(x^2) - sum(x)^2 in pairs of doubles, then over n * (n - 1).
    if n < 2.0:
        return math.nan
    p, e = _two_product(hi)
    e += 2.0 * hi * lo + lo * lo
    a = n * sq_hi
    c = 134217729.0 * sq_hi
    h = c - (c - sq_hi)
    t = sq_hi - h
    a_lo = ((n * h - a) + n * t) + n * sq_lo  # n is an integer well below 2**26: n * h is exact
    difference = (a - p) + (a_lo - e)
    if difference <= 0.0:
        return 0.0
    return math.sqrt(difference / (n * (n - 1.0)))


@_jit
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
) -> int:
    """Finish all windows of one row at `at` from n events in time order; returns the last event's instant or NEVER.

    Events at or after `at` don't exist, nor do those that were created after `known`. One pass from the newest event to
    the oldest: windows are nested, so each is written out when the pass crosses its far edge.
    """
    n_windows = windows.shape[0]
    mask = seen_key.shape[0] - 1
    count = 0.0
    last = NEVER
    for k in range(n_values):
        acc[k, 0] = 0.0
        acc[k, 1] = 0.0
        acc[k, 2] = 0.0
        acc[k, 3] = 0.0
        acc[k, 4] = 0.0
        acc[k, 5] = math.inf
        acc[k, 6] = -math.inf
    for m in range(n_distinct):
        acc[n_values + m, 0] = 0.0
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
                        acc[k, 0] += 1.0
                        acc[k, 1], acc[k, 2] = _two_sum(acc[k, 1], acc[k, 2], x)
                        sq, sq_e = _two_product(x)
                        acc[k, 3], acc[k, 4] = _two_sum(acc[k, 3], acc[k, 4], sq)
                        acc[k, 4] += sq_e
                        acc[k, 5] = min(acc[k, 5], x)
                        acc[k, 6] = max(acc[k, 6], x)
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
            i -= 1
        out[w, 0] = count
        for k in range(n_values):
            o = 1 + 6 * k
            filled = acc[k, 0]
            total = acc[k, 1] + acc[k, 2]
            out[w, o] = filled
            out[w, o + 1] = total
            out[w, o + 2] = total / filled if filled > 0.0 else math.nan
            out[w, o + 3] = _deviation(filled, acc[k, 1], acc[k, 2], acc[k, 3], acc[k, 4])
            out[w, o + 4] = acc[k, 5] if filled > 0.0 else math.nan
            out[w, o + 5] = acc[k, 6] if filled > 0.0 else math.nan
        for m in range(n_distinct):
            out[w, 1 + 6 * n_values + m] = acc[n_values + m, 0]
        w += 1
    while last == NEVER and i >= 0:
        if ts[ts0 + i] < at and (created0 < 0 or created[created0 + i] <= known):
            last = ts[ts0 + i]
        i -= 1
    return last


@_jit
def _table_size(entries: int) -> int:
    size = 16
    while size < 2 * entries + 2:
        size *= 2
    return size


@_jit
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
    most = 0
    for r in range(rows):
        if starts[r] >= 0:
            most = max(most, words[starts[r] + 1])
    size = _table_size(most * max(n_distinct, 1))
    seen_key = np.zeros(size, np.int64)
    seen_mark = np.zeros(size, np.int64)
    acc = np.empty((n_values + n_distinct, 7), np.float64)
    mark = 1
    for r in range(rows):
        s = starts[r]
        n = words[s + 1] if s >= 0 else 0
        base = s + HEADER
        last[r] = _finish_one(
            at[r], 0, words, base, n, words, -1, floats, base + 2 * n, n, n_values,
            words, base + (2 + n_values) * n, n, n_distinct, windows, tiles, acc, seen_key, seen_mark, mark, out[r],
        )  # fmt: skip
        mark += n_distinct + 1
        if s >= 0 and words[s + 3] < at[r]:
            last[r] = max(last[r], words[s + 3])
    return out, last


@_jit
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
    acc = np.empty((n_values + n_distinct, 7), np.float64)
    mark = 1
    for r in range(rows):
        lo, n = los[r], his[r] - los[r]
        created0 = lo if created.shape[0] else -1
        last[r] = _finish_one(
            at[r], known[r], ts, lo, n, created, created0, flat_values, lo, events, n_values,
            flat_distinct, lo, events, n_distinct, windows, tiles, acc, seen_key, seen_mark, mark, out[r],
        )  # fmt: skip
        mark += n_distinct + 1
        i = lo - 1
        while last[r] == NEVER and begins[r] >= 0 and i >= begins[r]:
            if created.shape[0] == 0 or created[i] <= known[r]:
                last[r] = ts[i]
            i -= 1
    return out, last
