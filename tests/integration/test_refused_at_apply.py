"""`feast apply` of views that the engine cannot execute, in a foreign repository whose file asks nobody for a spec."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureStore
from google.protobuf.json_format import MessageToDict

from feature_repo.store import connection_string
from feature_repo.windows import UnsupportedAggregation
from stream_jobs.engine import Plan

FEAST = Path(sys.executable).with_name("feast")

CONFIG = """
project: shop
provider: local
registry: {registry}
online_store: {{type: redis, connection_string: "{redis}"}}
offline_store: {{type: feature_repo.offline_store.TollgateOfflineStore, path: tables}}
batch_engine: {{type: feature_repo.compute_engine.WindowComputeEngine}}
entity_key_serialization_version: 3
"""
FILE = "registry.db"
SQL = "{registry_type: sql, path: 'sqlite:///%s'}"

DECLARED = """
from datetime import timedelta
from feast import Entity, Field, FileSource, PushSource, StreamFeatureView, ValueType
from feast.aggregation import Aggregation
from feast.types import Bytes, String

visits = FileSource(name="visits", path="visits", timestamp_field="at", created_timestamp_column="heard")
stream = PushSource(name="visits_stream", batch_source=visits)
def view(name, function, tags):
    entity = Entity(name=name, join_keys=[name + "_id"], value_type=ValueType.STRING)
    return entity, StreamFeatureView(
        name=name + "_visits", entities=[entity], ttl=timedelta(0), timestamp_field="at", tags=tags, source=stream,
        schema=[Field(name=name + "_id", dtype=String), Field(name=name + "_visits_state", dtype=Bytes)],
        aggregations=[Aggregation(column="seconds", function=function, time_window=timedelta(hours=%d))],
    )
buyer, buyer_visits = view("buyer", "%s", {"event_id": "visit_id"})
page, page_visits = view("page", "%s", %s)
"""
GOOD = DECLARED % (1, "sum", "max", {"event_id": "visit_id"})
OTHER_WINDOW = DECLARED % (2, "sum", "max", {"event_id": "visit_id"})
BAD = DECLARED % (2, "median", "max", {})


def apply(folder: Path, redis_url: str, definitions: str, registry: str = FILE) -> subprocess.CompletedProcess[str]:
    text = CONFIG.format(registry=registry, redis=connection_string(redis_url))
    (folder / "feature_store.yaml").write_text(text)
    (folder / "shop.py").write_text(definitions)
    return subprocess.run([str(FEAST), "apply"], cwd=folder, capture_output=True, text=True, timeout=180)


def registered(folder: Path) -> Any:
    return MessageToDict(FeatureStore(repo_path=str(folder)).registry.proto())


SAID = (
    "View 'buyer_visits': aggregation median(seconds) is not supported. Supported: count, sum, mean, std, min, max, ",
    "View 'page_visits': it has no tag 'event_id' naming the column that identifies an event. Supported: count, sum, ",
)


def test_every_view_that_cannot_be_executed_is_named_and_the_registry_is_as_before(tmp_path: Path, redis_server: str):
    done = apply(tmp_path, redis_server, GOOD)
    assert done.returncode == 0, done.stderr
    before, file = registered(tmp_path), (tmp_path / FILE).read_bytes()
    done = apply(tmp_path, redis_server, BAD)
    assert done.returncode != 0
    for line in SAID:
        assert line in done.stderr
    assert (tmp_path / FILE).read_bytes() == file
    done = apply(tmp_path, redis_server, OTHER_WINDOW)
    assert done.returncode == 0, done.stderr
    assert registered(tmp_path) != before
    [buyer, _] = sorted(FeatureStore(repo_path=str(tmp_path)).list_stream_feature_views(), key=lambda view: view.name)
    assert buyer.aggregations[0].time_window == timedelta(hours=2)


def test_a_first_apply_that_is_refused_leaves_no_view(tmp_path: Path, redis_server: str):
    done = apply(tmp_path, redis_server, BAD)
    assert done.returncode != 0
    assert SAID[0] in done.stderr
    assert FeatureStore(repo_path=str(tmp_path)).list_stream_feature_views() == []


def test_what_a_sql_registry_has_taken_before_the_refusal_no_job_executes(tmp_path: Path, redis_server: str):
    done = apply(tmp_path, redis_server, BAD, SQL % (tmp_path / "registry.sqlite"))
    assert done.returncode != 0
    for line in SAID:
        assert line in done.stderr
    plan = Plan(lambda: FeatureStore(repo_path=str(tmp_path)), "visits_stream")
    with pytest.raises(UnsupportedAggregation, match=r"not supported|no tag 'event_id'"):
        plan.specs  # noqa: B018 - what a job asks for before its first record
