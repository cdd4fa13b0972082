"""Where a table of history lies in each profile, and how it is read: Parquet folders or Postgres, always as Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from feast import FileSource
from feast.data_source import DataSource

from feature_repo.settings import settings


class MissingTable(FileNotFoundError):
    """History that was asked for and isn't there."""


def table(name: str, timestamp: str, created: str) -> DataSource:
    """The batch source of a table: a Parquet folder of that name below the offline store's, or a Postgres table."""
    if settings().profile == "full":
        from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource

        return PostgreSQLSource(name=name, table=name, timestamp_field=timestamp, created_timestamp_column=created)
    return FileSource(name=name, path=name, timestamp_field=timestamp, created_timestamp_column=created)


def parquet_path(source: DataSource, root: Path) -> Path:
    """The folder or file of a file source; a relative path is below `root`, wherever the process runs."""
    if not isinstance(source, FileSource):
        raise TypeError(
            f"Data source '{source.name}' is a {type(source).__name__}; this offline store reads FileSource."
        )
    path = Path(source.path.removeprefix("file://"))
    return path if path.is_absolute() else root / path


def stored_name(source: DataSource, name: str) -> str:
    """The table's own name of a column that the source's field mapping renames, else the name as it is."""
    return {new: old for old, new in source.field_mapping.items()}.get(name, name)


def schema(source: DataSource, root: Path) -> pa.Schema:
    """The columns of the table as they are stored; raises `MissingTable`."""
    return _dataset(source, root).schema


def read(
    source: DataSource,
    root: Path,
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
    dataset = _dataset(source, root)
    stamp = timestamp or stored_name(source, source.timestamp_field)
    unknown = [column for column in (*columns, stamp) if column not in dataset.schema.names]
    if unknown:
        raise KeyError(f"Table '{source.name}' has no column {', '.join(unknown)}; it has {dataset.schema.names}.")
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
    return dataset.to_table(columns=list(dict.fromkeys(columns)), filter=condition)


def _dataset(source: DataSource, root: Path) -> Any:
    path = parquet_path(source, root)
    if not path.is_file() and not any(path.glob("*.parquet")):
        raise MissingTable(
            f"Table '{source.name}': there is no history at {path}. "
            "Load some first: `make up`, or `python -m training.backfill`."
        )
    return ds.dataset(path, format="parquet")


def append(source: DataSource, root: Path, rows: pa.Table, part: str) -> Path:
    """Write rows as the part named `part` of the table; the same part written again replaces itself."""
    folder = parquet_path(source, root)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{part}.parquet"
    unfinished = folder / f".{part}.writing"  # readers of the folder pass over names that begin with a dot
    pq.write_table(rows, unfinished)
    unfinished.replace(target)
    return target


def _scalar(instant: datetime, kind: pa.DataType) -> pa.Scalar:
    """An aware instant as the column's type; a column without a zone is taken as UTC."""
    aware = pa.scalar(instant, pa.timestamp("us", tz="UTC"))
    if kind.tz is None:
        aware = pc.local_timestamp(aware)
    return pc.cast(aware, kind)


def remove(source: DataSource, root: Path, part: str) -> None:
    """Take a part out of the table; one that isn't there is no error."""
    (parquet_path(source, root) / f"{part}.parquet").unlink(missing_ok=True)
