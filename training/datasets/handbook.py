"""The Fraud Detection Handbook's simulated transactions, as published, in the platform's schema.

The set knows neither category, country nor channel; they are null. Its 32 payments of 0.00 become 0.01, the smallest
amount there is otherwise: the schema has no zero amount, and the published protocol counts every row.
`TX_FRAUD_SCENARIO` tells how a fraud was made and is never read.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from training.datasets.dataset import Dataset, conform
from training.datasets.source import read_columns

NAME = "handbook"
FILE = "handbook.parquet"
SMALLEST_AMOUNT = 0.01
ADJUSTED_AMOUNTS = f"amounts of 0 raised to {SMALLEST_AMOUNT}"

COLUMNS = {
    "TRANSACTION_ID": "transaction_id",
    "TX_DATETIME": "timestamp",
    "CUSTOMER_ID": "card_id",
    "TERMINAL_ID": "merchant_id",
    "TX_AMOUNT": "amount",
    "TX_FRAUD": "is_fraud",
}


def load(folder: Path) -> Dataset:
    """Load `handbook.parquet` from the folder.

    Raises `UnreadableSource` where the file or a column is missing.
    """
    return adapt(read_columns(folder / FILE, COLUMNS))


def adapt(published: pd.DataFrame) -> Dataset:
    """Map a frame with the published columns; its naive times are UTC and its integer ids become text.

    Raises `InvalidDataset` for rows outside the schema, negative amounts included.
    """
    rows = published[list(COLUMNS)].rename(columns=COLUMNS)
    zero = rows["amount"] == 0
    rows["amount"] = rows["amount"].mask(zero, SMALLEST_AMOUNT)
    adjustments = {ADJUSTED_AMOUNTS: int(zero.sum())} if zero.any() else {}
    return conform(rows, name=NAME, origin="third-party", assume_utc=True, adjustments=adjustments)
