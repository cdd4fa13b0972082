"""Where a table of history lies, Parquet folder or Postgres table, and how it is read and written: always as Arrow."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from feast import FileSource
from feast.data_source import DataSource

from feature_repo.schema import TIMESTAMP
from feature_repo.settings import settings

_profile: ContextVar[str | None] = ContextVar("profile", default=None)


class MissingTable(FileNotFoundError):
    """History that was asked for and isn't there."""

    def __init__(self, table: str, place: object) -> None:
        super().__init__(
            f"Table '{table}': there is no history at {place}. "
            "Load some first: `make up`, or `python -m training.backfill`."
        )


@dataclass(frozen=True)
class Offline:
    """Both places of an offline store: the folder of its file sources and the address of its Postgres."""

    path: Path
    postgres_url: str | None = None


Root = Path | str | Offline
"""Where tables lie: a folder, the address of a Postgres, or both."""


@contextmanager
def profile(name: str) -> Iterator[None]:
    """Within it, `table` makes the sources of this profile, not of the process's."""
    token = _profile.set(name)
    try:
        yield
    finally:
        _profile.reset(token)


def table(name: str, timestamp: str, created: str) -> DataSource:
    """The batch source of a table: a Parquet folder of that name below the offline store's, or a Postgres table."""
    if (_profile.get() or settings().profile) == "full":
        from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource

        return PostgreSQLSource(name=name, table=name, timestamp_field=timestamp, created_timestamp_column=created)
    return FileSource(name=name, path=name, timestamp_field=timestamp, created_timestamp_column=created)


def in_postgres(source: DataSource) -> bool:
    """Whether the source is a Postgres table, else it is Parquet; raises TypeError for any other kind."""
    if isinstance(source, FileSource):
        return False
    if type(source).__name__ == "PostgreSQLSource":  # by name: its module wants a driver that only `full` installs
        return True
    raise TypeError(
        f"Data source '{source.name}' is a {type(source).__name__}; "
        "this offline store reads FileSource and PostgreSQLSource."
    )


def parquet_path(source: DataSource, root: Root) -> Path:
    """The folder or file of a file source; a relative path is below `root`, wherever the process runs."""
    if in_postgres(source):
        raise TypeError(f"Data source '{source.name}' is a table in Postgres; must be a FileSource.")
    path = Path(source.path.removeprefix("file://"))
    if path.is_absolute():
        return path
    folder = root.path if isinstance(root, Offline) else root
    if isinstance(folder, str):
        raise ValueError(f"Data source '{source.name}' is a FileSource, and the offline store is a Postgres.")
    return folder / path


def postgres_url(source: DataSource, root: Root) -> str:
    """The address of the Postgres that holds the source's table."""
    url = root.postgres_url if isinstance(root, Offline) else root
    if not isinstance(url, str) or not url:
        raise ValueError(
            f"Data source '{source.name}' is a table in Postgres, and the offline store has no address of one: "
            "set FRAUD_PROFILE=full and FRAUD_POSTGRES_URL, or `postgres_url` below `offline_store`."
        )
    return url


def stored_name(source: DataSource, name: str) -> str:
    """The table's own name of a column that the source's field mapping renames, else the name as it is."""
    return {new: old for old, new in source.field_mapping.items()}.get(name, name)


def schema(source: DataSource, root: Root) -> pa.Schema:
    """The columns of the table as they are stored; raises `MissingTable`."""
    if in_postgres(source):
        from feature_repo import postgres_tables

        return postgres_tables.schema(source, postgres_url(source, root))
    return _dataset(source, root).schema


def read(
    source: DataSource,
    root: Root,
    columns: Sequence[str],
    begin: datetime | None = None,
    end: datetime | None = None,
    *,
    end_inclusive: bool = False,
    timestamp: str = "",
) -> pa.Table:
    """Columns of the rows whose event time lies in [begin, end), or [begin, end] where `end_inclusive`.

    All names are the stored ones; `timestamp` stands in for the source's own field. Raises `MissingTable` where there
    is no history.
    """
    with scan(source, root, columns, begin, end, end_inclusive=end_inclusive, timestamp=timestamp) as reader:
        return reader.read_all()


