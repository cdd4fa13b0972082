"""A model's figures on a period, each with its interval: ranking, probabilities, what its decisions catch and save."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from training.costs import CostMatrix, Cuts, saved
from training.evaluate import BINS, Scores, bins_of
from training.intervals import Interval, bootstrap_each
from training.segments import LEAST_FRAUDS, segments
from training.weighted import METRICS, Floats, Payments, Weighted, mean_of, ratio

REPEATS = 200
"""Resamples of a round's figures: enough for two digits of an interval, and a second for each candidate."""

IN_SEGMENTS = ("auc_roc", "average_precision", "precision", "recall", "cost_saved_share")
"""The figures that a segment has."""


def measure(
    rows: pd.DataFrame, scores: Scores, cuts: Cuts, matrix: CostMatrix, repeats: int = REPEATS
) -> dict[str, Interval]:
    """Every figure of `evaluate.metrics_of`, and those of the decisions by `cuts`, with the interval of each.

    Of the decisions: `precision` and `recall` (share of what is reviewed or declined that is fraud, and of frauds that
    are), `stopped_share`, `cost_saved` (against approving all, in the currency of the amounts, for the whole period)
    and `cost_saved_share` (of what approving all costs; below 0 where deciding costs more).
    """
    return bootstrap_each(rows, scores, METRICS | PROBABILITIES | decisions(cuts, matrix), repeats)


@dataclass(frozen=True)
class Segment:
    """A part of the payments; `figures` are those of `IN_SEGMENTS`, none where it has too few frauds."""

    rows: int
    frauds: int
    figures: dict[str, Interval] = field(default_factory=dict)


def by_segment(
    rows: pd.DataFrame, scores: Scores, cuts: Cuts, matrix: CostMatrix, repeats: int = REPEATS
) -> dict[str, Segment]:
    """The figures of each segment by its name, those on few frauds aside."""
    asked = {name: metric for name, metric in (METRICS | decisions(cuts, matrix)).items() if name in IN_SEGMENTS}
    found = {}
    for name, mask in segments(rows).items():
        part, frauds = rows[mask].reset_index(drop=True), int(rows["is_fraud"][mask].sum())
        enough = LEAST_FRAUDS <= frauds < len(part)
        figures = bootstrap_each(part, scores[mask], asked, repeats) if enough else {}
        found[name] = Segment(len(part), frauds, figures)
    return found


def decisions(cuts: Cuts, matrix: CostMatrix) -> dict[str, Weighted]:
    """The figures of decisions by these thresholds."""

    def stopped(payments: Payments) -> Floats:
        return np.asarray(payments.scores >= min(cuts), np.float64)

    def caught(payments: Payments) -> Floats:
        return stopped(payments) * payments.fraud

    def gained(payments: Payments) -> Floats:
        return saved(payments.rows, payments.scores, cuts, matrix)

    def at_stake(payments: Payments) -> Floats:
        return matrix.approved(payments.rows)

    made = (
        ratio("precision", caught, stopped),
        ratio("recall", caught, lambda payments: payments.fraud.astype(np.float64)),
        mean_of("stopped_share", stopped, higher_is_better=False),
        Weighted("cost_saved", lambda payments, weights: weights @ payments.summed(gained(payments))),
        ratio("cost_saved_share", gained, at_stake),
    )
    return {metric.name: metric for metric in made}


def _log_loss(payments: Payments) -> Floats:
    small = np.finfo(np.float64).eps
    scores = np.clip(payments.scores, small, 1 - small)
    return -np.log(np.where(payments.fraud, scores, 1 - scores))


def _ece(payments: Payments, weights: Floats) -> Floats:
    group, gaps = bins_of(payments.scores), payments.scores - payments.fraud
    off = [np.abs(weights @ payments.summed(np.where(group == one, gaps, 0.0))) for one in range(BINS)]
    return np.sum(off, axis=0) / (weights @ payments.summed(np.ones(len(gaps))))


PROBABILITIES = {
    "log_loss": mean_of("log_loss", _log_loss, higher_is_better=False),
    "ece": Weighted("ece", _ece, higher_is_better=False),
}
