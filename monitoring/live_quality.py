"""What decisions were worth, by the labels known so far: figures of payments whose labels are due, and of younger ones.

Invariant: a payment counts as `full` only when its label is known by contract (older than the label delay and the
publication after it), so that a half-labelled week is never held against a full one. Pure: frames in, figures out.

A declined payment says nothing of what it would have been: nobody disputes what never happened. Where a control group
of would-be declines was let pass, it stands for them, each of its payments for as many as were declined beside it.
Source: Horvitz and Thompson, A generalization of sampling without replacement from a finite universe, 1952.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.schema import LABEL_DELAY, LABEL_PUBLICATION
from monitoring.cost_matrix import CostMatrix
from monitoring.decision_window import Period

Floats = npt.NDArray[np.float64]
Bounds = tuple[float, float] | None
Maturity = Literal["full", "partial"]

BINS = 15
"""Groups of equal weight whose mean score is held against their share of frauds, as in training."""

REPEATS = 200
"""Resamples of the cards, for the middle 95 % of a figure."""

DUE = LABEL_DELAY + LABEL_PUBLICATION


@dataclass(frozen=True)
class Figures:
    """What some payments' decisions were worth; a figure that is undefined is null.

    `precision` and `recall` are of being stopped (reviewed or declined; a control payment counts as declined), each
    with its 95 % interval over whole cards. `cost` is a day's, in the currency of the amounts. `stands_for` is how many
    declines one control payment counts for, null without a control group; to `uncovered` declines it says nothing.
    """

    payments: int
    labelled: int
    frauds: int
    control: int
    stands_for: float | None
    uncovered: int
    precision: float | None
    recall: float | None
    average_precision: float | None
    auc_roc: float | None
    calibration_error: float | None
    cost: float | None
    precision_interval: Bounds
    recall_interval: Bounds

    @property
    def labelled_share(self) -> float | None:
        """Labelled payments by payments."""
        return self.labelled / self.payments if self.payments else None

    def as_json(self) -> dict[str, Any]:
        """All of it, `labelled_share` too."""
        return asdict(self) | {"labelled_share": self.labelled_share}


def periods(at: datetime, days: float) -> dict[Maturity, Period]:
    """`full`: the `days` before the youngest payment whose label is due at `at`; `partial`: what is younger."""
    due = at - DUE
    return {"full": Period(due - timedelta(days=days), due), "partial": Period(due, at)}


def figures(rows: pd.DataFrame, matrix: CostMatrix, days: float, cap: float) -> Figures:
    """The figures of decisions on payments of `days` days.

    `rows` has `card_id`, `amount`, `score`, `decision`, `degraded_cause`, `control_group`, and `is_fraud`, null where
    no label is known. `cap` is the largest amount that the control group lets pass; of degraded decisions it lets none.
    """
    labelled = rows["is_fraud"].notna().to_numpy()
    control = rows["control_group"].to_numpy(np.bool_)
    declined = (rows["decision"] == "decline").to_numpy()
    covered = declined & ((rows["amount"] <= cap) & rows["degraded_cause"].isna()).to_numpy()
    stood_for = bool((control & labelled).any())
    stands_for = (control | covered).sum() / control.sum() if stood_for else None
    counted = labelled & ~declined if stood_for else labelled
    known = rows[counted].reset_index(drop=True)
    weights = np.where(known["control_group"], 1.0 if stands_for is None else stands_for, 1.0)
    truth, scores = known["is_fraud"].to_numpy() == 1, known["score"].to_numpy(np.float64)
    stopped = stopped_by_model(known)
    ranks = bool(truth.any() and not truth.all())
    low_high: tuple[Bounds, Bounds] = (None, None)
    if ranks:
        group = [_count_by_card(rows, mask) for mask in (control, control | covered)] if stood_for else None
        low_high = intervals(known, group)
    return Figures(
        payments=len(rows),
        labelled=int(labelled.sum()),
        frauds=int(truth.sum()),
        control=int(control.sum()),
        stands_for=None if stands_for is None else float(stands_for),
        uncovered=int((declined & ~covered).sum()) if stood_for else 0,
        precision=_ratio(weights @ (truth & stopped), weights @ stopped),
        recall=_ratio(weights @ (truth & stopped), weights @ truth),
        average_precision=_ranked("average_precision_score", truth, scores, weights) if ranks else None,
        auc_roc=_ranked("roc_auc_score", truth, scores, weights) if ranks else None,
        calibration_error=calibration_error(truth, scores, weights) if len(known) else None,
        cost=float(weights @ costs(known, matrix)) / days if len(known) else None,
        precision_interval=low_high[0],
        recall_interval=low_high[1],
    )


def stopped_by_model(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which payments the model stopped, whatever became of them."""
    return ((rows["decision"] != "approve") | rows["control_group"]).to_numpy(np.bool_)


