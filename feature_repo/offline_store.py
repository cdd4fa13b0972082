"""A Feast offline store over Parquet and Postgres that joins as of each row's instant: exact, rows out = rows in.

Stored views join through DuckDB's ASOF JOIN; views that declare windowed aggregations are finished from their event
history by the same kernels that serve them online; where the history lies makes no difference to either. Plugged in by
`offline_store.type` in `feature_store.yaml`.

A joined feature row is the latest with feature time <= the row's event time (Feast's rule). With
`filter_by_created_timestamp`, only rows created by then count. Windowed views look strictly before the row's instant.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast.feature_view import FeatureView
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob
from feast.repo_config import FeastConfigBaseModel

from feature_repo import sources
from feature_repo.retrieval import HistoricalJob, TableJob
from feature_repo.sources import Offline


class TollgateOfflineStoreConfig(FeastConfigBaseModel):
    """`offline_store:` of `feature_store.yaml`."""

    type: Literal["feature_repo.offline_store.TollgateOfflineStore"] = "feature_repo.offline_store.TollgateOfflineStore"
    path: str = "data"
    """Folder below which the relative paths of file sources lie."""
    postgres_url: str | None = None
    """Address of the Postgres that holds the tables of PostgreSQL sources."""
    memory: int | None = None
    """Bytes that the events of one retrieval may take; what is more goes to temporary files. Default: a quarter of the
    machine's memory."""


def _folder(config: Any) -> Path:
    path = Path(config.offline_store.path)
    return path if path.is_absolute() or config.repo_path is None else (Path(config.repo_path) / path).resolve()


def _root(config: Any) -> Offline:
    return Offline(_folder(config), config.offline_store.postgres_url)


def _memory(config: Any) -> int:
    given = config.offline_store.memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4 if given is None else int(given)


class TollgateOfflineStore(OfflineStore):
    """See the module."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: Any,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **unsupported: Any,
    ) -> RetrievalJob:
        """Features of each row of `entity_df` as of its event time.

        `entity_df` is a frame, or a query over the store's tables; Postgres answers it if a view's source lies there.
        """
        if entity_df is None or unsupported:
            raise NotImplementedError(
                "This offline store needs an entity_df; for every row of a time range, pass a query such as "
                '"SELECT card_id, timestamp AS event_timestamp FROM transactions WHERE ...".'
            )
        root = _root(config)
        if not isinstance(entity_df, str):
            rows = pa.Table.from_pandas(entity_df, preserve_index=False)
        elif any(sources.in_postgres(view.batch_source) for view in feature_views):
            rows = _query_postgres(entity_df, root)
        else:
            rows = _query(entity_df, root.path)
        return HistoricalJob(
            root, feature_views, feature_refs, rows, registry, project, full_feature_names, filter_by_created_timestamp,
            _memory(config),
        )  # fmt: skip

    @staticmethod
    def pull_latest_from_table_or_query(
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The latest row of each key in [start_date, end_date]; of equal times the one created last."""
        root = _root(config)
        created = [created_timestamp_column] if created_timestamp_column else []
        columns = [*join_key_columns, *feature_name_columns, timestamp_field, *created]
        keys = ", ".join(f'"{key}"' for key in join_key_columns)
        order = ", ".join(f'"{column}" DESC' for column in [timestamp_field, *created])
        partition = f"PARTITION BY {keys} " if keys else ""
        query = f"SELECT * FROM rows QUALIFY row_number() OVER ({partition}ORDER BY {order}) = 1"  # noqa: S608
        bounds = (start_date, end_date)

        def run() -> pa.Table:
            rows = sources.scan(data_source, root, columns, *bounds, end_inclusive=True, timestamp=timestamp_field)
            with rows as reader, duckdb.connect() as connection:
                connection.execute("SET TimeZone = 'UTC'")
                return connection.register("rows", reader).sql(query).to_arrow_table()

        return TableJob(root, run)

    @staticmethod
    def pull_all_from_table_or_query(
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Every row in [start_date, end_date]."""
        created = [created_timestamp_column] if created_timestamp_column else []
        columns = [*join_key_columns, *feature_name_columns, timestamp_field, *created]
        root = _root(config)
        bounds = (start_date, end_date)
        return TableJob(
            root,
            lambda: sources.read(data_source, root, columns, *bounds, end_inclusive=True, timestamp=timestamp_field),
        )

    @staticmethod
    def offline_write_batch(
        config: Any, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Append rows to the view's batch source, in the types of what is there.

        They are a part of their own, named after them: views that share the source push the same rows, and these are
        there once.
        """
        source, root = feature_view.batch_source, _root(config)
        rows = table.rename_columns([sources.stored_name(source, name) for name in table.column_names])
        try:
            kinds = sources.schema(source, root)
        except sources.MissingTable:  # the first rows of a table say what its types are
            kinds = rows.schema
        sources.add(source, root, rows.select(kinds.names).cast(kinds))
        if progress:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: Any, data: pa.Table | Path, source: Any, logging_config: Any, registry: Any
    ) -> None:
        """Append feature logs to their file destination."""
        destination = logging_config.destination
        if not isinstance(destination, FileLoggingDestination):
            raise TypeError(
                f"Logging destination {type(destination).__name__}: this store writes FileLoggingDestination."
            )
        folder = Path(destination.path)
        folder = folder if folder.is_absolute() else _folder(config) / folder
        folder.mkdir(parents=True, exist_ok=True)
        rows = pq.read_table(data) if isinstance(data, Path) else data
        pq.write_table(rows, folder / f"log-{time.time_ns()}.parquet")

    def get_table_column_names_and_types_from_data_source(
        self, config: Any, data_source: Any
    ) -> Iterable[tuple[str, str]]:
        """The stored columns of a source and their types, as the kind of source spells them."""
        kinds = sources.schema(data_source, _root(config))
        if sources.in_postgres(data_source):
            from feature_repo.postgres_parts import type_name

            return [(field.name, type_name(field.name, field.type)) for field in kinds]
        return [(field.name, str(field.type)) for field in kinds]

    def validate_data_source(self, config: Any, data_source: Any) -> None:
        """A source is valid once it can be named; its table may come later, with the first load of history."""
        place = sources.postgres_url if sources.in_postgres(data_source) else sources.parquet_path
        place(data_source, _root(config))


def _query_postgres(query: str, root: Offline) -> pa.Table:
    from feature_repo import postgres_tables

    return postgres_tables.query(query, root.postgres_url or "")


def _query(query: str, root: Path) -> pa.Table:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for folder in sorted({path.parent for path in root.glob("*/*.parquet")}):
            name = '"' + folder.name.replace('"', '""') + '"'
            files = str(folder / "*.parquet").replace("'", "''")
            connection.execute(f"CREATE VIEW {name} AS FROM read_parquet('{files}', union_by_name = true)")
        return connection.sql(query).to_arrow_table()


__all__ = ["SavedDatasetFileStorage", "TollgateOfflineStore", "TollgateOfflineStoreConfig"]
