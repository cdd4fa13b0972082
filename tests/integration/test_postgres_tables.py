"""Tables of history in a real Postgres: what is written is what is read, a part is there whole or not, and once."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest
from feast import Field, RequestSource
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
from feast.types import Int64

from feature_repo import sources
from feature_repo.postgres_parts import NotWritable
from feature_repo.settings import ROOT
from feature_repo.sources import MissingTable, Offline
from tests.integration.drivers import (
    HOUR,
    US,
    PostgresRepo,
    T,
    driver,
    entities,
    stats,
    stats_view,
    trips_of,
    values,
)
from tests.postgres_server import Postgres

INSTANT = pa.timestamp("us", tz="UTC")
STATS = PostgreSQLSource(name="stats", table="stats", timestamp_field="at", created_timestamp_column="made")


@pytest.fixture
def url(postgres_server: Postgres) -> str:
    """The address of an empty schema."""
    return postgres_server.schema()


def execute(url: str, *statements: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []


def numbered(*numbers: int, at: datetime = T) -> pa.Table:
    return pa.table({"at": pa.array([at] * len(numbers), INSTANT), "n": pa.array(numbers, pa.int64())})


def numbers(url: str, **bounds: Any) -> list[int]:
    return sorted(sources.read(STATS, url, ["n"], **bounds)["n"].to_pylist())


# --- Values ----------------------------------------------------------------------------------------------------------


def test_values_come_back_bit_by_bit(url: str):
    rows = pa.table(
        {
            "at": pa.array([T, T - US, None, T.replace(year=1), T.replace(year=9999)], INSTANT),
            "text": ["", None, "Zoë\t\\N\n\"'", "NULL", "x" * 10_000],
            "x": [-0.0, math.nan, None, math.inf, 5e-324],
            "small": pa.array([1, None, -1, 2, 3], pa.int16()),
            "single": pa.array([0.1, None, -0.0, 1, 2], pa.float32()),
            "yes": [True, None, False, True, False],
            "state": [b"\x00\xff", None, b"", b"\\x00", b"1"],
            "day": pa.array([T.date(), None, T.date(), T.date(), T.date()]),
            "many": pa.array([[1, None], None, [], [2], [3]], pa.list_(pa.int64())),
        }
    )  # fmt: skip
    sources.append(STATS, url, rows, "a")
    assert sources.schema(STATS, url).equals(rows.schema)
    found = sources.read(STATS, url, rows.column_names)
    assert found.schema.equals(rows.schema)
    for name in ("x", "single"):
        bits = np.int64 if name == "x" else np.int32
        given, got = (table[name].fill_null(7).to_numpy().view(bits) for table in (rows, found))
        assert given.tolist() == got.tolist()
        assert found[name].null_count == 1
    assert found.drop_columns(["x", "single"]).equals(rows.drop_columns(["x", "single"]))


@pytest.mark.parametrize("kind", [pa.timestamp("ns"), pa.timestamp("s"), pa.timestamp("ms", "Asia/Kolkata")], ids=str)
def test_every_instant_is_stored_with_a_zone(url: str, kind: pa.DataType):
    at = pa.array([T], INSTANT).cast(pa.timestamp("us")).cast(kind) if kind.tz is None else pa.array([T], kind)
    sources.append(STATS, url, pa.table({"at": at, "n": [1]}), "a")
    assert execute(url, "SELECT pg_typeof(at)::text, at FROM stats") == [("timestamp with time zone", T)]
    assert sources.read(STATS, url, ["at"])["at"].to_pylist() == [T]


def test_a_table_that_others_made_is_read_in_utc_whatever_its_types_and_zone(url: str):
    execute(
        url,
        """CREATE TABLE stats (driver_id int, at timestamp, made timestamptz, trips numeric(10, 2), town varchar(9),
           trip uuid, note jsonb)""",
        """INSERT INTO stats VALUES (1, '2024-05-06 12:00', '2024-05-06 17:30+05:30', 1.25, 'x',
           '00000000-0000-0000-0000-000000000001', '{"a": 1}')""",
        "ALTER ROLE tollgate SET timezone = 'Asia/Kolkata'",
    )
    try:
        columns = ["driver_id", "at", "made", "trips", "town", "trip", "note"]
        [row] = sources.read(STATS, url, columns, T, T, end_inclusive=True).to_pylist()
        assert row["at"] == row["made"] == T
        assert (row["trips"], row["town"], row["note"]) == (1.25, "x", '{"a": 1}')
        assert row["trip"] == "00000000-0000-0000-0000-000000000001"
        assert {str(field.type) for field in sources.schema(STATS, url)} == {
            "int32", "string", "double", "timestamp[us, tz=UTC]"
        }  # fmt: skip
        assert sources.read(STATS, url, ["trips"], T + US, None).num_rows == 0
        assert sources.read(STATS, url, ["trips"], None, T).num_rows == 0
    finally:
        execute(url, "ALTER ROLE tollgate RESET timezone")


def test_a_range_is_closed_at_its_begin_and_open_at_its_end_to_the_microsecond(url: str):
    for n in range(-1, 3):
        sources.append(STATS, url, numbered(n, at=T + n * US), f"p{n}")
    assert numbers(url, begin=T, end=T + US) == [0]
    assert numbers(url, begin=T, end=T + US, end_inclusive=True) == [0, 1]
    assert numbers(url, begin=T) == [0, 1, 2]
    assert numbers(url, end=T) == [-1]
    assert sources.read(STATS, url, ["n", "n"], T, T + US, timestamp="at").column_names == ["n"]


def test_a_large_table_comes_in_batches_and_not_at_once(url: str):
    n = 400_000
    at = pa.array(np.arange(n), INSTANT)
    sources.append(STATS, url, pa.table({"at": at, "text": pa.array([f"{i:>100}" for i in range(n)])}), "a")
    with sources.scan(STATS, url, ["at", "text"]) as reader:
        sizes = [(batch.num_rows, batch.nbytes) for batch in reader]
    assert sum(rows for rows, _ in sizes) == n
    assert max(size for _, size in sizes) < 24_000_000 < sum(size for _, size in sizes)
    with sources.scan(STATS, url, ["at"]) as reader:  # one need not read to the end
        assert reader.read_next_batch().num_rows


def test_a_table_of_another_schema_and_a_query_are_sources_as_well(url: str):
    execute(url, "CREATE SCHEMA IF NOT EXISTS other")
    elsewhere = PostgreSQLSource(name="elsewhere", table='other."Odd name"', timestamp_field="at")
    sources.append(elsewhere, url, numbered(1), "a")
    sources.append(elsewhere, url, numbered(2), "b")
    assert sorted(sources.read(elsewhere, url, ["n"])["n"].to_pylist()) == [1, 2]
    doubled = PostgreSQLSource(
        name="doubled", query='SELECT at, 2 * n AS n FROM other."Odd name"', timestamp_field="at"
    )
    assert sorted(sources.read(doubled, url, ["n"])["n"].to_pylist()) == [2, 4]
    with pytest.raises(NotWritable, match=r"Data source 'doubled' is a query; only a table can be written"):
        sources.append(doubled, url, numbered(3), "c")


# --- Parts -----------------------------------------------------------------------------------------------------------


def test_a_part_written_again_replaces_itself_and_may_be_taken_out(url: str):
    sources.remove(STATS, url, "never there")
    sources.append(STATS, url, numbered(1, 2, 3), "a")
    sources.append(STATS, url, numbered(4), "it's b")
    sources.append(STATS, url, numbered(5, 6), "a")
    assert numbers(url) == [4, 5, 6]
    sources.remove(STATS, url, "it's b")
    sources.remove(STATS, url, "never there")
    assert numbers(url) == [5, 6]
    assert "_part" not in sources.schema(STATS, url).names


def test_the_first_part_makes_the_table_with_an_index_on_what_is_asked_for(url: str):
    required = pa.schema([pa.field("at", INSTANT, nullable=False), pa.field("n", pa.int64())])
    sources.append(STATS, url, numbered(1).cast(required), "a")
    indexed = execute(
        url, "SELECT indexdef FROM pg_indexes WHERE tablename = 'stats' AND schemaname = current_schema()"
    )
    assert sorted(text.split("btree ")[1] for [text] in indexed) == ["(_part)", "(at)"]
    with pytest.raises(Exception, match='null value in column "at"'):
        sources.append(STATS, url, pa.table({"at": pa.array([None], INSTANT), "n": [2]}), "b")
    assert numbers(url) == [1]


def test_rows_are_put_into_the_types_and_the_columns_of_the_table(url: str):
    sources.append(STATS, url, numbered(1), "a")
    swapped = pa.table({"n": pa.array(["x"]).dictionary_encode(), "at": pa.array([T], INSTANT)})
    with pytest.raises(pa.ArrowInvalid, match="Failed to parse string: 'x'"):
        sources.append(STATS, url, swapped, "b")
    sources.append(STATS, url, pa.table({"n": pa.array([2], pa.int8()), "at": pa.array([T], pa.timestamp("ns"))}), "b")
    sources.append(STATS, url, pa.table({"at": pa.array([T], INSTANT)}), "c")
    assert sources.read(STATS, url, ["n"])["n"].to_pylist() == [1, 2, None]
    with pytest.raises(KeyError, match=r"Table 'stats' has no column bonus; it has \['at', 'n'\]"):
        sources.append(STATS, url, numbered(1).append_column("bonus", pa.array([1])), "d")
    cents = PostgreSQLSource(name="cents", table="cents", timestamp_field="at")
    with pytest.raises(NotWritable, match=r"Column 'cents' is decimal128\(5, 2\); in Postgres must be one of bool, "):
        sources.append(cents, url, pa.table({"cents": pa.array([1], pa.decimal128(5, 2))}), "a")


def test_two_first_writers_of_a_table_and_many_of_one_part_do_not_disturb_each_other(url: str):
    def write(n: int) -> None:
        sources.append(STATS, url, numbered(*[n] * 500), "same" if n % 2 else f"p{n}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(16)))
    found = numbers(url)
    assert len(found) == 8 * 500 + 500
    assert {n for n in found if n % 2 == 0} == set(range(0, 16, 2))
    assert len({n for n in found if n % 2}) == 1


WRITER = """
import sys, threading
import pyarrow as pa
from tests.integration.test_postgres_tables import STATS, numbered
from feature_repo import postgres_parts, sources

