"""The skew audit: the vectors that were served, recomputed from history, column by column and bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.historical import vectors
from feature_repo.schema import Transaction, category_or_other


@dataclass(frozen=True)
class Skew:
    """`different` of `checked` vectors differ somewhere; `by_feature` counts where.

    `examples` are the first ten: transaction, feature, served, recomputed.
    """

    checked: int
    different: int
    by_feature: dict[str, int]
    examples: list[tuple[str, str, float, float]]


def audit(store: Any, served: Sequence[tuple[Transaction, npt.NDArray[np.float32]]]) -> Skew:
    """Recompute the vector of each served transaction from the offline store and compare; null equals only null."""
    if not served:
        return Skew(0, 0, {}, [])
    frame = pd.DataFrame([transaction.model_dump() for transaction, _ in served])
    frame["merchant_category"] = frame["merchant_category"].map(category_or_other, na_action="ignore")
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], utc=True).astype("datetime64[us, UTC]")
    recomputed, columns = vectors(store, frame)
    online = np.stack([vector for _, vector in served])
    unequal = ~((online == recomputed) | (np.isnan(online) & np.isnan(recomputed)))
    examples = [
        (served[row][0].transaction_id, columns[column], float(online[row, column]), float(recomputed[row, column]))
        for row, column in np.argwhere(unequal)[:10]
    ]
    counts = {name: int(n) for name, n in zip(columns, unequal.sum(axis=0), strict=True) if n}
    return Skew(len(served), int(unequal.any(axis=1).sum()), counts, examples)
