"""When requests are due: seconds from the start, ascending. The same arguments give the same instants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Shape = Sequence[tuple[float, float]]
"""Pieces of a load, one after the other: requests a second, seconds."""

BURST: Shape = ((1_000.0, 10.0), (10_000.0, 10.0), (1_000.0, 10.0))
"""Tenfold for a while, and back."""


def constant(rate: float, seconds: float) -> Floats:
    """One request each 1/rate seconds, the first at once."""
    return np.arange(round(rate * seconds)) / rate


def poisson(rate: float, seconds: float, seed: int) -> Floats:
    """Arrivals independent of each other, `rate` a second on average: what many cardholders make together."""
    draw = np.random.default_rng(seed)
    # Given their number, the arrivals of a Poisson process are uniform draws in order.
    return np.sort(draw.uniform(0.0, seconds, draw.poisson(rate * seconds)))


def pieces(shape: Shape, seed: int) -> Floats:
    """Poisson arrivals whose rate changes from piece to piece."""
    found, begin = [], 0.0
    for number, (rate, seconds) in enumerate(shape):
        found.append(begin + poisson(rate, seconds, seed + number))
        begin += seconds
    return np.concatenate(found)
