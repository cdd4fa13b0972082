"""Data sets made ready for comparing models: history, features and training set, each in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from training.dataset import TrainingSet
from training.datasets import handbook, synthetic
from training.datasets.catalogue import load_dataset
from training.datasets.dataset import Dataset
from training.offline import offline
from training.request_model import request_columns
from training.split import HANDBOOK, Protocol, default_protocol

FOLD_STARTS = ((6, 20), (6, 27), (7, 4), (7, 11))
"""Month and day from which each published fold trains."""

FOLDS = tuple(Protocol(datetime(2018, *start, tzinfo=UTC), 7, 7, 7) for start in FOLD_STARTS)


TUNED = {"xgboost": {"n_estimators": 400, "max_depth": 6}}
"""For generated histories, found on seeds 101 to 103: five kinds of fraud want more splits than the Handbook."""


@dataclass(frozen=True)
class Comparison:
    """A data set with its features, and the splits over it that are asked about."""

    dataset: str
    data: TrainingSet
    protocols: tuple[Protocol, ...]
    request_columns: tuple[str, ...]


Protocols = Callable[[str, pd.Series], tuple[Protocol, ...]]


def one_protocol(name: str, timestamps: pd.Series) -> tuple[Protocol, ...]:
    """The split that training takes where nobody says another."""
    return (default_protocol(name, timestamps),)


def handbook_protocols(name: str, timestamps: pd.Series) -> tuple[Protocol, ...]:
    """The published folds, and chapter 3's split as the last."""
    return (*FOLDS, HANDBOOK)


def named(name: str, folder: Path) -> Dataset:
    """A data set by name or from a file, as every other command takes it."""
    return load_dataset(name, folder)


def generated(rows: int, seed: int, days: int) -> Dataset:
    """A generated history."""
    return synthetic.load(rows, seed, days)


def has_handbook(folder: Path) -> bool:
    """Whether the published rows are there."""
    return (folder / handbook.FILE).is_file()


def comparison(dataset: Dataset, home: Path, protocols: Protocols) -> Comparison:
    """Load the data set below `home` and make the training set that its splits need, as of each payment."""
    splits = protocols(dataset.name, dataset.transactions["timestamp"])
    begin, end = min(p.train_start for p in splits), max(p.test_end for p in splits)
    made = offline(dataset, home, begin, end)
    return Comparison(dataset.name, made.data, splits, request_columns(made.store))
