"""How far a sample lies from a reference, and how far chance alone puts it there. Pure: NumPy in, numbers out.

Numbers are compared on the scale of their normal scores: a value counts by its rank in the reference, so that one huge
amount weighs no more than the largest amount of the reference, and a distance is one in standard deviations whatever
the column's shape. Source: van der Waerden, Order tests for the two-sample problem, 1952.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import jensenshannon
from scipy.special import ndtri

Floats = npt.NDArray[np.float64]

CELLS = 200
"""Parts of equal size into which a reference is cut where chance is simulated; a value taken often has its own."""

RESAMPLES = 1_000
"""Samples drawn from a reference to see what chance does."""

TAIL = 0.1
"""From this share of the resamples on, the squared distances are taken to fall off exponentially, as those of a
Brownian bridge and of a chi-squared variable do: what chance reaches once in 10,000 need not be drawn 10,000 times."""

FLOOR = 1e-3
"""Smallest standard deviation that a distance is divided by."""


@dataclass(frozen=True)
class Scale:
    """The normal scores of a reference: `values` (distinct, rising), `shares`, `scores` and the scores' deviation."""

    values: Floats
    shares: Floats
    scores: Floats
    deviation: float

    @classmethod
    def of(cls, reference: Floats) -> Scale:
        """The scale of a reference without nulls. Equal values share the score of their middle rank."""
        values, counts = np.unique(np.asarray(reference, np.float64), return_counts=True)
        shares = counts / counts.sum()
        scores = ndtri(np.cumsum(shares) - shares / 2)
        mean = float(shares @ scores)
        deviation = math.sqrt(max(float(shares @ (scores - mean) ** 2), 0.0))
        return cls(values, shares, scores, max(deviation, FLOOR))

    def __call__(self, given: Floats) -> Floats:
        """The scores of values: between two of the reference in proportion, beyond its ends those of the ends."""
        return np.interp(np.asarray(given, np.float64), self.values, self.scores)

    def distance(self, current: Floats) -> float:
        """Wasserstein's distance of a sample without nulls from the reference, in standard deviations of the scores."""
        found, counts = np.unique(self(current), return_counts=True)
        at = np.union1d(self.scores, found)
        before = _cumulative(self.scores, self.shares, at)
        after = _cumulative(found, counts / counts.sum(), at)
        return float(np.abs(after - before)[:-1] @ np.diff(at)) / self.deviation

    def cells(self, most: int = CELLS) -> tuple[Floats, Floats]:
        """The reference in at most `most` cells: shares and scores."""
        if len(self.values) <= most:
            return self.shares, self.scores
        place = np.minimum((np.cumsum(self.shares) - self.shares / 2) * most, most - 1).astype(int)
        shares = np.bincount(place, self.shares, most).astype(np.float64)
        scores = np.bincount(place, self.shares * self.scores, most).astype(np.float64)
        filled = shares > 0
        return shares[filled], scores[filled] / shares[filled]


def _cumulative(places: Floats, shares: Floats, at: Floats) -> Floats:
    return np.concatenate([[0.0], np.cumsum(shares)])[np.searchsorted(places, at, side="right")]


def share_distance(before: Any, after: Any) -> float:
    """Jensen and Shannon's distance of two sets of shares, or of counts, over the same categories."""
    return float(jensenshannon(before, after))


def effective(before: int, after: int) -> float:
    """The size of a sample that differs from a known distribution by as much as two such samples from each other."""
    return 1 / (1 / before + 1 / after)


def numeric_noise(scale: Scale, before: int, after: int, alarms: float, seed: int = 0) -> float:
    """The distance that chance alone passes once in 1/`alarms` samples of `after` rows (reference: `before` rows)."""
    shares, scores = scale.cells()
    if len(shares) < 2:
        return 0.0
    off = np.cumsum(_draws(shares, effective(before, after), seed) - shares, axis=1)[:, :-1]
    return _beyond(np.abs(off) @ np.diff(scores) / scale.deviation, alarms)


def category_noise(shares: Floats, before: int, after: int, alarms: float, seed: int = 0) -> float:
    """Likewise for Jensen and Shannon's distance between shares over categories."""
    shares = shares[shares > 0]
    if len(shares) < 2:
        return 0.0
    drawn = _draws(shares, effective(before, after), seed)
    middle = (drawn + shares) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where(drawn > 0, drawn * np.log(drawn / middle), 0.0).sum(axis=1)
    other = (shares * np.log(shares / middle)).sum(axis=1)
    return _beyond(np.sqrt(np.maximum(own + other, 0.0) / 2), alarms)


def _draws(shares: Floats, rows: float, seed: int) -> Floats:
    count = max(int(rows), 1)
    return np.random.default_rng(seed).multinomial(count, shares / shares.sum(), size=RESAMPLES) / count


def _beyond(distances: Floats, alarms: float) -> float:
    """The quantile 1 - `alarms` of distances, beyond the drawn ones by their exponential tail."""
    squared = np.sort(distances) ** 2
    first = float(np.quantile(squared, 1 - TAIL))
    excess = float((squared[squared > first] - first).mean()) if (squared > first).any() else 0.0
    return math.sqrt(first + excess * max(math.log(TAIL / alarms), 0.0))
