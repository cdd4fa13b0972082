"""History into the offline store: a data set's transactions and labels, as named parts that can be taken out again.

The rows keep their own arrival times, so a training set sees of them what could have been known at each payment.
`python -m training.backfill --dataset handbook` loads all of it; see `training.batch` for what follows from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pandas as pd
import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from feature_repo import sources
from feature_repo.schema import HISTORY_SCHEMA, LABEL_DELAY, LABEL_PUBLICATION, LABEL_SCHEMA
from feature_repo.settings import Settings, settings
from feature_repo.store import apply, feature_store
from training import batch
from training.datasets.catalogue import load_dataset
from training.validate import require, validate

TABLES = ("transactions", "labels", "card_profiles")


def label_rows(transactions: pd.DataFrame, delay: timedelta = LABEL_DELAY) -> pa.Table:
    """Each transaction's label, known at its event time + `delay` and published at the next hourly batch."""
    known = transactions["timestamp"] + delay
    labels = transactions[["transaction_id", "card_id", "merchant_id", "timestamp"]].assign(
        known_at=known,
        published_at=known.dt.ceil(LABEL_PUBLICATION),
        is_fraud=transactions["is_fraud"].astype("float64"),
    )
    return pa.Table.from_pandas(labels, schema=LABEL_SCHEMA, preserve_index=False)


def load(
    transactions: pd.DataFrame, current: Settings, part: str, written: Callable[[str], object] = lambda table: None
) -> int:
    """Write transactions and their labels as a part of the tables, replacing it; returns the number of rows.

    `transactions` has the columns of `HISTORY_SCHEMA` and `is_fraud`, timestamps in UTC. `written` is told the name of
    each table as soon as it is.
    """
    store = feature_store(current)
    found = {name: store.get_data_source(name) for name in ("transactions", "labels")}

    def write(name: str) -> int:
        rows = label_rows(transactions) if name == "labels" else _history_rows(transactions)
        sources.append(found[name], current.offline_path, rows, part)
        written(name)
        return int(rows.num_rows)

    with ThreadPoolExecutor(len(found)) as pool:  # the tables don't wait for each other, here or in Postgres
        rows, _ = pool.map(write, found)
    return rows


def _history_rows(transactions: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(transactions[HISTORY_SCHEMA.names], schema=HISTORY_SCHEMA, preserve_index=False)


def unload(current: Settings, part: str) -> None:
    """Take a part out of every table again."""
    store = feature_store(current)
    for name in TABLES:
        sources.remove(store.get_data_source(name), current.offline_path, part)


def main() -> None:
    """Validate a data set and load all of it, with the card profiles of every midnight within it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", help="handbook, sparkov, synthetic or a file; default: what FRAUD_DATA holds")
    arguments = parser.parse_args()
    current, console = settings(), Console()
    layout = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*layout, console=console, transient=True) as progress:
        task = progress.add_task("reading", total=6)

        def next_is(step: str) -> None:
            progress.update(task, description=step, advance=1)

        dataset = load_dataset(arguments.dataset, current.data)
        next_is("validating")
        require(validate(dataset))
        next_is("feast apply")
        apply(current)
        next_is(f"writing {len(dataset.transactions):,} transactions and their labels")
        rows = load(dataset.transactions, current, dataset.name, lambda _: progress.advance(task))
        next_is("publishing card profiles")
        stamps = dataset.transactions["timestamp"]
        first, end = (stamp.to_pydatetime() for stamp in (stamps.min().ceil("D"), stamps.max().ceil("D")))
        batch.publish(current, batch.midnights(first, end), dataset.profiles, dataset.name)
    console.print(f"Loaded {rows:,} transactions of {dataset.name} into the offline store")


if __name__ == "__main__":
    main()
