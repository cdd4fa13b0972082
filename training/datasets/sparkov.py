"""Rows made with the Sparkov generator, in the platform's schema.

The category's suffix gives the channel (`_net` online, `_pos` at the counter, otherwise unknown), every payment is
made in the United States and the `fraud_` that every merchant's name begins with, honest or not, is cut off. The set
does not say when an account was opened; the first payment would be a guess that reads the future, so it is null.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from training.datasets.dataset import Dataset, InvalidDataset, Problem, conform
from training.datasets.profiles import conform_profiles
from training.datasets.source import read_columns

NAME = "sparkov"
FILE = "sparkov.parquet"
COUNTRY, CURRENCY = "US", "USD"
REPEATED_ROWS = "rows repeated word for word left out"

COLUMNS = {
    "trans_num": "transaction_id",
    "trans_ts": "timestamp",
    "cc_num": "card_id",
    "merchant": "merchant_id",
    "amt": "amount",
    "category": "merchant_category",
    "dob": "dob",
    "is_fraud": "is_fraud",
}
CHANNELS = {"net": "online", "pos": "pos"}
_SUFFIX = re.compile(r"_(net|pos)$")


def load(folder: Path) -> Dataset:
    """Load `sparkov.parquet` from the folder.

    Raises `UnreadableSource` where the file or a column is missing.
    """
    return adapt(read_columns(folder / FILE, COLUMNS))


def adapt(generated: pd.DataFrame) -> Dataset:
    """Map a frame with the generator's columns; its naive times are UTC.

    A row repeated word for word counts once (the count is in `adjustments`). Raises `InvalidDataset` where rows of
    one `trans_num` differ, or for rows outside the schema.
    """
    rows = generated[list(COLUMNS)].rename(columns=COLUMNS).reset_index(drop=True)
    rows, repeated = _without_repeats(rows)
    categories = rows["merchant_category"]
    known = categories.dropna().unique()
    rows = rows.assign(
        merchant_category=categories.map({word: _SUFFIX.sub("", word) for word in known}),
        channel=categories.map({word: CHANNELS.get(word.rpartition("_")[2]) for word in known}),
        merchant_id=rows["merchant_id"].str.removeprefix("fraud_"),
        country=COUNTRY,
        currency=CURRENCY,
    )
    cards = rows[["card_id", "dob"]].drop_duplicates()
    cards = cards.assign(home_country=COUNTRY, birth_year=pd.to_datetime(cards["dob"]).dt.year)
    profiles = conform_profiles(cards, name=NAME)
    adjustments = {REPEATED_ROWS: repeated} if repeated else {}
    return conform(rows, name=NAME, origin="third-party", profiles=profiles, assume_utc=True, adjustments=adjustments)


def _without_repeats(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    shared = rows["transaction_id"].duplicated(keep=False)
    if not shared.any():
        return rows, 0
    surplus = rows[shared].duplicated()
    kept = rows.drop(index=surplus.index[surplus])
    clash = kept["transaction_id"].duplicated()
    if clash.any():
        examples = tuple(map(repr, kept.loc[clash, "transaction_id"].unique()[:5].tolist()))
        rule = "must be unique, and differing rows share it"
        raise InvalidDataset(NAME, [Problem("trans_num", rule, int(clash.sum()), examples)])
    return kept, int(surplus.sum())
