"""A Feast view that isn't about fraud, executed by the same engine: drivers and their rides, keyed by integers."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main
from feast import FeatureStore
from redis import Redis

from feature_repo.context import AT
from feature_repo.store import connection_string
from feature_repo.window_state import to_us
from feature_repo.windows import UnsupportedAggregation, spec_of_view
from stream_jobs.blocks import Block, block_name, fan_out
from stream_jobs.engine import Plan, ShardLogic
from tests.parity.oracle import brute_force, differences
from tests.parity.three_ways import unequal

NOW = datetime(2026, 5, 4, 3, 2, 1, 987_654, tzinfo=UTC)

CONFIG = """
project: rides
provider: local
registry: registry.db
online_store: {{type: redis, connection_string: "{redis}"}}
offline_store: {{type: feature_repo.offline_store.TollgateOfflineStore, path: tables}}
batch_engine: {{type: feature_repo.compute_engine.WindowComputeEngine}}
entity_key_serialization_version: 3
"""

DECLARED = """
from datetime import timedelta
from feast import Entity, FeatureService, Field, FileSource, PushSource, RequestSource, StreamFeatureView, ValueType
from feast.aggregation import Aggregation
from feast.types import Bytes, Float64, Int64

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.{kind})
rides = FileSource(name="rides", path="rides", timestamp_field="ended", created_timestamp_column="heard")
rides_stream = PushSource(name="rides_stream", batch_source=rides)
aggregations = [
    Aggregation(column=column, function=function, time_window=window)
    for window in (timedelta(minutes=10), timedelta(hours=1), timedelta(days=7))
    for function, column in (
        ("count", ""), ("sum", "fare"), ("mean", "fare"), ("std", "fare"), ("min", "fare"), ("max", "fare"),
        ("count", "tip"), ("{last}", "rider_id"),
    )
] + [Aggregation(function="seconds_since_last")]
driver_rides = StreamFeatureView(
    name="driver_rides",
    entities=[driver],
    ttl=timedelta(0),
    timestamp_field="ended",
    schema=[Field(name="driver_id", dtype={key}), Field(name="driver_rides_state", dtype=Bytes)],
    source=rides_stream,
    aggregations=aggregations,
    tags={{"event_id": "ride_id"}},
)
"""

FINISHED = """
from feature_repo.transformations import finished
from feature_repo.windows import spec_of

request = RequestSource(name="question", schema=[Field(name="timestamp_us", dtype=Int64)])
spec = spec_of("driver_rides", "driver", "driver_id", "ride_id", aggregations)
driver_windows = finished("driver_windows", driver_rides, request, spec, "What the driver did")
rides_v1 = FeatureService(name="rides_v1", features=[driver_windows])
"""


def declared(last: str = "nunique", key: str = "Int64", kind: str = "INT64") -> str:
    return DECLARED.format(last=last, key=key, kind=kind)


def repository(folder: Path, redis_url: str, definitions: str) -> subprocess.CompletedProcess[str]:
    """A Feast repository of its own in `folder`, applied as a Feast user does."""
    (folder / "feature_store.yaml").write_text(CONFIG.format(redis=connection_string(redis_url)))
    (folder / "rides.py").write_text(definitions)
    feast = [sys.executable, "-c", "from feast.cli.cli import cli; cli()", "apply"]
    return subprocess.run(feast, cwd=folder, capture_output=True, text=True, timeout=120)


def unchecked(folder: Path, redis_url: str, definitions: str) -> FeatureStore:
    """A registry that was written without our compute engine, which would have refused at apply."""
    config = [line for line in CONFIG.splitlines() if not line.startswith("batch_engine")]
    (folder / "feature_store.yaml").write_text("\n".join(config).format(redis=connection_string(redis_url)))
    made: dict[str, Any] = {}
    exec(definitions, made)
    FeatureStore(repo_path=str(folder)).apply([made["driver"], made["rides_stream"], made["driver_rides"]])
    return FeatureStore(repo_path=str(folder))


def rides(count: int) -> pd.DataFrame:
    draw = np.random.default_rng(11)
    ended = to_us(NOW) - np.sort(draw.integers(0, 10 * 86_400_000_000, count))[::-1]
    ended[1::7] = ended[:-1:7][: len(ended[1::7])]  # several at the same instant
    rows = pd.DataFrame(
        {
            "ride_id": np.arange(count) + 10**12,
            "driver_id": draw.integers(-2, 4, count),
            "rider_id": draw.integers(0, 30, count),
            "fare": draw.integers(100, 9_000, count) / 100,
            "tip": np.where(draw.random(count) < 0.6, np.nan, draw.integers(1, 9, count)),
            "ts": ended,
            "created": ended + draw.integers(0, 60_000_000, count),
        }
    )
    return rows[rows["created"] <= to_us(NOW)].reset_index(drop=True)


def block(rows: list[dict[str, Any]]) -> Block:
    fields = {name: [row[name] for row in rows] for name in ("ride_id", "driver_id", "rider_id", "fare")}
    fields["tip"] = [None if row["tip"] != row["tip"] else row["tip"] for row in rows]
    ts, created = (np.array([row[name] for row in rows], np.int64) for name in ("ts", "created"))
    return Block(block_name(), "rides", fields, ts, created, created)


def run(plan: Plan, rows: list[dict[str, Any]], size: int) -> list[int]:
    """The engine's steps in a dataflow of Bytewax; returns how many events each batch added to the view."""
    added: list[int] = []
    blocks = [block(rows[n : n + size]) for n in range(0, len(rows), size)]
    flow = Dataflow("rides")
    given = op.input("rides", flow, TestingSource(blocks))
    sharded = op.flat_map("fan out", given, lambda block: fan_out(plan.specs, block))
    merged = op.stateful_batch("merge", sharded, lambda _: ShardLogic(plan))

    def write(item: Any) -> int:
        written = item[1]
        plan.write(written.view, written.entities, written.states, written.stamps)
        return int(written.added)

    op.output("added", op.map("write", merged, write), TestingSink(added))
    run_main(flow)
    return added


