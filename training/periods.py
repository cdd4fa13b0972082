"""What a version's decisions and scores were worth, day by day, week by week and over a whole period."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from feature_repo.contract import ModelContract
from training.evaluate import metrics_of
from training.hindsight import NOW, THEN

Figures = dict[str, Any]
VIEWS = {"then": THEN, "now": NOW}
"""The labels as known when each day's were due, and as known now."""


def figures(rows: pd.DataFrame, scores: str, fraud: str, contract: ModelContract) -> Figures:
    """The figures of some payments by the version's own thresholds; a figure that is undefined is null.

    Of all `payments` how many were reviewed and declined. Of the `labelled`: frauds, `precision` and `recall` of being
    stopped (reviewed or declined), the metrics of `training.evaluate`, and `expected_frauds`, the sum of the scores,
    which is the number of frauds where the scores are calibrated.
    """
    review, decline = contract.review_from, contract.decline_from
    known = rows[rows[fraud].notna()].reset_index(drop=True)
    truth, given = known[fraud].to_numpy() == 1, known[scores].to_numpy(np.float64)
    stopped = given >= min(review, decline)
    found: Figures = {
        "payments": len(rows),
        "labelled": len(known),
        "frauds": int(truth.sum()),
        "reviewed": int(((rows[scores] >= review) & (rows[scores] < decline)).sum()),
        "declined": int((rows[scores] >= decline).sum()),
        "precision": _share((truth & stopped).sum(), stopped.sum()),
        "recall": _share((truth & stopped).sum(), truth.sum()),
        "expected_frauds": float(given.sum()),
        "brier": float(np.mean((given - truth) ** 2)) if len(known) else None,
    }
    if truth.any() and not truth.all():
        return found | metrics_of(known.assign(is_fraud=truth.astype("int8")), given)
    return found


def _share(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def by_days(
    rows: pd.DataFrame, begin: datetime, end: datetime, days: int, scores: str, contract: ModelContract
) -> list[Figures]:
    """For each stretch of `days` days from `begin` its first day and, for each of `VIEWS`, its figures.

    `trained_on` says that the version was trained on some of it: such figures flatter.
    """
    found = []
    trained_until = pd.Timestamp(contract.trained_until)
    if trained_until.tzinfo is None:
        trained_until = trained_until.tz_localize("UTC")
    first = begin
    while first < end:
        last = min(first + timedelta(days=days), end)
        part = rows[(rows["timestamp"] >= first) & (rows["timestamp"] < last)]
        views = {view: figures(part, scores, fraud, contract) for view, fraud in VIEWS.items()}
        found.append({"from": f"{first:%F}", "days": (last - first).days, "trained_on": first < trained_until, **views})
        first = last
    return found
