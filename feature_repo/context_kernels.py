"""The compiled part of `feature_repo.context`: one pass over the rows where numpy would take twenty.

A payment that is scored alone pays for every call, not for its row: the same sums in numpy take ten times as long.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.kernels import compiler

jit = compiler(Path(__file__).parent, "context_kernels")

LEAST_VARIANCE = 1e-9
"""Of the squared mean: what is left of a difference of large sums is no deviation."""


@jit
def against_earlier(
    amount: Any, n: Any, mean: Any, std: Any, recent: Any, recent_mean: Any, recent_std: Any, recent_max: Any
) -> Any:
    """Amount, and mean and maximum of a window, against the events of a longer one that are not in it.

    Takes count, mean and deviation of the longer and of the recent window, rows each; null is NaN. Returns (4, rows):
    amount to mean, z-score of the amount, recent mean to mean, recent maximum to mean.
    """
    found = np.full((4, amount.shape[0]), np.nan)
    for row in range(amount.shape[0]):
        count = n[row] - recent[row]
        if count < 1:
            continue
        total, squares = n[row] * mean[row], n[row] * mean[row] ** 2
        if n[row] > 1:
            squares += (n[row] - 1) * std[row] ** 2
        if recent[row] > 0:
            total -= recent[row] * recent_mean[row]
            squares -= recent[row] * recent_mean[row] ** 2
        if recent[row] > 1:
            squares -= (recent[row] - 1) * recent_std[row] ** 2
        usual = total / count
        if not usual > 0:
            continue
        found[0, row] = amount[row] / usual
        found[2, row] = recent_mean[row] / usual
        found[3, row] = recent_max[row] / usual
        if count > 1:
            variance = (squares - count * usual**2) / (count - 1)
            if variance > LEAST_VARIANCE * usual**2:
                found[1, row] = (amount[row] - usual) / np.sqrt(variance)
    return found


@jit
def counted_before(n: Any, share: Any, recent: Any, recent_share: Any) -> Any:
    """How many of the events that a share is of lie in a window and not in the recent part of it; rows."""
    found = np.zeros(n.shape[0])
    for row in range(n.shape[0]):
        if n[row] > 0:
            found[row] = np.rint(n[row] * share[row])
        if recent[row] > 0:
            found[row] -= np.rint(recent[row] * recent_share[row])
    return found