def scan(
    source: DataSource,
    root: Root,
    columns: Sequence[str],
    begin: datetime | None = None,
    end: datetime | None = None,
    *,
    end_inclusive: bool = False,
    timestamp: str = "",
) -> AbstractContextManager[pa.RecordBatchReader]:
    """What `read` gives, as batches that can be gone through once: for tables that exceed memory."""
    stamp = timestamp or stored_name(source, source.timestamp_field)
    wanted = list(dict.fromkeys(columns))
    if in_postgres(source):
        from feature_repo import postgres_tables

        url = postgres_url(source, root)
        return postgres_tables.scan(source, url, wanted, stamp, begin, end, end_inclusive)
    return _scan_parquet(_dataset(source, root), source.name, wanted, stamp, begin, end, end_inclusive)


def require(columns: Sequence[str], schema: pa.Schema, table: str) -> None:
    """Raises KeyError for columns that the table hasn't."""
    unknown = [column for column in dict.fromkeys(columns) if column not in schema.names]
    if unknown:
        raise KeyError(f"Table '{table}' has no column {', '.join(unknown)}; it has {schema.names}.")


@contextmanager
def _scan_parquet(
    dataset: Any,
    name: str,
    columns: list[str],
    stamp: str,
    begin: datetime | None,
    end: datetime | None,
    end_inclusive: bool,
) -> Iterator[pa.RecordBatchReader]:
    require([*columns, stamp], dataset.schema, name)
    field = ds.field(stamp)
    kind = dataset.schema.field(stamp).type
    if kind.unit in ("s", "ms"):  # the bounds are finer than that
        kind = pa.timestamp("us", kind.tz)
        field = field.cast(kind)
    condition: Any = None
    if begin is not None:
        condition = field >= _scalar(begin, kind)
    if end is not None:
        before = field <= _scalar(end, kind) if end_inclusive else field < _scalar(end, kind)
        condition = before if condition is None else condition & before
    yield dataset.scanner(columns=columns, filter=condition).to_reader()


def _dataset(source: DataSource, root: Root) -> Any:
    path = parquet_path(source, root)
    if not path.is_file() and not any(path.glob("*.parquet")):
        raise MissingTable(source.name, path)
    return ds.dataset(path, format="parquet")


def instants(column: Any) -> Any:
    """A column of instants in microseconds since 1970 UTC, null as null; without a zone they are taken as UTC."""
    return pc.cast(pc.cast(column, TIMESTAMP), pa.int64())


def _scalar(instant: datetime, kind: pa.DataType) -> pa.Scalar:
    """An aware instant as the column's type; a column without a zone is taken as UTC."""
    aware = pa.scalar(instant, pa.timestamp("us", tz="UTC"))
    if kind.tz is None:
        aware = pc.local_timestamp(aware)
    return pc.cast(aware, kind)


def append(source: DataSource, root: Root, rows: pa.Table, part: str) -> None:
    """Write rows as the part named `part` of the table, all or nothing; the same part written again replaces itself.

    The first part makes the table. That an event in two parts counts once is the readers' doing:
    `window_history.History` and `training.dataset` tell events apart by their id.
    """
    if in_postgres(source):
        from feature_repo import postgres_parts

        return postgres_parts.append(source, postgres_url(source, root), rows, part)
    folder = parquet_path(source, root)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{part}.writing"  # readers of the folder pass over names that begin with a dot
    pq.write_table(rows, unfinished)
    unfinished.replace(folder / f"{part}.parquet")
    return None


def add(source: DataSource, root: Root, rows: pa.Table) -> None:
    """Write rows as a part that is named after them: the same rows written again are there once."""
    content = pa.BufferOutputStream()
    with pa.ipc.new_stream(content, rows.schema) as stream:
        stream.write_table(rows.combine_chunks())
    part = f"batch-{hashlib.blake2b(content.getvalue(), digest_size=16).hexdigest()}"
    if in_postgres(source):
        from feature_repo import postgres_parts

        return postgres_parts.append(source, postgres_url(source, root), rows, part, plainly=True)
    return append(source, root, rows, part)


def remove(source: DataSource, root: Root, part: str) -> None:
    """Take a part out of the table; one that isn't there is no error."""
    if in_postgres(source):
        from feature_repo import postgres_parts

        return postgres_parts.remove(source, postgres_url(source, root), part)
    (parquet_path(source, root) / f"{part}.parquet").unlink(missing_ok=True)
    return None