def batches():
    yield numbered(*range(100_000)).append_column("_part", pa.repeat("a", 100_000)).to_batches()[0]
    print("half", flush=True)
    threading.Event().wait()

whole = postgres_parts._copy
def half(cursor, source, rows):
    whole(cursor, source, pa.RecordBatchReader.from_batches(rows.schema, batches()))
postgres_parts._copy = half
sources.append(STATS, sys.argv[1], numbered(7), "a")
"""


def test_a_writer_that_dies_midway_leaves_what_was_there(url: str):
    sources.append(STATS, url, numbered(1, 2), "a")
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, url],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout
    with process.stdout:
        assert process.stdout.readline() == b"half\n", "the old part is deleted and half of the new one is sent"
        assert numbers(url) == [1, 2]
        process.kill()
        process.wait()
    sources.append(STATS, url, numbered(3), "a")  # waits until the server has noticed
    assert numbers(url) == [3]


# --- Tables that were not made here, and places that are none --------------------------------------------------------


def test_rows_may_be_pushed_into_a_table_that_others_made(tmp_path: Path, url: str):
    repo = PostgresRepo(tmp_path, url)
    execute(url, "CREATE TABLE stats (driver_id bigint, at timestamptz, made timestamptz, trips bigint)")
    repo.store.apply([driver, stats_view(repo)])
    repo.store.write_to_offline_store("stats", stats((1, T, T, 10)))
    assert trips_of(repo, entities((1, T))) == [10]
    rows = pa.Table.from_pandas(stats((1, T + HOUR, T, 11)), preserve_index=False)
    with pytest.raises(
        NotWritable, match=r"Table 'stats' has no column _part.*: ALTER TABLE stats ADD COLUMN _part text"
    ):
        sources.append(STATS, url, rows, "a")
    sources.remove(STATS, url, "a")
    execute(url, "ALTER TABLE stats ADD COLUMN _part text")
    sources.append(STATS, url, rows, "a")
    assert trips_of(repo, entities((1, T), (1, T + HOUR))) == [10, 11]


def test_a_column_of_a_type_that_copy_cannot_make_is_refused_by_name(url: str):
    execute(url, "CREATE TABLE stats (at timestamptz, n numeric, _part text)")
    with pytest.raises(NotWritable, match=r"Table 'stats': this store cannot write n \("):
        sources.append(STATS, url, numbered(1), "a")


def test_a_table_and_an_entity_query_that_are_not_there_are_named(tmp_path: Path, url: str):
    with pytest.raises(
        MissingTable, match=r"Table 'stats': there is no history at postgresql://127\.0\.0\.1:\d+/postgres"
    ):
        sources.schema(STATS, url)
    repo = PostgresRepo(tmp_path, url)
    repo.store.apply([driver, stats_view(repo)])
    repo.write("stats", stats((1, T, T, 10)))
    execute(url, "CREATE SEQUENCE counter")
    with pytest.raises(Exception, match=r"cannot execute nextval\(\) in a read-only transaction"):
        repo.ask("SELECT nextval('counter') AS driver_id, now() AS event_timestamp", ["stats:trips"])
    naive = repo.ask("SELECT driver_id, at AT TIME ZONE 'UTC' AS event_timestamp FROM stats;", ["stats:trips"])
    assert str(naive["event_timestamp"].dtype) == "datetime64[us, UTC]"
    assert values(naive) == [10]


@pytest.mark.parametrize("root", [Path("/nowhere"), Offline(Path("/nowhere")), ""], ids=["folder", "both", "empty"])
def test_a_store_without_the_address_of_a_postgres_says_how_to_give_it(root: sources.Root):
    with pytest.raises(
        ValueError, match=r"'stats' is a table in Postgres, .* set FRAUD_PROFILE=full and FRAUD_POSTGRES"
    ):
        sources.read(STATS, root, ["n"])


def test_other_kinds_of_sources_are_refused_by_name(url: str):
    asked = RequestSource(name="asked", schema=[Field(name="n", dtype=Int64)])
    with pytest.raises(
        TypeError, match=r"'asked' is a RequestSource; this offline store reads FileSource and PostgreSQL"
    ):
        sources.read(asked, url, ["n"])


def test_a_password_is_in_no_message(url: str):
    secret = url.replace("tollgate@", "tollgate:sesame@")
    with pytest.raises(MissingTable) as raised:
        sources.schema(STATS, secret)
    assert "sesame" not in str(raised.value)
