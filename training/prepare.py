"""A platform made ready from a data set: history, features, a champion, and the online store as of the test days."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pandas as pd
from rich.console import Console

from feature_repo.settings import Settings
from feature_repo.sources import MissingTable
from feature_repo.store import apply
from monitoring.supervision import PartFailed
from training import backfill, batch, train
from training.calibrate import NotCalibrated
from training.dataset import TrainingSet, training_set
from training.datasets.catalogue import load_dataset
from training.datasets.dataset import Dataset
from training.datasets.synthetic import ROWS
from training.export import ParityError
from training.first import introduce
from training.promote import Outcome, Refused
from training.split import Protocol, default_protocol
from training.validate import DataQualityError, QualityReport, require, validate

HELD_OUT = "held-out"

ALL_VIEWS = ["card_velocity", "merchant_velocity", *batch.BATCH_VIEWS]


class UnfitData(ValueError):
    """A data set from which no platform can be made: unreadable, against the schema, or too short."""


EXPECTED = (UnfitData, DataQualityError, PartFailed, MissingTable, ParityError, NotCalibrated, Refused)
"""What may go wrong without a fault in the code; the messages say what to do."""


@dataclass
class Steps:
    """What is going on, for the person who waits: each step with its time once it is done."""

    console: Console
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, bar: bool = True) -> Iterator[None]:
        began = time.perf_counter()
        if bar:
            with self.console.status(f"  {name} …"):
                yield
        else:
            yield
        self.seconds[name] = time.perf_counter() - began
        self.console.print(f"  [green]✓[/] {name} [dim]{self.seconds[name]:.1f} s[/]")


@dataclass(frozen=True)
class Prepared:
    """A platform with history, features online, and a champion."""

    dataset: Dataset
    quality: QualityReport
    protocol: Protocol
    store: Any
    data: TrainingSet
    outcome: train.Round
    promoted: Outcome
    held_out: pd.DataFrame


def prepare(
    current: Settings, start_stores: Callable[[], object], name: str | None, steps: Steps, rows: int = ROWS
) -> Prepared:
    """Load and validate a data set, backfill history up to the test days, train, register, and put features online.

    `start_stores` has Redis and MLflow ready at the addresses of the settings; it runs while the data loads. `rows` is
    the size of a generated set. The test days are in history only while the models are evaluated; afterwards they reach
    it through the stream alone. Raises one of `EXPECTED`.
    """
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(start_stores)
        with steps.step("load and validate the data"):
            with _unfit():
                dataset = load_dataset(name, current.data, rows=rows)
            quality = validate(dataset)
            require(quality)
            with _unfit():
                protocol = default_protocol(dataset.name, dataset.transactions["timestamp"])
        with steps.step("have Redis and MLflow ready"):
            starting.result()
    payments = dataset.transactions
    live = pd.Timestamp(protocol.test_start)
    held_out = payments[(payments["timestamp"] >= live) & (payments["timestamp"] < protocol.test_end)]
    with steps.step("feast apply"):
        store = apply(current)
    with steps.step("backfill history"):
        backfill.load(payments[payments["timestamp"] < live], current, "history")
        backfill.load(held_out, current, HELD_OUT)
        first, day = protocol.earlier().train_start, timedelta(days=1)
        batch.publish(current, batch.midnights(first, protocol.test_start), dataset.profiles, "history")
        later = batch.midnights(protocol.test_start + day, protocol.test_end)
        batch.publish(current, later, dataset.profiles, HELD_OUT)
    with steps.step("point-in-time training set"):
        data = training_set(store, current, first, protocol.test_end)
    with steps.step("train, compare, register"):
        outcome = train.run(current, dataset.name, protocol, data, lambda _: None)
    with steps.step("the gates of promotion"):
        promoted = introduce(current, outcome, needed=True)
    backfill.unload(current, HELD_OUT)
    with steps.step("feast materialize"):
        batch.put_online(store, payments["timestamp"].min().to_pydatetime(), protocol.test_start, ALL_VIEWS)
    return Prepared(dataset, quality, protocol, store, data, outcome, promoted, held_out)


@contextmanager
def _unfit() -> Iterator[None]:
    """What a data set is refused for, under one name."""
    try:
        yield
    except ValueError as error:
        raise UnfitData(str(error)) from error
