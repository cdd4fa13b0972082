"""Tables of history in Postgres, read as Arrow: the server sends binary COPY, and the driver makes batches of it.

Columns and time range are the query's. Every instant comes out as timestamp[us, UTC]; a column without a zone is UTC.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Any

import pyarrow as pa
from adbc_driver_manager import ProgrammingError
from adbc_driver_postgresql import dbapi
from feast.data_source import DataSource
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from feature_repo.schema import TIMESTAMP
from feature_repo.sources import MissingTable, require

PART = "_part"
"""The column that names a row's part, in tables that were made here. Readers don't see it."""

UNDEFINED_TABLE = "42P01"


@dataclass(frozen=True)
class Column:
    """A column of a table: its type as it is read, the expression that reads it so, and what is stored."""

    kind: pa.DataType
    expression: sql.Composable
    stored: pa.DataType

    @property
    def writable(self) -> bool:
        """Whether rows of type `kind` can be copied in."""
        return not isinstance(self.stored, pa.BaseExtensionType)


_opening = Lock()
_opened: dict[tuple[str, int], Any] = {}


def connect(url: str) -> Any:
    """A connection in UTC and in a transaction, which is rolled back unless it is committed before it is closed."""
    with _opening:
        # The driver asks a database for all its types when it meets it, which takes ten times as long as to connect.
        known = _opened.get((url, os.getpid()))
        if known is None:
            known = _opened[url, os.getpid()] = dbapi.connect(url, autocommit=True)
            atexit.register(known.close)
        connection = known.adbc_clone()
    with connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")
    return connection


def place(url: str) -> str:
    """The address without what is nobody's business."""
    parts = conninfo_to_dict(url)
    return f"postgresql://{parts.get('host', '')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def run(cursor: Any, query: str, **parts: sql.Composable) -> Any:
    """Execute a query with its parts put in, quoted."""
    return cursor.execute(sql.SQL(query).format(**parts).as_string(None))


def relation(source: Any) -> sql.Composable:
    """The source's table, or its query, as Feast writes it after FROM."""
    return sql.SQL(source.get_table_query_string_with_alias())


def columns_of(cursor: Any, source: DataSource, url: str) -> dict[str, Column]:
    """Every column of the table, `PART` among them; raises `MissingTable`."""
    try:
        run(cursor, "SELECT * FROM {table} LIMIT 0", table=relation(source))
    except ProgrammingError as error:
        if error.sqlstate == UNDEFINED_TABLE:
            raise MissingTable(source.name, place(url)) from error
        raise
    return {field.name: _column(field) for field in cursor.fetch_arrow_table().schema}


def _column(field: pa.Field) -> Column:
    name, kind = sql.Identifier(field.name), field.type
    if pa.types.is_timestamp(kind):
        how = "{name}" if kind.tz else "{name} AT TIME ZONE 'UTC' AS {name}"
        return Column(TIMESTAMP, sql.SQL(how).format(name=name), kind)
    if isinstance(kind, pa.BaseExtensionType):
        number = getattr(kind, "type_name", "") == "numeric"
        how = "{name}::float8 AS {name}" if number else "{name}::text AS {name}"
        return Column(pa.float64() if number else pa.string(), sql.SQL(how).format(name=name), kind)
    return Column(kind, name, kind)


def readable(columns: dict[str, Column]) -> pa.Schema:
    """The columns as they are read."""
    return pa.schema([(name, column.kind) for name, column in columns.items() if name != PART])


def schema(source: DataSource, url: str) -> pa.Schema:
    """The columns of the table; raises `MissingTable`."""
    with connect(url) as connection, connection.cursor() as cursor:
        return readable(columns_of(cursor, source, url))


@contextmanager
def scan(
    source: DataSource,
    url: str,
    names: Sequence[str],
    stamp: str,
    begin: datetime | None = None,
    end: datetime | None = None,
    end_inclusive: bool = False,
) -> Iterator[pa.RecordBatchReader]:
    """Batches of the named columns of the rows whose `stamp` lies in [begin, end), or [begin, end]."""
    with connect(url) as connection, connection.cursor() as cursor:
        known = columns_of(cursor, source, url)
        kinds = readable(known)
        require([*names, stamp], kinds, source.name)
        conditions = [sql.SQL("true")]
        for bound, sign in ((begin, ">="), (end, "<=" if end_inclusive else "<")):
            if bound is not None:
                instant = sql.Literal(bound)
                if known[stamp].stored == pa.timestamp("us"):
                    instant = sql.SQL("{} AT TIME ZONE 'UTC'").format(instant)
                conditions.append(sql.SQL(f"{{}} {sign} {{}}").format(sql.Identifier(stamp), instant))
        run(
            cursor,
            "SELECT {columns} FROM {table} WHERE {conditions}",
            columns=sql.SQL(", ").join(known[name].expression for name in names),
            table=relation(source),
            conditions=sql.SQL(" AND ").join(conditions),
        )
        with cursor.fetch_record_batch() as reader:
            yield reader.cast(pa.schema([kinds.field(name) for name in names]))


def query(text: str, url: str) -> pa.Table:
    """The rows of a query of the user's, with instants in UTC; it may read and not write."""
    from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource

    source = PostgreSQLSource(name="query", query=text.strip().rstrip(";"))
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION READ ONLY")
        known = columns_of(cursor, source, url)
        columns = sql.SQL(", ").join(column.expression for column in known.values())
        run(cursor, "SELECT {columns} FROM {table}", columns=columns, table=relation(source))
        return cursor.fetch_arrow_table().cast(pa.schema([(name, column.kind) for name, column in known.items()]))
