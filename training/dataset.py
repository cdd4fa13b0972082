"""Training sets: the transactions of a period with their features as of each payment, through Feast's own retrieval."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo import sources
from feature_repo.historical import KEYS, REQUEST, vectors
from feature_repo.settings import Settings
from monitoring.labels import known_labels

NEW_FOR = timedelta(days=30)
"""So long after its first payment a card is new."""


@dataclass(frozen=True)
class TrainingSet:
    """`rows` (transaction_id, card_id, merchant_id, timestamp, amount, channel, card_days, is_fraud) and their vectors.

    `card_days` is the time since the card's first payment, in days; null where history begins too late to tell a card
    that is new from one that is not (`NEW_FOR`). `vectors` is float32 (rows, columns), null as NaN, in the order of
    `columns`; row by row.
    """

    rows: pd.DataFrame
    vectors: npt.NDArray[np.float32]
    columns: tuple[str, ...]
    seconds: float = 0.0
    """What the retrieval took."""

    def where(self, mask: pd.Series) -> TrainingSet:
        """The rows for which `mask` holds."""
        chosen = mask.to_numpy(bool)
        return TrainingSet(self.rows[chosen].reset_index(drop=True), self.vectors[chosen], self.columns)


def training_set(store: Any, current: Settings, begin: datetime, end: datetime) -> TrainingSet:
    """Every labelled transaction of [begin, end), ordered by time."""
    source = store.get_data_source("transactions")
    wanted = [*KEYS, *REQUEST, "timestamp"]
    transactions = sources.read(source, current.offline_path, wanted, begin, end).to_pandas()
    labels = known_labels(store, current)
    rows = transactions.drop_duplicates("transaction_id").merge(labels, on="transaction_id", validate="one_to_one")
    rows = rows.sort_values(["timestamp", "transaction_id"], ignore_index=True)
    if rows.empty:
        raise LookupError(f"No labelled transaction lies in [{begin:%F}, {end:%F}). Load history that covers it.")
    began = time.perf_counter()
    matrix, ordered = vectors(store, rows)
    seconds = time.perf_counter() - began
    rows = rows.assign(is_fraud=rows["is_fraud"].astype("int8"), card_days=_card_days(source, current, rows, end))
    kept = rows[[*KEYS, "timestamp", "amount", "channel", "card_days", "is_fraud"]]
    return TrainingSet(kept, matrix, ordered, seconds)


def _card_days(source: Any, current: Settings, rows: pd.DataFrame, end: datetime) -> pd.Series:
    """Days from the first payment of each row's card, in all history, to the row's own."""
    with sources.scan(source, current.offline_path, ["card_id", "timestamp"], None, end) as reader:
        firsts = [part.to_pandas().groupby("card_id")["timestamp"].min() for part in reader]
    first = pd.concat(firsts).groupby(level=0).min()
    days = (rows["timestamp"] - rows["card_id"].map(first)).dt.total_seconds() / 86_400
    return days.where(rows["timestamp"] >= first.min() + NEW_FOR)
