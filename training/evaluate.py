"""How good a model is, in the field's own metrics, on rows it was not trained on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

Scores = npt.NDArray[np.float64]

TOP_CARDS = 100
"""Cards a day that investigators can look at."""


BINS = 15
"""Groups of equal size whose mean score is held against their share of frauds."""


def metrics_of(rows: pd.DataFrame, scores: Scores) -> dict[str, float]:
    """How well the scores rank (higher is better), and how true they are as probabilities (lower is better).

    `rows` has `timestamp`, `card_id` and `is_fraud`; `scores` are the fraud probabilities, row by row. The ranking:
    AUC-ROC, average precision, precision at 90 % recall, recall at 2 % false positives, card precision@100. The
    probabilities: Brier score, log loss, and the expected calibration error over `BINS` groups of equal size.
    """
    fraud = rows["is_fraud"].to_numpy()
    if fraud.min() == fraud.max():
        raise ValueError(f"All {len(fraud)} rows have is_fraud = {fraud[0]}; metrics need both classes.")
    precision, recall, _ = precision_recall_curve(fraud, scores)
    wrong, found, _ = roc_curve(fraud, scores)
    return {
        "auc_roc": float(roc_auc_score(fraud, scores)),
        "average_precision": float(average_precision_score(fraud, scores)),
        "precision_at_90_recall": float(precision[recall >= 0.9].max()),
        "recall_at_2_fpr": float(found[wrong <= 0.02].max()),
        "card_precision_100": card_precision(rows, scores),
    } | truth_of(fraud, scores)


def truth_of(fraud: npt.NDArray[np.int8], scores: Scores) -> dict[str, float]:
    """How true scores are as probabilities: Brier score, log loss, expected calibration error; lower is better."""
    return {
        "brier": float(brier_score_loss(fraud, scores)),
        "log_loss": float(log_loss(fraud, scores)),
        "ece": float(np.abs(np.bincount(bins_of(scores), scores - fraud, BINS)).sum() / len(fraud)),
    }


def bins_of(scores: Scores) -> npt.NDArray[np.intp]:
    """The group of each score, of `BINS` of equal size by rank; equal scores share the group of the first of them."""
    ranked = np.sort(scores)
    return np.searchsorted(ranked, scores, side="left") * BINS // len(scores)


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
