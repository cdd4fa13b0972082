"""The label history as it is read: of each payment the newest statement that was published by then.

The table `labels` is append-only, so a payment whose label was corrected has several rows. Whoever wants one label of
each payment asks here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pandas as pd
from feast.errors import DataSourceObjectNotFoundException

from feature_repo import sources
from feature_repo.settings import Settings


def known_labels(store: Any, current: Settings, as_of: datetime | None = None) -> pd.DataFrame:
    """`transaction_id` and `is_fraud`, a row for each payment that has a label published by `as_of` (default: any).

    Of two statements published at once, the one that was known later counts. Raises `sources.MissingTable`.
    """
    columns = ["transaction_id", "is_fraud", "known_at", "published_at"]
    rows = sources.read(store.get_data_source("labels"), current.offline_path, columns).to_pandas()
    if as_of is not None:
        rows = rows[rows["published_at"] <= as_of]
    if rows["transaction_id"].duplicated().any():
        rows = rows.sort_values(["published_at", "known_at"], kind="stable").drop_duplicates(
            "transaction_id", keep="last"
        )
    return rows[["transaction_id", "is_fraud"]].reset_index(drop=True)


def labels_between(store: Any, current: Settings, begin: datetime, end: datetime, as_of: datetime) -> pd.DataFrame:
    """`transaction_id`, `card_id`, `timestamp`, `is_fraud` of the payments of [begin, end) labelled by `as_of`.

    Of each payment the newest statement; no row where there is no label history at all, or no feature store yet.
    """
    columns = ["transaction_id", "card_id", "timestamp", "is_fraud"]
    asked = [*columns, "known_at", "published_at"]
    try:
        source = store.get_data_source("labels")
        rows = sources.read(source, current.offline_path, asked, begin, end, timestamp="timestamp").to_pandas()
    except (sources.MissingTable, DataSourceObjectNotFoundException):
        return pd.DataFrame(columns=columns)
    rows = rows[rows["published_at"] <= as_of].sort_values(["published_at", "known_at"], kind="stable")
    return rows.drop_duplicates("transaction_id", keep="last")[columns].reset_index(drop=True)
