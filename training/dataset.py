"""Training sets: the transactions of a period with their features as of each payment, through Feast's own retrieval."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo import sources
from feature_repo.historical import KEYS, REQUEST, vectors
from feature_repo.settings import Settings
from monitoring.labels import known_labels


@dataclass(frozen=True)
class TrainingSet:
    """`rows` (transaction_id, card_id, merchant_id, timestamp, amount, is_fraud) and their vectors, row by row.

    `vectors` is float32 (rows, columns), null as NaN, in the order of `columns`.
    """

    rows: pd.DataFrame
    vectors: npt.NDArray[np.float32]
    columns: tuple[str, ...]

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
    matrix, ordered = vectors(store, rows)
    kept = rows[[*KEYS, "timestamp", "amount", "is_fraud"]].assign(is_fraud=rows["is_fraud"].astype("int8"))
    return TrainingSet(kept, matrix, ordered)