def costs(rows: pd.DataFrame, matrix: CostMatrix) -> Floats:
    """What the model's decision on each payment cost; a control payment as the decline it would have been."""
    decline = ((rows["decision"] == "decline") | rows["control_group"]).to_numpy(np.bool_)
    review = (rows["decision"] == "review").to_numpy(np.bool_)
    return np.select([decline, review], [matrix.declined(rows), matrix.reviewed(rows)], matrix.approved(rows))


def calibration_error(truth: npt.NDArray[np.bool_], scores: Floats, weights: Floats) -> float:
    """Expected calibration error over `BINS` groups of equal weight; equal scores are in the group of the first."""
    order = np.argsort(scores, kind="stable")
    before = np.cumsum(weights[order]) - weights[order]
    first = np.searchsorted(scores[order], scores, side="left")
    group = np.minimum(before[first] * BINS / weights.sum(), BINS - 1).astype(int)
    return float(np.abs(np.bincount(group, weights * (scores - truth), BINS)).sum() / weights.sum())


def intervals(known: pd.DataFrame, group: Sequence[pd.Series] | None, seed: int = 7) -> tuple[Bounds, Bounds]:
    """The intervals of precision and recall: each card counts 0, 1, 2, ... times, drawn anew for each resample.

    `known` are the labelled payments that count; `group` says for each card how many payments the control group has,
    and how many it stands for, its own among them (null: there is none).
    """
    truth, stopped = known["is_fraud"].to_numpy() == 1, stopped_by_model(known)
    control = known["control_group"].to_numpy(np.bool_) & (group is not None)
    masks = (truth & stopped & ~control, stopped & ~control, truth & ~control, truth & control, control)
    columns = [_count_by_card(known, mask) for mask in masks] + list(group or [])
    table = pd.concat(columns, axis=1).fillna(0.0).to_numpy(np.float64)
    random, found = np.random.default_rng(seed), np.full((REPEATS, 2), np.nan)
    for repeat in range(REPEATS):
        caught, halted, frauds, passed_frauds, passed, *sizes = random.poisson(1.0, len(table)) @ table
        each = 0.0
        if sizes:
            if not sizes[0]:
                continue
            each = sizes[1] / sizes[0]
        caught, halted, frauds = caught + each * passed_frauds, halted + each * passed, frauds + each * passed_frauds
        found[repeat] = [caught / halted if halted else np.nan, caught / frauds if frauds else np.nan]
    return _middle(found[:, 0]), _middle(found[:, 1])


def _middle(values: Floats) -> Bounds:
    known = values[~np.isnan(values)]
    if len(known) <= REPEATS / 2:
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def _count_by_card(rows: pd.DataFrame, mask: npt.NDArray[np.bool_]) -> pd.Series:
    return rows["card_id"][mask].value_counts().astype("float64")


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def _ranked(metric: str, truth: npt.NDArray[np.bool_], scores: Floats, weights: Floats) -> float:
    from sklearn import metrics  # a second, which who only asks for periods need not wait

    return float(getattr(metrics, metric)(truth, scores, sample_weight=weights))
