"""What runs every hour: labels that have become known go online, and at midnight (UTC) the cards' profiles do.

A profile stamped midnight is a function of payments before it, by the same window maths as every other feature.
`python -m training.batch --as-of 2018-08-08T00:00:00Z`
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from feature_repo import sources
from feature_repo.schema import LABEL_PUBLICATION, TIMESTAMP
from feature_repo.settings import Settings, settings
from feature_repo.store import feature_store, put_online
from feature_repo.window_history import History
from feature_repo.window_state import finish, from_us, to_us
from feature_repo.windows import DAY, WindowedFeature, WindowSpec, microseconds

SPENDING = WindowSpec(
    "card", "card_id", "transaction_id", tuple(WindowedFeature(f, "amount", 90 * DAY) for f in ("count", "mean", "std"))
)
"""What a profile says of the card's last 90 days."""

BATCH_VIEWS = ["merchant_risk", "card_profile"]
"""Views that the batch puts online; the stream job keeps the others fresh."""

PROFILE_SCHEMA = pa.schema(
    [
        pa.field("card_id", pa.string()),
        pa.field("as_of", TIMESTAMP),
        pa.field("published_at", TIMESTAMP),
        pa.field("home_country", pa.string()),
        pa.field("account_opened_us", pa.int64()),
        pa.field("birth_year", pa.int64()),
        pa.field("count_90d", pa.float64()),
        pa.field("amount_mean_90d", pa.float64()),
        pa.field("amount_std_90d", pa.float64()),
    ]
)


def midnights(begin: datetime, end: datetime) -> list[datetime]:
    """The midnights (UTC) from the last one at or before `begin` to the last at or before `end`."""
    first = begin.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return [first + timedelta(days=n) for n in range((end - first) // timedelta(days=1) + 1)]


def snapshots(current: Settings, at: Sequence[datetime], profiles: pd.DataFrame | None) -> pa.Table:
    """Profiles of every card that has paid before, one row for each card and midnight.

    `profiles` has what doesn't come from payments: home_country, account_opened, birth_year by card_id.
    """
    source = feature_store(current).get_data_source("transactions")
    columns = ["card_id", "transaction_id", "amount", source.timestamp_field]
    begin = from_us(to_us(at[0]) - SPENDING.retention)
    rows = sources.read(source, current.offline_path, columns, begin, at[-1])
    history = History.of(SPENDING, rows, source.timestamp_field, None)
    known = _attributes(history.entities, profiles)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return pa.concat_tables(pool.map(lambda midnight: _snapshot(history, known, midnight), at))


def _snapshot(history: History, known: pa.Table, midnight: datetime) -> pa.Table:
    cards = len(history.entities)
    instants = np.full(cards, to_us(midnight), np.int64)
    found = finish(SPENDING, history.slices(history.entities, instants), instants)
    count, mean, std = (found[name] for name in SPENDING.names)
    columns = {
        "card_id": history.entities,
        "as_of": pa.array([midnight] * cards, TIMESTAMP),
        "published_at": pa.array([midnight] * cards, TIMESTAMP),
        **{name: known[name] for name in ("home_country", "account_opened_us", "birth_year")},
        "count_90d": pa.array(count),
        "amount_mean_90d": pa.array(mean, from_pandas=True),
        "amount_std_90d": pa.array(std, from_pandas=True),
    }
    return pa.table(columns, schema=PROFILE_SCHEMA).filter(pa.array(count > 0))


def _attributes(cards: pa.Array, profiles: pd.DataFrame | None) -> pa.Table:
    """Home country, opening (µs) and birth year for each of `cards`, null where unknown."""
    names = ["home_country", "account_opened_us", "birth_year"]
    if profiles is None:
        return pa.table({name: pa.nulls(len(cards), PROFILE_SCHEMA.field(name).type) for name in names})
    frame = profiles.set_index("card_id").reindex(cards.to_pylist())
    opened = pa.array(frame["account_opened"], TIMESTAMP, from_pandas=True)
    return pa.table(
        {
            "home_country": pa.array(frame["home_country"], pa.string(), from_pandas=True),
            "account_opened_us": opened.cast(pa.int64()),
            "birth_year": pa.array(frame["birth_year"].astype("Int64"), pa.int64(), from_pandas=True),
        }
    )


def publish(current: Settings, at: Sequence[datetime], profiles: pd.DataFrame | None, part: str = "") -> int:
    """Write the snapshots of these midnights into history, as a part of its own; returns the number of rows."""
    source = feature_store(current).get_data_source("card_profiles")
    rows = snapshots(current, at, profiles)
    sources.append(source, current.offline_path, rows, part or f"profiles-{at[0]:%Y%m%d}-{at[-1]:%Y%m%d}")
    return int(rows.num_rows)


def run(current: Settings, store: Any, since: datetime, as_of: datetime, profiles: pd.DataFrame | None) -> None:
    """Everything due in (since, as_of]: labels that were published, and the profiles of each midnight among them."""
    due = [midnight for midnight in midnights(since, as_of) if midnight > since]
    if due:
        publish(current, due, profiles)
    put_online(store, since, as_of, BATCH_VIEWS if due else ["merchant_risk"])


def main() -> None:
    """Publish what is due."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--as-of", type=datetime.fromisoformat, help="with an offset; default: the last full hour")
    arguments = parser.parse_args()
    as_of = (arguments.as_of or datetime.now(UTC)).astimezone(UTC)
    as_of -= timedelta(microseconds=to_us(as_of) % microseconds(LABEL_PUBLICATION))
    current = settings()
    run(current, feature_store(current), as_of - LABEL_PUBLICATION, as_of, None)


if __name__ == "__main__":
    main()
