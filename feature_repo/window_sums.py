"""Sums as unevaluated pairs of doubles (106 bits: Dekker 1971, Knuth TAOCP 4.2.2), and the deviation that follows.

For amounts of money they are exact, so that a sum depends neither on the order of arrival nor on how the history was
cut into states and tiles. A compiled kernel has these inlined.
"""

from __future__ import annotations

import math
from typing import Any

from feature_repo.window_jit import jit

FILLED, SUM, SUM_LOW, SQUARES, SQUARES_LOW, LEAST, MOST = range(7)
"""What is kept of a numeric column: its number of values, two pairs, and the extremes."""

PARTS = 7


@jit
def plus(hi: float, lo: float, x: float) -> tuple[float, float]:
    """A pair and a double."""
    s = hi + x
    b = s - hi
    e = (hi - (s - b)) + (x - b)
    lo = lo + e
    hi = s + lo
    return hi, lo - (hi - s)


@jit
def squared(x: float) -> tuple[float, float]:
    """A double's square as a pair, exactly."""
    p = x * x
    c = 134217729.0 * x  # Veltkamp: 2**27 + 1
    h = c - (c - x)
    t = x - h
    return p, ((h * h - p) + 2.0 * h * t) + t * t


@jit
def clear(acc: Any, k: int) -> None:
    """Give column k of `acc` (columns, `PARTS`) the parts of no value."""
    for part in range(LEAST):
        acc[k, part] = 0.0
    acc[k, LEAST] = math.inf
    acc[k, MOST] = -math.inf


@jit
def take(acc: Any, k: int, x: float) -> None:
    """Add a value, which must not be null, to column k of `acc`."""
    acc[k, FILLED] += 1.0
    acc[k, SUM], acc[k, SUM_LOW] = plus(acc[k, SUM], acc[k, SUM_LOW], x)
    square, rest = squared(x)
    acc[k, SQUARES], acc[k, SQUARES_LOW] = plus(acc[k, SQUARES], acc[k, SQUARES_LOW], square)
    acc[k, SQUARES_LOW] += rest
    acc[k, LEAST] = min(acc[k, LEAST], x)
    acc[k, MOST] = max(acc[k, MOST], x)


@jit
def take_all(acc: Any, k: int, parts: Any, at: int, stride: int) -> None:
    """Add the values whose parts lie in `parts` (one dimension) from `at` on, `stride` apart, to column k of `acc`."""
    acc[k, FILLED] += parts[at]
    for x in (SUM, SQUARES):
        acc[k, x], acc[k, x + 1] = plus(acc[k, x], acc[k, x + 1], parts[at + x * stride])
        acc[k, x], acc[k, x + 1] = plus(acc[k, x], acc[k, x + 1], parts[at + (x + 1) * stride])
    acc[k, LEAST] = min(acc[k, LEAST], parts[at + LEAST * stride])
    acc[k, MOST] = max(acc[k, MOST], parts[at + MOST * stride])


@jit
def deviation(n: float, hi: float, lo: float, sq_hi: float, sq_lo: float) -> float:
    """The sample standard deviation, null below two values."""
    # n * sum(x^2) - sum(x)^2 in pairs of doubles, then over n * (n - 1).
    if n < 2.0:
        return math.nan
    p, e = squared(hi)
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