def test_a_view_of_drivers_and_rides_is_streamed_rebuilt_and_read_like_ours(tmp_path: Path, redis_server: str):
    client = Redis.from_url(redis_server)
    client.flushall()
    applied = repository(tmp_path, redis_server, declared("count_distinct") + FINISHED)
    assert applied.returncode == 0, applied.stderr
    store = FeatureStore(repo_path=str(tmp_path))
    rows = rides(800)
    stamps = {"ended": "ts", "heard": "created"}
    times = {new: pa.array(rows[old]).cast(pa.timestamp("us", tz="UTC")) for new, old in stamps.items()}
    columns = {name: pa.array(rows[name], from_pandas=True) for name in rows if name not in stamps.values()}
    (tmp_path / "tables" / "rides").mkdir(parents=True)
    pq.write_table(pa.table(columns | times), tmp_path / "tables" / "rides" / "all.parquet")

    arrived = rows.sort_values("created")
    twice = pd.concat([arrived, arrived.sample(100, random_state=1)])
    plan = Plan(lambda: store, "rides_stream")
    assert sum(run(plan, twice.to_dict("records"), 50)) == len(rows)

    drivers = [*range(-2, 4), 99]
    spec = spec_of_view(store.get_stream_feature_view("driver_rides"))
    at = to_us(NOW)
    service = store.get_feature_service("rides_v1")

    def online() -> pd.DataFrame:
        found = store.get_online_features(service, [{"driver_id": n, AT: at} for n in drivers]).to_dict()
        return pd.DataFrame({name: np.array(found[name], np.float64) for name in spec.names})

    streamed = online()
    asked = pd.DataFrame({"driver_id": drivers, "at": at, "known": at})
    assert differences(spec, brute_force(spec, rows, asked), streamed) == []
    assert streamed["driver_count_7d"].min() == 0 < streamed["driver_count_7d"].max()
    assert streamed["driver_nunique_rider_id_7d"].max() > 5
    frame = pd.DataFrame({"driver_id": drivers, "event_timestamp": pd.Timestamp(NOW).as_unit("us"), AT: at})
    past = store.get_historical_features(frame, service, filter_by_created_timestamp=True).to_df()
    assert unequal(streamed, past[list(spec.names)].astype(np.float64)) == []

    client.flushall()
    assert online()["driver_count_7d"].max() == 0
    store.materialize(NOW - timedelta(days=30), NOW, feature_views=["driver_rides"])
    assert unequal(streamed, online()) == []


def test_a_function_that_the_engine_lacks_is_refused_at_apply_with_those_it_has(tmp_path: Path, redis_server: str):
    applied = repository(tmp_path, redis_server, declared("median") + FINISHED)
    assert applied.returncode != 0
    said = applied.stdout + applied.stderr
    assert "View 'driver_rides': aggregation median(rider_id) is not supported; " in said
    assert "Supported: count, sum, mean, std, min, max, nunique, seconds_since_last." in said


@pytest.mark.parametrize(
    ("definitions", "said"),
    [
        (declared("median"), r"median\(rider_id\) is not supported.* Supported: count, sum, mean"),
        (declared(key="Float64", kind="DOUBLE"), r"join key 'driver_id' is .*must be String, Int64 or Int32"),
    ],
    ids=["function", "key"],
)
def test_a_view_that_got_past_apply_is_refused_when_a_job_starts(
    tmp_path: Path, redis_server: str, definitions: str, said: str
):
    plan = Plan(lambda: unchecked(tmp_path, redis_server, definitions), "rides_stream")
    with pytest.raises(UnsupportedAggregation, match=said):
        plan.specs  # noqa: B018 - what a job asks for before its first record


def test_a_stream_that_feeds_no_view_is_refused(tmp_path: Path, redis_server: str):
    store = unchecked(tmp_path, redis_server, declared())
    with pytest.raises(LookupError, match=r"'payments' feeds no view with aggregations. Run `feast apply` first"):
        Plan(lambda: store, "payments").specs  # noqa: B018
    assert list(Plan(lambda: store, "rides_stream").specs) == ["driver_rides"]
