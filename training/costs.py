"""What decisions cost, and the thresholds that follow: where reviewing or declining a payment saves more than it costs.

Every sum is in the currency of the amounts. Thresholds are set on rows that are neither trained nor tested on.
Source: Bahnsen et al., Example-Dependent Cost-Sensitive Decision Trees, 2015 (the loss of a fraud is its own amount).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import maximum_filter1d

from feature_repo.settings import Settings
from monitoring.cost_matrix import CostMatrix, amount_and_fraud
from training.evaluate import Scores

Floats = npt.NDArray[np.float64]
Cuts = tuple[float, float]
"""(review_from, decline_from): a score from the one on is reviewed, from the other on declined."""

NEVER = 1.0
"""The threshold where none pays: only certainty is stopped."""

CAPACITY_SHARE = 0.01
"""Share of payments that people can look at, where nobody says how many a day."""

SHOWN_SHARES = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Shares of payments stopped, for which a table says what a threshold there catches and costs."""


@dataclass(frozen=True)
class Terms:
    """On what terms thresholds are set: what decisions cost, and how many payments a day people can look at.

    A `review_capacity` of null is one in a hundred payments.
    """

    matrix: CostMatrix
    review_capacity: float | None = None

    @classmethod
    def of(cls, current: Settings) -> Terms:
        """The terms of the settings."""
        return cls(CostMatrix.of(current), current.review_capacity)

    def capacity(self, rows: pd.DataFrame) -> float:
        """Reviews a day, on days such as those of these rows."""
        share = CAPACITY_SHARE * len(rows) / days_of(rows)
        return share if self.review_capacity is None else self.review_capacity


def saved(rows: pd.DataFrame, scores: Scores, cuts: Cuts, matrix: CostMatrix) -> Floats:
    """What deciding each payment by `cuts` saves against approving it; below 0 where it costs more."""
    review, decline = cuts
    stopped = [matrix.declined(rows), matrix.reviewed(rows)]
    approved = matrix.approved(rows)
    return approved - np.select([scores >= decline, scores >= review], stopped, approved)


def cost_saved(rows: pd.DataFrame, scores: Scores, cuts: Cuts, matrix: CostMatrix) -> float:
    """What deciding by `cuts` saves in all, against approving every payment."""
    return float(saved(rows, scores, cuts, matrix).sum())


def days_of(rows: pd.DataFrame) -> int:
    """The days (UTC) from the first payment's to the last one's, both counted."""
    stamps = rows["timestamp"]
    return int((stamps.max().floor("D") - stamps.min().floor("D")) / timedelta(days=1)) + 1


def choose(rows: pd.DataFrame, scores: Scores, matrix: CostMatrix, capacity: float) -> Cuts:
    """The thresholds that save most on these rows, with at most `capacity` reviews a day in the mean of the days.

    `rows` has `timestamp`, `amount` and `is_fraud`; `scores` lie in [0, 1]. Of equal ones those that stop fewest. Where
    declining saves nothing it begins at 1; where reviewing saves nothing it begins where declining does. A threshold
    stands in the middle between the scores it parts.
    """
    ranked = np.sort(scores)[::-1]
    by_review, by_decline = savings(rows, scores, matrix)
    parted = np.concatenate([[True], ranked[:-1] > ranked[1:], [True]])  # equal scores are decided alike
    most = min(int(capacity * days_of(rows)), len(rows)) if len(rows) else 0
    # The first `d` are declined, those up to `r` reviewed: saves by_decline[d] + by_review[r] - by_review[d].
    lead = np.where(parted, by_decline - by_review, -np.inf)
    # The best `d` of r - most .. r, for every `r` at once.
    best = maximum_filter1d(lead, most + 1, origin=most // 2, mode="constant", cval=-np.inf)
    reviewed = int(np.argmax(np.where(parted, best + by_review, -np.inf)))
    first = max(reviewed - most, 0)
    declined = first + int(np.argmax(lead[first : reviewed + 1]))
    return _cut(ranked, reviewed), _cut(ranked, declined)


def savings(rows: pd.DataFrame, scores: Scores, matrix: CostMatrix) -> tuple[Floats, Floats]:
    """What is saved if the 0, 1, 2, ... most suspect payments are all reviewed, and if all are declined."""
    ordered = rows.iloc[np.argsort(-scores, kind="stable")]
    approved = matrix.approved(ordered)
    return _running(approved - matrix.reviewed(ordered)), _running(approved - matrix.declined(ordered))


def _running(values: Floats) -> Floats:
    """Sums of the first 0, 1, ... values; rounded, so that equal savings are told as equal."""
    return np.concatenate([[0.0], np.cumsum(values)]).round(6)


def _cut(ranked: Scores, stopped: int) -> float:
    """A threshold that stops the first `stopped` of scores that fall."""
    if stopped == 0:
        return NEVER
    last = float(ranked[stopped - 1])
    if stopped == len(ranked):
        return last
    middle = (last + float(ranked[stopped])) / 2
    return middle if middle > ranked[stopped] else last


def medium_from(rows: pd.DataFrame, scores: Scores, matrix: CostMatrix, review_from: float) -> float:
    """From where on a payment's risk is medium: where a review would pay if there were people enough."""
    return min(choose(rows, scores, matrix, float(len(rows)))[0], review_from)


def by_threshold(rows: pd.DataFrame, scores: Scores, cuts: Cuts, matrix: CostMatrix, capacity: float) -> pd.DataFrame:
    """What thresholds catch and cost on these rows, one row for each share of `SHOWN_SHARES` and for both cuts.

    `stopped_per_day`, `frauds_caught` and `amount_caught` (shares of the frauds and of their amount), `precision`,
    `false_positive_rate`, and what is saved against approving all if what is stopped is reviewed, or is declined;
    `within_capacity` says whether people can look at those that are not declined.
    """
    ranked = np.sort(scores)[::-1]
    grid = {f"{share:.2%} of payments": _cut(ranked, max(1, round(share * len(rows)))) for share in SHOWN_SHARES}
    grid |= {"review_from": cuts[0], "decline_from": cuts[1]}
    amount, fraud = amount_and_fraud(rows)
    approved, days = matrix.approved(rows), days_of(rows)
    by_review, by_decline = approved - matrix.reviewed(rows), approved - matrix.declined(rows)

    def line(threshold: float) -> dict[str, float]:
        stopped = scores >= threshold
        caught = stopped & fraud
        return {
            "threshold": threshold,
            "stopped_per_day": stopped.sum() / days,
            "frauds_caught": caught.sum() / fraud.sum(),
            "amount_caught": amount[caught].sum() / amount[fraud].sum(),
            "precision": caught.sum() / stopped.sum() if stopped.any() else np.nan,
            "false_positive_rate": (stopped & ~fraud).sum() / (~fraud).sum(),
            "saved_if_reviewed": by_review[stopped].sum(),
            "saved_if_declined": by_decline[stopped].sum(),
            "within_capacity": (stopped & (scores < cuts[1])).sum() / days <= capacity,
        }

    table = pd.DataFrame({name: line(threshold) for name, threshold in grid.items()}).T
    return table.sort_values("threshold", ascending=False, kind="stable")
