"""Tables of history in Postgres, written part by part: COPY in one transaction, so that a part is there whole or not.

A table is made by its first part, with a column for the part's name and indexes on it and on the event time.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from feast.data_source import DataSource
from psycopg import sql

from feature_repo.postgres_tables import PART, Column, columns_of, connect, readable, relation, run
from feature_repo.sources import require, stored_name

TYPES = {
    pa.bool_(): "boolean",
    pa.int8(): "smallint",
    pa.int16(): "smallint",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float32(): "real",
    pa.float64(): "double precision",
    pa.string(): "text",
    pa.large_string(): "text",
    pa.binary(): "bytea",
    pa.large_binary(): "bytea",
    pa.date32(): "date",
    pa.null(): "text",
}


class NotWritable(TypeError):
    """A table or a column that rows cannot be written to."""


def type_name(name: str, kind: pa.DataType) -> str:
    """The Postgres type of an Arrow one, as Feast spells it; every instant is a timestamp with time zone."""
    if pa.types.is_timestamp(kind):
        return "timestamp with time zone"
    if pa.types.is_dictionary(kind):
        return type_name(name, kind.value_type)
    if pa.types.is_list(kind):
        return f"{type_name(name, kind.value_type)}[]"
    if kind not in TYPES:
        raise NotWritable(f"Column '{name}' is {kind}; in Postgres must be one of {', '.join(map(str, TYPES))}.")
    return TYPES[kind]


def append(source: DataSource, url: str, rows: pa.Table, part: str, *, plainly: bool = False) -> None:
    """See `sources.append`. Writers of one part take turns; those of different parts don't wait for each other.

    A table that wasn't made here may lack the column `PART`: it is refused, or takes the rows without it where
    `plainly`; written again, they are then there twice.
    """
    with connect(url) as connection, connection.cursor() as cursor:
        if not _exists(cursor, source):
            _create(cursor, source, pa.schema([*rows.schema, (PART, pa.string())]))
        known = columns_of(cursor, source, url)
        fitting = _fit(rows, known, source.name)
        if PART in known:
            _lock(cursor, source, part)
            _delete(cursor, source, part)
            fitting = fitting.append_column(PART, pa.repeat(part, rows.num_rows))
        elif not plainly:
            raise NotWritable(
                f"Table '{source.name}' has no column {PART}, by which a part is found again. "
                f"Add it: ALTER TABLE {relation(source).as_string(None)} ADD COLUMN {PART} text"
            )
        _copy(cursor, source, fitting)
        connection.commit()


def remove(source: DataSource, url: str, part: str) -> None:
    """See `sources.remove`."""
    with connect(url) as connection, connection.cursor() as cursor:
        if _exists(cursor, source) and PART in columns_of(cursor, source, url):
            _lock(cursor, source, part)
            _delete(cursor, source, part)
            connection.commit()


def save(source: DataSource, url: str, rows: pa.Table, overwrite: bool) -> bool:
    """Make a table of these rows alone; False where there is one already that must not be overwritten."""
    with connect(url) as connection, connection.cursor() as cursor:
        if _exists(cursor, source):
            if not overwrite:
                return False
            run(cursor, "DROP TABLE {table}", table=relation(source))
        _create(cursor, source, rows.schema)
        _copy(cursor, source, _fit(rows, columns_of(cursor, source, url), source.name))
        connection.commit()
    return True


def _exists(cursor: Any, source: DataSource) -> bool:
    run(cursor, "SELECT to_regclass({name}) IS NOT NULL", name=_name(source))
    return bool(cursor.fetchone()[0])


def _name(source: Any) -> sql.Literal:
    if source._postgres_options._query:
        raise NotWritable(f"Data source '{source.name}' is a query; only a table can be written.")
    return sql.Literal(relation(source).as_string(None))


def _lock(cursor: Any, source: DataSource, part: str) -> None:
    """Hold the part until the transaction ends; an empty name is the table's own making."""
    key = sql.Literal(f"{relation(source).as_string(None)}/{part}")
    run(cursor, "SELECT pg_advisory_xact_lock(hashtextextended({key}, 0))", key=key)
    cursor.fetchone()


def _create(cursor: Any, source: DataSource, schema: pa.Schema) -> None:
    """Make the table and its indexes, unless another writer has done so meanwhile."""
    _lock(cursor, source, "")
    columns = [
        sql.SQL(f"{{}} {type_name(field.name, field.type)}{'' if field.nullable else ' NOT NULL'}").format(
            sql.Identifier(field.name)
        )
        for field in schema
    ]
    table = relation(source)
    # Only the statement itself sees for certain what was made while it waited for the lock: names are cached.
    run(cursor, "CREATE TABLE IF NOT EXISTS {table} ({columns})", table=table, columns=sql.SQL(", ").join(columns))
    run(cursor, "SELECT EXISTS (SELECT FROM pg_index WHERE indrelid = to_regclass({name}))", name=_name(source))
    if cursor.fetchone()[0]:
        return
    for column in (stored_name(source, source.timestamp_field), PART):
        if column in schema.names:
            run(cursor, "CREATE INDEX ON {table} ({column})", table=table, column=sql.Identifier(column))


def _delete(cursor: Any, source: DataSource, part: str) -> None:
    run(
        cursor,
        "DELETE FROM {table} WHERE {column} = {part}",
        table=relation(source),
        column=sql.Identifier(PART),
        part=sql.Literal(part),
    )


def _fit(rows: pa.Table, known: dict[str, Column], table: str) -> pa.Table:
    """The rows in the types of the table: binary COPY converts nothing. Instants without a zone are UTC."""
    require(rows.column_names, readable(known), table)
    odd = [f"{name} ({known[name].stored})" for name in rows.column_names if not known[name].writable]
    if odd:
        raise NotWritable(f"Table '{table}': this store cannot write {', '.join(odd)}.")
    return rows.cast(pa.schema([(name, known[name].kind) for name in rows.column_names]))


def _copy(cursor: Any, source: DataSource, rows: pa.Table) -> None:
    query = """
        SELECT nspname, relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE pg_class.oid = to_regclass({name})
    """
    run(cursor, query, name=_name(source))
    schema, table = cursor.fetchone()
    cursor.adbc_ingest(table, rows, mode="append", db_schema_name=schema)
