"""Labels on their way into history, through Feast's own push; a row is never changed, a later one supersedes it.

Instants: `known_at` is when the platform came to know, `published_at` the full hour from which the row can be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import sources
from feature_repo.schema import LABEL_DELAY, LABEL_PUBLICATION, LABEL_SCHEMA
from feature_repo.settings import Settings

STREAM = "labels_stream"
"""The push source of the labels."""

LOOK_BACK = timedelta(days=30)
"""How far back a job that starts for the first time looks for payments that nobody disputed."""

PAYMENT = ("transaction_id", "card_id", "merchant_id", "timestamp")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Paid(NamedTuple):
    """The payment that a label is about."""

    card_id: str
    merchant_id: str
    timestamp: datetime


class Label(NamedTuple):
    """One row of the label history."""

    transaction_id: str
    card_id: str
    merchant_id: str
    timestamp: datetime
    known_at: datetime
    published_at: datetime
    is_fraud: float


def publication(instant: datetime) -> datetime:
    """The publication at or after an instant: the next full hour, UTC."""
    return _EPOCH - (_EPOCH - instant) // LABEL_PUBLICATION * LABEL_PUBLICATION


def ensure_table(store: Any, current: Settings) -> None:
    """Have the table there, if need be without a row: Feast asks it for its columns before it writes."""
    source = store.get_data_source("labels")
    try:
        sources.schema(source, current.offline_path)
    except sources.MissingTable:
        sources.append(source, current.offline_path, LABEL_SCHEMA.empty_table(), "made")


def push(store: Any, labels: Sequence[Label]) -> None:
    """Append labels to history. The same labels pushed again, in the same order, are there once."""
    from feast.data_source import PushMode

    columns = zip(*labels, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, LABEL_SCHEMA, strict=True)]
    frame: pd.DataFrame = pa.table(arrays, schema=LABEL_SCHEMA).to_pandas()
    store.push(STREAM, frame, to=PushMode.OFFLINE)


def payments(store: Any, current: Settings, identifiers: Iterable[str]) -> dict[str, Paid]:
    """The payments that history has under these identifiers; goes through all of it."""
    wanted = pa.array(sorted(set(identifiers)), pa.string())
    found: dict[str, Paid] = {}
    if not len(wanted):
        return found
    try:
        with sources.scan(store.get_data_source("transactions"), current.offline_path, PAYMENT) as reader:
            for batch in reader:
                there = batch.filter(pc.is_in(batch["transaction_id"], value_set=wanted))
                for one in there.to_pylist():
                    found[one["transaction_id"]] = Paid(one["card_id"], one["merchant_id"], one["timestamp"])
    except sources.MissingTable:
        pass
    return found


def settle(store: Any, current: Settings, begin: datetime, end: datetime, now: datetime) -> int:
    """Label payments legitimate of which nobody has said anything until their label delay ended in [begin, end).

    How many those were. Doing it again, or over hours that were done, adds none.
    """
    try:
        source = store.get_data_source("transactions")
        first = begin - LABEL_DELAY
        rows = sources.read(source, current.offline_path, PAYMENT, first, end - LABEL_DELAY)
    except sources.MissingTable:
        return 0
    labels = store.get_data_source("labels")
    said = sources.read(labels, current.offline_path, ["transaction_id"], first, None)["transaction_id"]
    rows = rows.filter(pc.invert(pc.is_in(rows["transaction_id"], value_set=said.combine_chunks())))
    frame = rows.to_pandas().drop_duplicates("transaction_id")
    if frame.empty:
        return 0
    known = frame["timestamp"] + LABEL_DELAY
    published = known.dt.ceil(LABEL_PUBLICATION)
    if now - end < LABEL_PUBLICATION:
        published = published.where(published >= end, publication(now))  # the others are late: readable from now on
    else:
        published = publication(now)
    frame = frame.assign(known_at=known, published_at=published, is_fraud=0.0)
    table = pa.Table.from_pandas(frame[LABEL_SCHEMA.names], preserve_index=False).cast(LABEL_SCHEMA)
    sources.append(labels, current.offline_path, table, f"settled-{begin:%Y%m%dT%H}-{end:%Y%m%dT%H}")
    return int(table.num_rows)
