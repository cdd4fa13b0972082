"""The stream's own way into history: what is decided on today is what models train on tomorrow.

A consumer of its own, so that what history waits for holds up no feature's acknowledgement. By default it runs inside
the velocity job; under load it is better as a process of its own: `FRAUD_HISTORY_APART=true` for the velocity job, and
beside it `python -m bytewax.run stream_jobs.history`.

A record is acknowledged once it lies in a part of the table; the part is named after its first record, so that one
written again after a crash replaces itself or adds rows that the readers of history count once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from feature_repo.schema import HISTORY_SCHEMA, TIMESTAMP, category_or_other
from feature_repo.settings import Settings, settings
from feature_repo.sources import append
from feature_repo.store import feature_store
from stream_jobs.payments import by_partition, read
from stream_jobs.transports.base import Acknowledger, Record, Transport
from stream_jobs.transports.configured import transport as configured

ROWS = 20_000
"""Rows after which a part is written."""

WAIT = timedelta(seconds=1)
"""How long a row waits at most for its part."""


class _Buffer(StatefulBatchLogic[list[Record], list[Record], None]):
    """Records of one partition until there are enough for a part, or the first has waited long enough."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._due: datetime | None = None

    def on_batch(self, batch: list[list[Record]]) -> tuple[Iterable[list[Record]], bool]:
        for records in batch:
            self._records += records
        if len(self._records) >= ROWS:
            return self._flush()
        self._due = self._due or datetime.now(UTC) + WAIT
        return [], self.RETAIN

    def on_notify(self) -> tuple[Iterable[list[Record]], bool]:
        return self._flush()

    def on_eof(self) -> tuple[Iterable[list[Record]], bool]:
        return self._flush()

    def notify_at(self) -> datetime | None:
        return self._due

    def _flush(self) -> tuple[Iterable[list[Record]], bool]:
        part, self._records, self._due = self._records, [], None
        return ([part] if part else []), self.RETAIN

    def snapshot(self) -> None:
        """Nothing: unwritten records are unacknowledged, and come again."""
        return


def as_rows(records: list[Record], current: Settings) -> pa.Table:
    """The valid payments among the records, in the schema of history; the velocity job buries the others."""
    found = read(records, current.allowed_lateness, current.max_future)
    columns: dict[str, Any] = {
        "timestamp": pa.array(found.ts, pa.int64()).cast(TIMESTAMP),
        "ingested_at": pa.array(found.ingested_at()).cast(TIMESTAMP),
        "merchant_category": [category_or_other(category) for category in found.column("merchant_category")],
    }
    arrays = [columns[name] if name in columns else found.column(name) for name in HISTORY_SCHEMA.names]
    return pa.table(arrays, schema=HISTORY_SCHEMA)


class _PartSink(DynamicSink[tuple[str, list[Record]]]):
    def __init__(self, transport: Transport, current: Settings) -> None:
        self._transport, self._settings = transport, current

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSinkPartition[Any]:
        return _Parts(self._transport.acknowledger(), self._settings)


class _Parts(StatelessSinkPartition[tuple[str, list[Record]]]):
    def __init__(self, acknowledger: Acknowledger, current: Settings) -> None:
        self._acknowledger, self._settings = acknowledger, current

    @cached_property
    def _table(self) -> Any:
        return feature_store(self._settings).get_data_source("transactions")

    def write_batch(self, items: list[tuple[str, list[Record]]]) -> None:
        for partition, records in items:
            rows = as_rows(records, self._settings)
            if rows.num_rows:
                name = re.sub(r"[^\w.-]", "_", f"{partition}-{records[0].id}")
                append(self._table, self._settings.offline_path, rows, name)
            self._acknowledger.acknowledge(partition, [record.id for record in records])

    def close(self) -> None:
        self._acknowledger.close()


def write_history(flow: Dataflow, transport: Transport, current: Settings) -> None:
    """Add to a flow the steps that carry the transport's records into the table `transactions`."""
    records = op.input("history records", flow, transport.source())
    # Record
    keyed = op.flat_map_batch("by partition", records, by_partition)
    # (partition, [Record])
    parts = op.stateful_batch("buffer", keyed, lambda _: _Buffer())
    # (partition, [Record])
    op.output("history", parts, _PartSink(transport, current))


flow = Dataflow("history")
write_history(flow, configured(settings(), settings().history_group), settings())
