"""Parts of the payments that a model is judged on by itself: channel, band of the amount, cards that are new.

A model that is good in the mean may fail where the money is, or those who have just come.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from training.dataset import NEW_FOR

AMOUNTS = (0.0, 25.0, 100.0, 500.0, np.inf)
"""Edges of the bands, in the currency of the amounts; a band holds its lower edge."""

LEAST_FRAUDS = 10
"""With fewer a segment has its counts, and no figure: it would say nothing."""

Mask = npt.NDArray[np.bool_]


def segments(rows: pd.DataFrame) -> dict[str, Mask]:
    """Which rows are of each segment that has rows, by name such as `channel=online`.

    `rows` has `channel`, `amount` and `card_days`, as a `TrainingSet` has them; what is null is of no segment.
    """
    return {name: mask for name, mask in _all(rows) if mask.any()}


def _all(rows: pd.DataFrame) -> Iterator[tuple[str, Mask]]:
    for channel in sorted(rows["channel"].dropna().unique()):
        yield f"channel={channel}", (rows["channel"] == channel).to_numpy(bool)
    amount = rows["amount"].to_numpy()
    for low, high in pairwise(AMOUNTS):
        name = f"amount {low:g} to {high:g}" if np.isfinite(high) else f"amount from {low:g}"
        yield name, (amount >= low) & (amount < high)
    days, new = rows["card_days"].to_numpy(np.float64), NEW_FOR / timedelta(days=1)
    yield f"card new (under {new:g} days)", days < new
    yield f"card known ({new:g} days and more)", days >= new
