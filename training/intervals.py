"""How sure a figure is: bootstrap intervals over whole cards, because the payments of one card are not independent.

Champion and challenger are compared on the same resamples, so what makes a resample hard for both cancels out.
Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapters 8 (clusters) and 13 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from training.evaluate import Scores
from training.weighted import Floats, Payments, Weighted

Metric = Callable[[pd.DataFrame, Scores], float] | Weighted
"""`metric(rows, scores) -> float`. Those of `training.weighted` take a second for what others take minutes."""

REPEATS = 500
LEVEL = 0.95

CHUNK = 50
"""Resamples at once: the counts of a large set must fit memory."""


@dataclass(frozen=True)
class Interval:
    """A figure on the rows as they are, and where the middle 95 % of the resamples lie.

    `low` and `high` are NaN where the figure is undefined on half of the resamples or more: nothing is known then.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    @property
    def known(self) -> bool:
        """Whether all three are numbers."""
        return bool(np.isfinite([self.value, self.low, self.high]).all())


def bootstrap(rows: pd.DataFrame, scores: Scores, metric: Metric, repeats: int = REPEATS, seed: int = 7) -> Interval:
    """The interval of a metric of `scores`; `rows` has `card_id`, `timestamp`, `is_fraud` and what the metric reads."""
    return bootstrap_each(rows, scores, {"": metric}, repeats, seed)[""]


def paired(
    rows: pd.DataFrame,
    champion_scores: Scores,
    challenger_scores: Scores,
    metric: Metric,
    repeats: int = REPEATS,
    seed: int = 7,
) -> Interval:
    """The interval of challenger minus champion, both on the same resamples."""
    return paired_each(rows, champion_scores, challenger_scores, {"": metric}, repeats, seed)[""]


def bootstrap_each(
    rows: pd.DataFrame, scores: Scores, metrics: Mapping[str, Metric], repeats: int = REPEATS, seed: int = 7
) -> dict[str, Interval]:
    """The interval of each metric, all on the same resamples."""
    payments = Payments(rows, scores)
    drawn = resamples(payments.cards, repeats, seed)
    return {name: _interval(_values(payments, metric, drawn)) for name, metric in metrics.items()}


def paired_each(
    rows: pd.DataFrame,
    champion_scores: Scores,
    challenger_scores: Scores,
    metrics: Mapping[str, Metric | tuple[Metric, Metric]],
    repeats: int = REPEATS,
    seed: int = 7,
) -> dict[str, Interval]:
    """The interval of challenger minus champion for each metric, all on the same resamples.

    Where a metric reads a model's own thresholds it is given twice, the champion's first.
    """
    before, after = Payments(rows, champion_scores), Payments(rows, challenger_scores)
    drawn = resamples(before.cards, repeats, seed)
    both = {name: metric if isinstance(metric, tuple) else (metric, metric) for name, metric in metrics.items()}
    return {
        name: _interval(_values(after, ours, drawn) - _values(before, theirs, drawn))
        for name, (theirs, ours) in both.items()
    }


def resamples(cards: int, repeats: int, seed: int) -> Floats:
    """How often each card is drawn, (repeats + 1, cards): as many as there are, with replacement; first the set itself.

    Raises `ValueError` where there is no card.
    """
    if cards < 1:
        raise ValueError("There are no rows; an interval needs some.")
    random = np.random.default_rng(seed)
    drawn = [np.bincount(random.integers(cards, size=cards), minlength=cards) for _ in range(repeats)]
    return np.array([np.ones(cards), *drawn], np.float64)


def _values(payments: Payments, metric: Metric, weights: Floats) -> Floats:
    if isinstance(metric, Weighted):
        chunks = (weights[at : at + CHUNK] for at in range(0, len(weights), CHUNK))
        return np.concatenate([metric.over(payments, chunk) for chunk in chunks])
    return np.array([_drawn(payments, metric, one) for one in weights])


def _drawn(payments: Payments, metric: Callable[[pd.DataFrame, Scores], float], weights: Floats) -> float:
    """A metric on the rows themselves, repeated; the copies of a card are cards of their own."""
    times = weights[payments.card].astype(int)
    places = np.repeat(np.arange(len(times)), times)
    if payments.fraud[places].all() or not payments.fraud[places].any():
        return float("nan")
    rows = payments.rows.iloc[places]
    copies = np.arange(len(places)) - np.repeat(times.cumsum() - times, times)
    names = rows["card_id"].astype(str) + "#" + pd.Series(copies, rows.index).astype(str)
    return float(metric(rows.assign(card_id=names).reset_index(drop=True), payments.scores[places]))


def _interval(values: Floats) -> Interval:
    """From the figure on the set itself, first, and those on its resamples."""
    value, drawn = float(values[0]), values[1:][np.isfinite(values[1:])]
    if 2 * len(drawn) <= len(values) - 1:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))
