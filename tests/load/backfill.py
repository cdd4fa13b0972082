"""What it costs to have all features of a whole history: for every payment of it, and for the online store.

Seconds are those of `training.backfill.load` (history into the offline store), `training.batch.publish` (the cards'
profiles of every midnight) and the retrieval of the service's features for every payment; reading the published file
and checking it against the schema is not in it. Each history has its own process and its own offline store.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from feature_repo.historical import entity_rows, vectors
from feature_repo.settings import Settings, settings
from feature_repo.store import apply
from feature_repo.vector import FEATURE_SERVICE, columns, to_vector
from feature_repo.windows import DAY
from monitoring.processes import Platform, at_free_ports
from tests.load.apart import apart
from tests.load.payments import ALIKE, PER_DAY, Payments, payments
from tests.load.sizes import Sizes
from training import backfill, batch
from training.datasets.catalogue import load_dataset

SPAN_DAYS = 136
"""Days of a generated history, as many as the Handbook has: more events are more cards and merchants."""

PART = 1_000_000
"""Rows loaded at a time."""

VIEWS = ["card_velocity", "merchant_velocity", *batch.BATCH_VIEWS]


def measure(sizes: Sizes) -> dict[str, Any]:
    """The data set in full, and the cost of an event as generated histories grow."""
    found = apart(whole_dataset, sizes=asdict(sizes))
    per_event = {str(events): apart(per_event_us, events=events, merchants=ALIKE) for events in sizes.backfill_events}
    skewed = {str(events): apart(per_event_us, events=events, merchants={})["us"] for events in sizes.backfill_skewed}
    return {
        **found,
        "per_event_us": {events: cost["us"] for events, cost in per_event.items()},
        "per_event_peak_mb": {events: cost["peak_mb"] for events, cost in per_event.items()},
        "per_event_us_skewed": skewed,
    }


def whole_dataset(sizes: dict[str, Any]) -> dict[str, Any]:
    """The Handbook's history where FRAUD_DATA has it, else a generated one of that size: vectors and online states."""
    dataset = load_dataset(sizes["dataset"], settings().data, rows=sizes["dataset_events"])
    rows = dataset.transactions
    with (
        TemporaryDirectory(prefix="tollgate-bench-") as home,
        Platform(at_free_ports(Settings(home=Path(home)))) as platform,
    ):
        platform.start("redis")
        store = apply(platform.settings)
        first_run(store, platform.settings, rows)
        steps = _Steps()
        backfill.load(rows, platform.settings, "history")
        steps.done("load_seconds")
        first, last = (rows["timestamp"].iloc[place].to_pydatetime() for place in (0, -1))
        batch.publish(platform.settings, batch.midnights(first, last), dataset.profiles, "history")
        steps.done("profiles_seconds")
        found, _ = vectors(store, rows)
        steps.done("vectors_seconds")
        total = sum(steps.seconds.values())
        batch.put_online(store, first, last, VIEWS)
        steps.done("rebuild_online_seconds")
        return {
            "dataset": f"{dataset.name} ({dataset.origin})",
            "events": len(rows),
            "features": int(found.shape[1]),
            "seconds": round(total, 2),
            **{name: round(seconds, 2) for name, seconds in steps.seconds.items()},
        }


def per_event_us(events: int, merchants: dict[str, Any]) -> dict[str, float]:
    """Microseconds for each event of a generated history, from its rows to the vectors of all of them."""
    drawn = payments(events, max(events // (SPAN_DAYS * PER_DAY), 1), **merchants)
    with TemporaryDirectory(prefix="tollgate-bench-") as home:
        current = Settings(home=Path(home))
        store = apply(current)
        first_run(store, current, drawn.frame(0, 1_000))
        seconds = load(current, drawn)
        rows = drawn.frame()
        began = time.perf_counter()
        done = _vectors_in_batches(store, rows)
        seconds += time.perf_counter() - began
    if done != events:
        raise AssertionError(f"{events} payments went in, {done} vectors came out.")
    return {"us": round(seconds / events * 1e6, 2)}


def _vectors_in_batches(store: Any, rows: pd.DataFrame) -> int:
    """Make every row's vector and let go of it again, as for a set larger than memory; how many there were."""
    service = store.get_feature_service(FEATURE_SERVICE)
    ordered = columns(service)
    job = store.get_historical_features(entity_rows(rows), service, filter_by_created_timestamp=True)
    return sum(len(to_vector({name: part[name] for name in ordered}, ordered)) for part in job.batches())


def load(current: Settings, drawn: Payments) -> float:
    """Put generated payments with labels and weekly profiles into the offline store; returns the seconds it took."""
    seconds = 0.0
    for number, begin in enumerate(range(0, len(drawn), PART)):
        rows = drawn.frame(begin, begin + PART)
        began = time.perf_counter()
        backfill.load(rows, current, f"part-{number:04d}")
        seconds += time.perf_counter() - began
    began = time.perf_counter()
    instants = np.arange(drawn.ts[0] + DAY, drawn.ts[-1] + 1, 7 * DAY)
    midnights = [at.floor("D").to_pydatetime() for at in pd.to_datetime(instants, unit="us", utc=True)]
    batch.publish(current, midnights or batch.midnights(*_ends(drawn)), None, "history")
    return seconds + time.perf_counter() - began


def _ends(drawn: Payments) -> tuple[Any, Any]:
    first, last = pd.to_datetime(drawn.ts[[0, -1]], unit="us", utc=True)
    return first.to_pydatetime(), last.to_pydatetime()


def first_run(store: Any, current: Settings, rows: pd.DataFrame) -> None:
    """Retrieve a few rows once, so that nothing is compiled under the clock; what was loaded for it is taken out."""
    few = rows.head(1_000)
    backfill.load(few, current, "first")
    batch.publish(current, [few["timestamp"].iloc[-1].floor("D").to_pydatetime()], None, "first")
    vectors(store, few)
    backfill.unload(current, "first")


class _Steps:
    """Seconds of one step after another."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def done(self, name: str) -> None:
        """Note that the step which has just ended had this name."""
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now
