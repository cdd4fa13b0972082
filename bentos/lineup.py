"""Who answers which payment: champion, challenger and fallback as one immutable value.

Invariant: a payment's role depends on its id and the weight alone, so it is the same in every process, and a growing
weight never gives a payment back to the champion. A challenger's failure is never the payment's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import mmh3
import numpy as np
import numpy.typing as npt

from bentos.challenger_guard import ChallengerGuard
from bentos.model import LoadedModel
from monitoring.metrics import metrics

SEED = 20
"""Of the hash that shares out payments; another one would give each payment another place."""

SPAN = 2**32

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Lineup:
    """The models in service. `weight` is the share of payments that the challenger answers, 0 without one.

    With `shadow` the challenger also scores what the champion answers, unseen by the answer.
    """

    champion: LoadedModel
    challenger: LoadedModel | None = None
    fallback: LoadedModel | None = None
    weight: float = 0.0
    shadow: bool = False

    def role_of(self, transaction_id: str) -> Literal["champion", "challenger"]:
        """Who answers a payment."""
        return "champion" if self.challenged([transaction_id]) is None else "challenger"

    def challenged(self, transaction_ids: Sequence[str]) -> Rows | None:
        """Which of the payments the challenger answers; None where it answers none of them."""
        if self.challenger is None or not self.weight:
            return None
        below = self.weight * SPAN
        rows = np.array([mmh3.hash(one, SEED, signed=False) < below for one in transaction_ids], np.bool_)
        return rows if rows.any() else None


@dataclass(frozen=True, slots=True)
class Scores:
    """Fraud probabilities of a batch, shape (n,), and which rows the challenger gave; None: the champion gave all."""

    lineup: Lineup
    probabilities: Floats
    challenged: Rows | None = None

    def models(self) -> list[LoadedModel]:
        """The model that gave each row's score."""
        champion, challenger = self.lineup.champion, self.lineup.challenger
        if self.challenged is None or challenger is None:
            return [champion] * len(self.probabilities)
        return [challenger if challenged else champion for challenged in self.challenged.tolist()]


def score(
    lineup: Lineup, transaction_ids: Sequence[str], vectors: npt.NDArray[np.float32], guard: ChallengerGuard
) -> Scores:
    """Score a batch, each row by the model whose turn it is; the champion takes over what the challenger fails on.

    Raises `bentos.model.InvalidScore` where the champion gives anything but a probability.
    """
    rows, challenger = lineup.challenged(transaction_ids), lineup.challenger
    if rows is None or challenger is None:
        scores = Scores(lineup, lineup.champion.score(vectors))
        answered = 0
    else:
        scores = _shared(lineup, challenger, rows, vectors, guard)
        answered = 0 if scores.challenged is None else int(rows.sum())
    if lineup.weight:
        metrics.role_scores.labels(role="challenger").inc(answered)
        metrics.role_scores.labels(role="champion").inc(len(vectors) - answered)
    return scores


def _shared(
    lineup: Lineup, challenger: LoadedModel, rows: Rows, vectors: npt.NDArray[np.float32], guard: ChallengerGuard
) -> Scores:
    given = guard.run(lineup.champion, challenger, vectors[rows])
    if given is None:
        return Scores(lineup, lineup.champion.score(vectors))
    probabilities = np.empty(len(vectors))
    probabilities[rows] = given
    if not rows.all():
        probabilities[~rows] = lineup.champion.score(vectors[~rows])
    return Scores(lineup, probabilities, rows)
