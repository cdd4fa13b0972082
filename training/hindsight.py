"""Past payments scored again as they would have been then, stretch after stretch, several at once where asked.

Invariant: a vector holds what had arrived by its payment, and the payment's own label has no part in it. What stays of
a stretch is a few columns; its vectors are gone when it is done.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from feature_repo import sources
from feature_repo.historical import KEYS, REQUEST, vectors
from feature_repo.schema import LABEL_DELAY, LABEL_PUBLICATION, category_or_other
from feature_repo.settings import Settings
from feature_repo.store import feature_store
from training.registered import Registered

THEN, NOW = "fraud_then", "fraud_now"
"""Whether a payment was known as fraud when its day's labels were due, and as is known now; null where unknown."""

Stretch = tuple[datetime, datetime]


def score_column(model: Registered) -> str:
    """The column of a version's scores."""
    return f"score_{model.version}"


def payments(store: Any, current: Settings, begin: datetime, end: datetime) -> pd.DataFrame:
    """The payments of [begin, end), each once, in time order, as the service takes them."""
    source, wanted = store.get_data_source("transactions"), [*KEYS, *REQUEST, "timestamp"]
    rows = sources.read(source, current.offline_path, wanted, begin, end).to_pandas()
    rows = rows.drop_duplicates("transaction_id").sort_values(["timestamp", "transaction_id"], ignore_index=True)
    return rows.assign(merchant_category=rows["merchant_category"].map(category_or_other, na_action="ignore"))


def labels(store: Any, current: Settings, begin: datetime, end: datetime, delay: timedelta) -> pd.DataFrame:
    """`THEN` and `NOW` of the payments of [begin, end), by transaction_id.

    A day's labels are due at the first publication `delay` after its end: what is said later is hindsight.
    """
    source, wanted = store.get_data_source("labels"), ["transaction_id", "timestamp", "is_fraud", "known_at"]
    said = sources.read(source, current.offline_path, [*wanted, "published_at"], begin, end, timestamp="timestamp")
    rows = said.to_pandas().sort_values(["published_at", "known_at"], kind="stable")
    due = rows["timestamp"].dt.floor("D") + timedelta(days=1) + delay + LABEL_PUBLICATION
    by_then = rows[rows["published_at"] <= due].groupby("transaction_id")["is_fraud"].last()
    now = rows.groupby("transaction_id")["is_fraud"].last()
    return pd.DataFrame({THEN: by_then.reindex(now.index), NOW: now})


@dataclass(frozen=True)
class Scorer:
    """Scores stretches of one history with the same versions. A process that works on its own gets it whole."""

    settings: Settings
    models: tuple[Registered, ...]
    delay: timedelta = LABEL_DELAY

    def score(self, stretch: Stretch) -> pd.DataFrame:
        """The stretch's payments: keys, timestamp, amount, `THEN`, `NOW`, and each version's `score_column`."""
        store = feature_store(self.settings)
        rows = payments(store, self.settings, *stretch)
        kept = rows[[*KEYS, "timestamp", "amount"]]
        for service in dict.fromkeys(model.contract.feature_service for model in self.models):
            found, columns = vectors(store, rows, service) if len(rows) else (np.empty((0, 0), np.float32), None)
            for model in self.models:
                if model.contract.feature_service == service:
                    scores = np.empty(0) if columns is None else model.score(found, columns)
                    kept = kept.assign(**{score_column(model): scores})
        return kept.join(labels(store, self.settings, *stretch, self.delay), on="transaction_id")

    def score_all(self, stretches: Sequence[Stretch], jobs: int = 1) -> Iterator[pd.DataFrame]:
        """Each stretch's payments, in order; `jobs` processes work at once, this one alone where it is 1."""
        if jobs == 1:
            yield from map(self.score, stretches)
            return
        # A fork would take over threads and locks of Arrow, numba and onnxruntime.
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            yield from pool.map(_Here(self.settings, [_place(model) for model in self.models], self.delay), stretches)


def _place(model: Registered) -> tuple[str, str, Any]:
    return model.name, model.version, model.folder


@dataclass(frozen=True)
class _Here:
    """What another process is told: where the versions' files lie, not the open graphs."""

    settings: Settings
    places: list[tuple[str, str, Any]]
    delay: timedelta

    def __call__(self, stretch: Stretch) -> pd.DataFrame:
        models = tuple(Registered(*place) for place in self.places)
        return Scorer(self.settings, models, self.delay).score(stretch)
