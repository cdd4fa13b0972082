"""Prequential folds: each is fitted on days before those it is judged on, with the label delay between them.

Source: Fraud Detection Handbook, chapter 5 (prequential validation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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

    The last one's test days are the training days of `protocol`; each one before is earlier by the days it tests. None
    trains on anything before `since`, which raises `NoFolds`.
    """
    last, step = protocol.earlier(), timedelta(days=protocol.train_days)
    found = [replace(last, train_start=last.train_start - n * step) for n in reversed(range(count))]
    if count < 1:
        raise NoFolds(f"{count} folds were asked for; must be at least one.")
    if since is not None and found[0].train_start < since:
        raise NoFolds(
            f"{count} folds before {protocol.train_start:%F} begin on {found[0].train_start:%F}; must begin "
            f"on {since:%F} or later. Ask for fewer, or load more history."
        )
    return found


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
