"""The joins of one historical retrieval: each gives its view's columns for any of the entity rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import sources
from feature_repo.past_events import scan_events
from feature_repo.sources import Root
from feature_repo.spill import Buckets, bucket_of, gather
from feature_repo.transformations import state_field
from feature_repo.window_history import History
from feature_repo.window_state import Ints, from_us
from feature_repo.windows import WindowSpec, is_windowed, spec_of_view

Places = slice | Ints
"""Which of the entity rows: those from one to another, or those of these numbers."""

WORKING_COPIES = 4
"""How often events are there, in bytes, while they are sorted."""


class Join(Protocol):
    """One view joined to the entity rows."""

    view: str

    def prepare(self, rows: pa.Table, folder: Path) -> None:
        """Read what the join needs for these rows, before any is asked for; `folder` takes what is too much."""

    def columns(self, rows: pa.Table, places: Places) -> dict[str, Any]:
        """The view's columns for `rows`, those of the entity rows at these places."""

    def implied(self, feature: str) -> bool:
        """Whether a feature was asked for only because an on-demand view needs it."""

    def stored(self, column: Any) -> pa.Array:
        """A column as it is stored."""


def plan_joins(
    root: Root,
    views: Sequence[Any],
    feature_refs: Sequence[str],
    registry: Any,
    project: str,
    at: Ints,
    filter_by_created: bool,
) -> list[StoredJoin | WindowedJoin]:
    """A join for each view of which `feature_refs` ("view:feature") name a feature; `at` are the rows' instants."""
    joins: list[StoredJoin | WindowedJoin] = []
    for view in views:
        name = view.projection.name_to_use()
        features = [ref.split(":", 1)[1] for ref in feature_refs if ref.split(":", 1)[0] == name]
        keys = [column.name for column in view.entity_columns]
        given = [view.projection.join_key_map.get(key, key) for key in keys]
        if is_windowed(view):
            spec = spec_of_view(view)
            joins.append(WindowedJoin(name, view, spec, given[0], root, at, filter_by_created))
        else:
            joins.append(StoredJoin(name, view, keys, given, features, root, at, filter_by_created))
    return joins


@dataclass
class WindowedJoin:
    """A view with windowed aggregations: its column is a question to the history, answered when it is finished.

    A history of more than `memory` bytes (null: whatever it takes) is divided by entity and lies on disk: then there
    are no `columns` but only `parts`, and `divided` says so.
    """

    view: str
    definition: Any
    spec: WindowSpec
    key: str
    root: Root
    at: Ints
    filter_by_created: bool
    memory: int | None = None
    _history: History | None = field(default=None, init=False)
    _buckets: Buckets | None = field(default=None, init=False)

    def prepare(self, rows: pa.Table, folder: Path) -> None:
        self._history = self._buckets = None
        if not len(self.at):
            return
        since, until = int(self.at.min()) - self.spec.retention, int(self.at.max())
        events = scan_events(self.definition.batch_source, self.root, self.spec, since, until)
        found = gather(events, self.spec.join_key, self._limit, folder / self.view)
        if isinstance(found, Buckets):
            self._buckets = found
        else:
            self._history = self._of(found)

    @property
    def divided(self) -> bool:
        return self._buckets is not None

    def columns(self, rows: pa.Table, places: Places) -> dict[str, Any]:
        if self._history is None:
            return {state_field(self.definition.name): pa.nulls(rows.num_rows, pa.binary())}
        return self.questions(self._history, rows, places)

    def parts(self, rows: pa.Table) -> Iterator[tuple[Ints, History]]:
        """Places of rows and the history that has all of their entities' events, one part in memory at a time."""
        if self._buckets is None or self._limit is None:
            raise RuntimeError(f"View '{self.view}': the history is in memory and has no parts.")
        numbers = bucket_of(rows[self.key])
        order = np.argsort(numbers, kind="stable")
        numbers = numbers[order]
        for group in self._buckets.groups(self._limit):
            begin, end = np.searchsorted(numbers, (group.start, group.stop))
            places = np.sort(order[begin:end])
            if len(places):
                yield places, self._of(self._buckets.take(group))

    def questions(self, history: History, rows: pa.Table, places: Places) -> dict[str, Any]:
        """The view's column for `rows`, which are those of these places, put to a history."""
        keys = pc.cast(rows[self.key], pa.string())
        return {state_field(self.definition.name): history.slices(keys, self.at[places])}

    @property
    def _limit(self) -> int | None:
        return None if self.memory is None else self.memory // WORKING_COPIES

    def _of(self, events: pa.Table) -> History:
        source = self.definition.batch_source
        created = source.created_timestamp_column if self.filter_by_created else None
        return History.of(self.spec, events, source.timestamp_field, created or None)

    def implied(self, feature: str) -> bool:
        return True

    def stored(self, column: Any) -> pa.Array:
        raise NotImplementedError("A windowed view's state has no stored form in history.")


