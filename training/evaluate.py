"""How good a model is, in the field's own metrics, on rows it was not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

Scores = npt.NDArray[np.float64]

TOP_CARDS = 100
"""Cards a day that investigators can look at."""


def metrics_of(rows: pd.DataFrame, scores: Scores) -> dict[str, float]:
    """AUC-ROC, average precision, precision at 90 % recall and card precision@100; higher is better everywhere.

    `rows` has `timestamp`, `card_id` and `is_fraud`; `scores` are the fraud probabilities, row by row.
    """
    fraud = rows["is_fraud"].to_numpy()
    if fraud.min() == fraud.max():
        raise ValueError(f"All {len(fraud)} rows have is_fraud = {fraud[0]}; metrics need both classes.")
    precision, recall, _ = precision_recall_curve(fraud, scores)
    return {
        "auc_roc": float(roc_auc_score(fraud, scores)),
        "average_precision": float(average_precision_score(fraud, scores)),
        "precision_at_recall_90": float(precision[recall >= 0.9].max()),
        "card_precision_100": card_precision(rows, scores),
    }


def card_precision(rows: pd.DataFrame, scores: Scores, top: int = TOP_CARDS) -> float:
    """The mean over days of the share of truly compromised cards among the `top` most suspected ones.

    A card is as suspect as its worst payment of the day; a compromised card that was found leaves the later days.
    Source: Fraud Detection Handbook, chapter 4, card precision top-k.
    """
    frame = rows.assign(score=scores, day=rows["timestamp"].dt.floor("D"))
    found: set[str] = set()
    shares = []
    for _, day in frame.groupby("day", sort=True):
        cards = day[~day["card_id"].isin(found)].groupby("card_id").agg({"score": "max", "is_fraud": "max"})
        first = cards.sort_values("score", ascending=False, kind="stable").head(top)
        caught = first.index[first["is_fraud"] == 1]
        shares.append(len(caught) / top)
        found |= set(caught)
    return float(np.mean(shares))


def thresholds(
    fraud: npt.NDArray[Any], scores: Scores, review_share: float, decline_precision: float
) -> tuple[float, float]:
    """From where on to review and to decline, set on rows that are neither trained nor tested on.

    Review takes the `review_share` most suspect payments; decline begins at the lowest score from which on at least
    `decline_precision` of the payments are fraud, and never below review.
    """
    review = float(np.quantile(scores, 1 - review_share))
    precision, _, cuts = precision_recall_curve(fraud, scores)
    enough = cuts[precision[:-1] >= decline_precision]
    decline = float(enough.min()) if len(enough) else 1.0
    return review, max(review, decline)
