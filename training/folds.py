"""Prequential folds: each is fitted on days before those it is judged on, with the label delay between them.

Source: Fraud Detection Handbook, chapter 5 (prequential validation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pandas as pd

from training.dataset import TrainingSet
from training.split import Protocol

FOLDS = 4


class NoFolds(ValueError):
    """A history too short for the folds that were asked for, or a fold with one class alone."""


@dataclass(frozen=True)
class Fold:
    """The rows of a fold. No card of `test` was known to be compromised on the day of its payment."""

    protocol: Protocol
    train: TrainingSet
    test: TrainingSet


def prequential(protocol: Protocol, count: int = FOLDS, since: datetime | None = None) -> list[Protocol]:
    """`count` protocols, the earliest first; what each tests is known when `protocol` goes live.

    The last one's test days end with the training days of `protocol`; each one before is earlier by the days it tests.
    They are as many as it trains on: those of `protocol`, or fewer where folds of that length would begin before
    `since`. Raises `NoFolds` where there is no room for folds of a day.
    """
    if count < 1:
        raise NoFolds(f"{count} folds were asked for; must be at least one.")
    days = protocol.train_days
    if since is not None:
        room = (protocol.train_end - since) // timedelta(days=1) - protocol.delay_days
        days = min(days, room // (count + 1))
        if days < 1:
            raise NoFolds(
                f"Between {since:%F} and the last training day, {protocol.train_end - timedelta(days=1):%F}, there is "
                f"no room for {count} folds with {protocol.delay_days} days of delay. Ask for fewer, or load more "
                "history."
            )
    last = protocol.train_end - timedelta(days=2 * days + protocol.delay_days)
    starts = [last - n * timedelta(days=days) for n in reversed(range(count))]
    return [Protocol(start, days, protocol.delay_days, days) for start in starts]


def split(data: TrainingSet, protocols: Sequence[Protocol]) -> list[Fold]:
    """The rows of each fold; raises `NoFolds` where one has a single class on either side."""
    found = []
    for protocol in protocols:
        fold = Fold(protocol, data.where(protocol.train(data.rows)), data.where(protocol.test(data.rows)))
        for days, part in (("training", fold.train.rows), ("test", fold.test.rows)):
            _require_both(protocol, days, part["is_fraud"])
        found.append(fold)
    return found


def _require_both(protocol: Protocol, days: str, fraud: pd.Series) -> None:
    if fraud.nunique() < 2:
        raise NoFolds(
            f"The {days} days of the fold from {protocol.train_start:%F} hold {len(fraud)} payments and "
            f"{int(fraud.sum())} frauds; must hold both. Use longer folds, or a larger data set."
        )