@dataclass
class StoredJoin:
    """A view of stored rows: the latest row at or before each entity row's instant, within the view's ttl."""

    view: str
    definition: Any
    keys: list[str]
    given: list[str]
    features: list[str]
    root: Root
    at: Ints
    filter_by_created: bool
    _joined: pa.Table | None = field(default=None, init=False)

    def prepare(self, rows: pa.Table, folder: Path) -> None:
        source = self.definition.batch_source
        stored = [sources.stored_name(source, name) for name in (*self.keys, *self.features)]
        stamp = sources.stored_name(source, source.timestamp_field)
        created = sources.stored_name(source, source.created_timestamp_column or stamp)
        until = from_us(int(self.at.max()) + 1) if len(self.at) else None
        left = pa.table(
            {f"k{i}": rows[name] for i, name in enumerate(self.given)}
            | {"at": pa.array(self.at), "row": pa.array(np.arange(len(self.at)))}
        )
        names = [f"k{i}" for i in range(len(self.keys))] + [f"f{i}" for i in range(len(self.features))]
        picked = dict(zip(names, stored, strict=True))
        with sources.scan(source, self.root, [*stored, stamp, created], None, until) as reader:
            right = _renamed(reader, picked, stamp, created)
            self._joined = _asof(left, right, len(self.keys), len(self.features), self._ttl, self.filter_by_created)

    @property
    def _ttl(self) -> int:
        ttl = self.definition.ttl
        return int(ttl / timedelta(microseconds=1)) if ttl else 0

    def columns(self, rows: pa.Table, places: Places) -> dict[str, Any]:
        assert self._joined is not None
        part = taken(self._joined, places)
        return {name: part[f"f{i}"].combine_chunks() for i, name in enumerate(self.features)}

    def implied(self, feature: str) -> bool:
        return False

    def stored(self, column: Any) -> pa.Array:
        return column


def taken(rows: pa.Table, places: Places) -> pa.Table:
    """The rows at these places."""
    if isinstance(places, slice):
        return rows.slice(places.start, places.stop - places.start)
    return rows.take(pa.array(places))


def _renamed(reader: pa.RecordBatchReader, picked: dict[str, str], stamp: str, created: str) -> pa.RecordBatchReader:
    kinds = [pa.field(name, reader.schema.field(column).type) for name, column in picked.items()]
    schema = pa.schema([*kinds, ("ts", pa.int64()), ("created", pa.int64())])

    def renamed() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            named = [batch[column] for column in picked.values()]
            columns = [*named, sources.instants(batch[stamp]), sources.instants(batch[created])]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, renamed())


def _asof(
    left: pa.Table, right: pa.RecordBatchReader, n_keys: int, n_features: int, ttl: int, by_created: bool
) -> pa.Table:
    """`left`'s rows in their order with the features of `right`, which is gone through once and not kept.

    A row becomes visible at `seen`: its own time, or when it was created if that counts and is later. One that becomes
    visible after a row of a later time is never the answer, so it is dropped, and the rest is in the order of `seen`.
    """
    keys = "".join(f"k{i}, " for i in range(n_keys))
    same = "".join(f"l.k{i} = r.k{i} AND " for i in range(n_keys))
    seen = "greatest(ts, created)" if by_created else "ts"
    picked = ", ".join(
        f"CASE WHEN {ttl} = 0 OR l.at - r.ts <= {ttl} THEN r.f{i} END AS f{i}" for i in range(n_features)
    )
    query = f"""
        WITH visible AS (
            SELECT *, {seen} AS seen FROM rights
            QUALIFY row_number() OVER (PARTITION BY {keys}{seen} ORDER BY ts DESC, created DESC) = 1
        ), useful AS (
            SELECT * FROM visible
            QUALIFY ts >= coalesce(max(ts) OVER (
                PARTITION BY {keys}true ORDER BY seen ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), ts)
        )
        SELECT {picked} FROM lefts l ASOF LEFT JOIN useful r ON {same}l.at >= r.seen ORDER BY l.row
    """  # noqa: S608 — names made here
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("lefts", left)
        connection.register("rights", right)
        joined = connection.sql(query).to_arrow_table()
    if joined.num_rows != left.num_rows:
        raise AssertionError(f"The as-of join gave {joined.num_rows} rows for {left.num_rows}.")
    return joined


__all__ = ["Join", "Places", "StoredJoin", "WindowedJoin", "plan_joins", "taken"]
