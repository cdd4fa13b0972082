"""The metrics over weighted cards: one pass over the rows, then any number of resamples of the cards at once.

Each equals its plain form on rows in which a card's payments are repeated as often as the card weighs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from training.evaluate import TOP_CARDS

Floats = npt.NDArray[np.float64]


class Payments:
    """Rows (`timestamp`, `card_id`, `is_fraud`) with their scores, laid out by card; `cards` is how many there are."""

    def __init__(self, rows: pd.DataFrame, scores: Floats) -> None:
        self.rows = rows
        self.scores = np.asarray(scores, np.float64)
        self.fraud = rows["is_fraud"].to_numpy(bool)
        self.card, names = pd.factorize(rows["card_id"])
        self.cards = len(names)
        if len(self.scores) != len(rows):
            raise ValueError(f"{len(rows)} rows have {len(self.scores)} scores; must have one each.")

    def summed(self, values: npt.NDArray[np.generic]) -> Floats:
        """Row values, added up by card."""
        return np.asarray(np.bincount(self.card, np.asarray(values, np.float64), self.cards), np.float64)

    @cached_property
    def _places(self) -> tuple[npt.NDArray[np.intp], int]:
        """For each row the step it is counted in, from the most suspect down, and how many steps there are.

        Steps 2g + 1 hold the rows that score as the g-th distinct score of a fraud does, steps 2g the rows between.
        """
        suspect = np.unique(self.scores[self.fraud])
        above = len(suspect) - np.searchsorted(suspect, self.scores, side="right")
        ties = np.isin(self.scores, suspect)
        return np.where(ties, 2 * above + 1, 2 * above), 2 * len(suspect) + 1

    def steps(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weighted counts (steps, repeats) of frauds and of genuine payments, for `weights` (repeats, cards)."""
        place, steps = self._places
        return self._counted(place, self.fraud, steps, weights), self._counted(place, ~self.fraud, steps, weights)

    @cached_property
    def days(self) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]]:
        """For each day its cards, the most suspect first, and whether each had a fraud that day."""
        frame = self.rows[["card_id"]].assign(card=self.card, score=self.scores, is_fraud=self.fraud)
        laid_out = []
        for _, day in frame.groupby(self.rows["timestamp"].dt.floor("D"), sort=True):
            cards = day.groupby("card_id").agg({"card": "first", "score": "max", "is_fraud": "max"})
            cards = cards.sort_values("score", ascending=False, kind="stable")
            laid_out.append((cards["card"].to_numpy(), cards["is_fraud"].to_numpy(bool)))
        return laid_out

    def _counted(
        self, place: npt.NDArray[np.intp], which: npt.NDArray[np.bool_], steps: int, weights: Floats
    ) -> Floats:
        rows = (place[which], self.card[which])
        matrix = sparse.coo_matrix((np.ones(len(rows[0])), rows), (steps, self.cards)).tocsr()
        return np.asarray(matrix @ weights.T, np.float64)


@dataclass(frozen=True)
class Weighted:
    """A metric with its weighted form: `over(payments, weights (repeats, cards)) -> (repeats,)`, NaN where undefined.

    Called with rows and scores it gives the plain figure.
    """

    name: str
    over: Callable[[Payments, Floats], Floats]
    higher_is_better: bool = True

    def __call__(self, rows: pd.DataFrame, scores: Floats) -> float:
        payments = Payments(rows, scores)
        return float(self.over(payments, np.ones((1, payments.cards)))[0])


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below > 0)


def _found(payments: Payments, weights: Floats) -> tuple[Floats, Floats]:
    """Frauds and genuine payments (thresholds, repeats) from each distinct score of a fraud upwards."""
    fraud, genuine = payments.steps(weights)
    return fraud.cumsum(0)[1::2], genuine.cumsum(0)[1::2]


def _auc_roc(payments: Payments, weights: Floats) -> Floats:
    fraud, genuine = payments.steps(weights)
    below = genuine[::-1].cumsum(0)[::-1] - genuine
    return _ratio((fraud * (below + genuine / 2)).sum(0), fraud.sum(0) * genuine.sum(0))


def _average_precision(payments: Payments, weights: Floats) -> Floats:
    found, wrong = _found(payments, weights)
    gained = np.diff(found, axis=0, prepend=0)
    precision = np.nan_to_num(_ratio(found, found + wrong))
    return _ratio((gained * precision).sum(0), gained.sum(0))


def _precision_at_90_recall(payments: Payments, weights: Floats) -> Floats:
    found, wrong = _found(payments, weights)
    precision = _ratio(found, found + wrong)
    enough = (found >= 0.9 * found[-1:] - 1e-9) & (found > 0)
    best = np.where(enough, precision, -1.0).max(0, initial=-1.0)
    return np.where(best < 0, np.nan, best)


def _recall_at_2_fpr(payments: Payments, weights: Floats) -> Floats:
    found, wrong = _found(payments, weights)
    genuine = weights @ payments.summed(~payments.fraud)
    best = np.where(wrong <= 0.02 * genuine + 1e-9, found, 0.0).max(0, initial=0.0)
    return _ratio(best, weights @ payments.summed(payments.fraud))


def _brier(payments: Payments, weights: Floats) -> Floats:
    squared = (payments.scores - payments.fraud) ** 2
    return _ratio(weights @ payments.summed(squared), weights @ payments.summed(np.ones(len(squared))))


def _card_precision(payments: Payments, weights: Floats) -> Floats:
    found = np.zeros(weights.shape, bool)
    shares = []
    for cards, fraud in payments.days:
        shares.append(np.zeros(len(weights)))
        left, at, some = np.full(len(weights), float(TOP_CARDS)), 0, 4 * TOP_CARDS
        while at < len(cards) and left.any():
            places = cards[at : at + some]
            there = np.where(found[:, places], 0.0, weights[:, places])
            looked_at = np.clip(left[:, None] - (there.cumsum(1) - there), 0, there)
            caught = looked_at * fraud[at : at + some]
            found[:, places] |= caught > 0
            shares[-1] += caught.sum(1) / TOP_CARDS
            left, at = left - looked_at.sum(1), at + some
    return np.mean(shares, axis=0)


AUC_ROC = Weighted("auc_roc", _auc_roc)
AVERAGE_PRECISION = Weighted("average_precision", _average_precision)
PRECISION_AT_90_RECALL = Weighted("precision_at_90_recall", _precision_at_90_recall)
RECALL_AT_2_FPR = Weighted("recall_at_2_fpr", _recall_at_2_fpr)
CARD_PRECISION_100 = Weighted("card_precision_100", _card_precision)
BRIER = Weighted("brier", _brier, higher_is_better=False)

METRICS = {
    metric.name: metric
    for metric in (AUC_ROC, AVERAGE_PRECISION, PRECISION_AT_90_RECALL, RECALL_AT_2_FPR, CARD_PRECISION_100, BRIER)
}


def ratio(
    name: str,
    above: Callable[[Payments], Floats],
    below: Callable[[Payments], Floats],
    higher_is_better: bool = True,
) -> Weighted:
    """The sum over payments of one value of each divided by that of another, such as the share of losses saved."""

    def over(payments: Payments, weights: Floats) -> Floats:
        return _ratio(weights @ payments.summed(above(payments)), weights @ payments.summed(below(payments)))

    return Weighted(name, over, higher_is_better)


def mean_of(name: str, values: Callable[[Payments], Floats], higher_is_better: bool = True) -> Weighted:
    """The mean over payments of a value of each, such as what its decision saves."""
    return ratio(name, values, lambda payments: np.ones(len(payments.rows)), higher_is_better)
