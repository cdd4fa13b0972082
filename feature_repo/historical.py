"""The model's vectors as of past payments, through Feast's own retrieval: training and audits both ask here."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.context import AT
from feature_repo.vector import FEATURE_SERVICE, columns, to_vector

REQUEST = ["amount", "merchant_category", "country", "channel"]
KEYS = ["transaction_id", "card_id", "merchant_id"]


def entity_rows(transactions: pd.DataFrame) -> pd.DataFrame:
    """Transactions in the form in which Feast takes them: keys, event time, and the request's own fields."""
    frame = transactions[[*KEYS, *REQUEST]].copy()
    frame["event_timestamp"] = transactions["timestamp"]
    frame[AT] = transactions["timestamp"].astype("datetime64[us, UTC]").astype("int64")
    return frame


def vectors(
    store: Any, transactions: pd.DataFrame, feature_service: str = FEATURE_SERVICE
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Vectors (float32, rows × columns, null as NaN) from what was known at each transaction, and their columns.

    `transactions` has `KEYS`, `REQUEST` and `timestamp` (UTC); rows come out in the order in which they went in.
    """
    service = store.get_feature_service(feature_service)
    ordered = columns(service)
    job = store.get_historical_features(entity_rows(transactions), service, filter_by_created_timestamp=True)
    found = np.empty((len(transactions), len(ordered)), np.float32)
    end = 0
    for batch in job.batches():  # the whole in float64 would take twice the memory of the answer, and more
        begin, end = end, end + batch.num_rows
        found[begin:end] = to_vector({name: batch[name] for name in ordered}, ordered)
    if end != len(transactions):
        raise AssertionError(f"{len(transactions)} transactions went in, {end} rows came out.")
    return found, ordered
