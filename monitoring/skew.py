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

Floats32 = npt.NDArray[np.float32]

EXAMPLES = 10


@dataclass(frozen=True)
class Skew:
    """`different` of `checked` vectors differ somewhere; `by_feature` counts where.

    `examples` are the first ten: transaction, feature, served, recomputed.
    """

    checked: int
    different: int
    by_feature: dict[str, int]
    examples: list[tuple[str, str, float, float]]


def audit(store: Any, served: Sequence[tuple[Transaction, Floats32]]) -> Skew:
    """Recompute the vector of each served transaction from the offline store and compare; null equals only null."""
    if not served:
        return Skew(0, 0, {}, [])
    payments = [transaction for transaction, _ in served]
    found, columns = recomputed(store, payments)
    online = np.stack([vector for _, vector in served])
    return told(payments, online, found, columns, unequal(online, found))


def recomputed(store: Any, payments: Sequence[Transaction]) -> tuple[Floats32, tuple[str, ...]]:
    """The vectors of payments as training would make them, as of each payment, and their columns."""
    frame = pd.DataFrame([transaction.model_dump() for transaction in payments])
    frame["merchant_category"] = frame["merchant_category"].map(category_or_other, na_action="ignore")
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], utc=True).astype("datetime64[us, UTC]")
    return vectors(store, frame)


def unequal(online: Floats32, found: Floats32) -> npt.NDArray[np.bool_]:
    """Where two sets of vectors differ by so much as a bit; null equals only null."""
    return ~((online == found) | (np.isnan(online) & np.isnan(found)))


def beyond_rounding(online: Floats32, found: Floats32) -> npt.NDArray[np.bool_]:
    """Where they differ by more than the rounding to float32 explains.

    Two sums that agree to 1e-9 may be rounded to neighbours. Neighbouring counts, up to 8 million, are a whole apart
    and no float32 neighbours: a count must be exact.
    """
    step = np.nextafter(found, np.where(online > found, np.inf, -np.inf).astype(np.float32))
    return unequal(online, found) & ~(online == step)


def told(
    payments: Sequence[Transaction],
    online: Floats32,
    found: Floats32,
    columns: Sequence[str],
    wrong: npt.NDArray[np.bool_],
) -> Skew:
    """What is `wrong` of the vectors, counted and with examples."""
    examples = [
        (payments[row].transaction_id, columns[column], float(online[row, column]), float(found[row, column]))
        for row, column in np.argwhere(wrong)[:EXAMPLES]
    ]
    counts = {name: int(n) for name, n in zip(columns, wrong.sum(axis=0), strict=True) if n}
    return Skew(len(payments), int(wrong.any(axis=1).sum()), counts, examples)
