"""A world to draw samples from, and the drifts that are planted into them, each in the payment's own columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.contract import LABEL, SCORE
from monitoring.champion import DECISION

Random = np.random.Generator
Weights = npt.NDArray[np.float64] | None

REVIEWED, DECLINED = 0.01, 0.002
"""Shares of the world's payments that its thresholds stop."""

NULLS = 0.1
DEAD = "card_count_24h"
SPARSE = "merchant_mean_amount_7d"


@dataclass(frozen=True)
class Drift:
    """A planted drift: how likely each row is drawn, what becomes of the rows drawn, and the columns that show it."""

    title: str
    columns: tuple[str, ...]
    likely: Callable[[pd.DataFrame], Weights] = lambda vectors: None
    change: Callable[[pd.DataFrame, Random], None] = lambda vectors, random: None

    @property
    def read(self) -> list[str]:
        """The columns to compare."""
        return [column.removesuffix(" is null") for column in self.columns]


def dearer(vectors: pd.DataFrame, random: Random) -> None:
    """Amounts x 1.3; what compares them with earlier ones follows, the earlier ones stay."""
    vectors["amount"] *= 1.3
    vectors["amount_log"] = np.log1p(vectors["amount"])
    for name in vectors:
        if str(name).startswith("card_amount_to_"):
            vectors[name] *= 1.3


def dead(vectors: pd.DataFrame, random: Random) -> None:
    """A feature stands at 0."""
    vectors[DEAD] = np.float32(0)


def nulls(vectors: pd.DataFrame, random: Random) -> None:
    """A tenth of a feature's values goes missing."""
    vectors[SPARSE] = vectors[SPARSE].mask(random.random(len(vectors)) < NULLS)


def more_nights(vectors: pd.DataFrame) -> Weights:
    """Payments at night twice as likely."""
    night = vectors["is_night"].to_numpy() == 1
    share = night.mean()
    return np.where(night, 2.0, (1 - 2 * share) / (1 - share))


def another_mix(vectors: pd.DataFrame) -> Weights:
    """Each merchant category's share times a factor of its own, a half to two."""
    codes, place = np.unique(vectors["category_code"].to_numpy(), return_inverse=True)
    factors = np.exp(np.random.default_rng(3).uniform(-np.log(2), np.log(2), len(codes)))
    return factors[place]


PLANTED = {
    "amount": Drift("amount × 1.3", ("amount", "amount_log"), change=dearer),
    "merchants": Drift("new merchant mix (shares × ½ to 2)", ("category_code",), likely=another_mix),
    "night": Drift("night share doubled", ("is_night",), likely=more_nights),
    "dead": Drift(f"dead feature (`{DEAD}` is 0)", (DEAD,), change=dead),
    "nulls": Drift(f"nulls ({NULLS:.0%} of `{SPARSE}`)", (f"{SPARSE} is null",), change=nulls),
}


@dataclass(frozen=True)
class World:
    """Payments as a model sees them, in time order: vectors (float32, null as NaN), whether they were fraud, the model.

    `days` is each payment's time, in days since the first.
    """

    vectors: pd.DataFrame
    fraud: npt.NDArray[np.int8]
    days: npt.NDArray[np.float64]
    model: Any

    def draw(self, rows: int, random: Random, drift: str | None = None) -> pd.DataFrame:
        """Rows drawn with replacement, with scores, decisions and labels; a drift is planted where one is named."""
        planted = None if drift is None else PLANTED[drift]
        weights = None if planted is None else planted.likely(self.vectors)
        chances = None if weights is None else weights / weights.sum()
        places = random.choice(len(self.vectors), rows, p=chances)
        drawn = self.vectors.iloc[places].reset_index(drop=True)
        if planted is not None:
            planted.change(drawn, random)
        return self._decided(drawn, places)

    def between(self, first: float, last: float, rows: int) -> pd.DataFrame:
        """At most `rows` payments of the days [first, last), evenly spread, with scores, decisions and labels."""
        inside = np.flatnonzero((self.days >= first) & (self.days < last))
        places = inside[np.unique(np.linspace(0, len(inside) - 1, min(rows, len(inside))).round().astype(int))]
        return self._decided(self.vectors.iloc[places].reset_index(drop=True), places)

    def _decided(self, vectors: pd.DataFrame, places: npt.NDArray[np.intp]) -> pd.DataFrame:
        scores = self.scores_of(vectors)
        review, decline = self.cuts
        decisions = np.select([scores >= decline, scores >= review], ["decline", "review"], "approve")
        return vectors.assign(**{SCORE: scores, DECISION: decisions, LABEL: self.fraud[places]})

    def scores_of(self, vectors: pd.DataFrame) -> npt.NDArray[np.float64]:
        """The model's fraud probabilities."""
        return np.asarray(self.model.predict_proba(vectors.to_numpy(np.float32))[:, 1], np.float64)

    @cached_property
    def cuts(self) -> tuple[float, float]:
        """Where reviews and declines begin."""
        review, decline = np.quantile(self.scores_of(self.vectors), [1 - REVIEWED - DECLINED, 1 - DECLINED])
        return float(review), float(decline)
