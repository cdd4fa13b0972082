"""A training set from nothing but a data set: history, profiles and features in a folder of its own, no server."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from feature_repo.settings import Settings
from feature_repo.store import apply
from training import backfill, batch
from training.dataset import TrainingSet, training_set
from training.datasets.dataset import Dataset


@dataclass(frozen=True)
class Offline:
    """The data set's rows of a period with their features, and the Feast store that they are from."""

    dataset: str
    data: TrainingSet
    store: Any


def offline(dataset: Dataset, home: Path, begin: datetime, end: datetime) -> Offline:
    """The training set of [begin, end), as of each payment, from all of the data set's history before `end`.

    `home` is a folder that holds no other history; raises `LookupError` where no payment lies in the period.
    """
    current = Settings(home=home)
    payments = dataset.transactions
    store = apply(current)
    backfill.load(payments[payments["timestamp"] < end], current, "history")
    batch.publish(current, batch.midnights(begin, end), dataset.profiles, "history")
    return Offline(dataset.name, training_set(store, current, begin, end), store)
