"""What a history holds, as a short text: two that agree give the same training set, whatever files they lie in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import duckdb

from feature_repo import sources
from feature_repo.settings import Settings

TABLES = ("transactions", "labels", "card_profiles")


def of_history(store: Any, current: Settings, end: datetime) -> str:
    """A digest of everything before `end` that a training set can depend on, in 16 hexadecimal digits.

    The order of the rows doesn't count, nor which part they came with; a table that isn't there counts as empty. All
    rows are read once, in batches.
    """
    return of_texts(f"{name} {_table(store, current, name, end)}" for name in TABLES)


def of_texts(texts: Iterable[str]) -> str:
    """A digest of texts in their order, in 16 hexadecimal digits."""
    found = hashlib.blake2b(digest_size=8)
    for text in texts:
        found.update(hashlib.blake2b(text.encode()).digest())
    return found.hexdigest()


def _table(store: Any, current: Settings, name: str, end: datetime) -> tuple[int, int]:
    """How many rows there are, and the sum of their hashes."""
    source = store.get_data_source(name)
    stamp = "timestamp" if name == "labels" else source.timestamp_field  # a label is about its payment's instant
    try:
        columns = sorted(sources.schema(source, current.offline_path).names)
    except sources.MissingTable:
        return 0, 0
    with (
        sources.scan(source, current.offline_path, columns, None, end, timestamp=stamp) as reader,
        duckdb.connect() as connection,
    ):
        connection.execute("SET TimeZone = 'UTC'")
        query = "SELECT count(*), coalesce(sum(CAST(hash(r) AS HUGEINT)), 0) FROM history r"
        rows, total = connection.register("history", reader).sql(query).fetchall()[0]
    return int(rows), int(total)
