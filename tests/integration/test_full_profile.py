"""The full profile by hand: `feature_store.full.yaml` and the `feast` command, over a real Postgres and Redis."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import psycopg
import pyarrow as pa
import pytest
import redis
import yaml

from feature_repo import sources
from feature_repo.schema import HISTORY_SCHEMA
from feature_repo.settings import REPO, Settings
from feature_repo.store import apply, feature_store, repo_config
from tests.parity.three_ways import online
from tests.postgres_server import Postgres
from training import backfill

FEAST = Path(sys.executable).with_name("feast")
NOW = datetime(2024, 5, 6, 12, tzinfo=UTC)
DATABASE = 8
"""The Redis is the whole session's; these tests empty a database of their own."""


class Workplace:
    """The committed `feature_store.full.yaml`, but for where Redis is, and the settings of the same platform."""

    def __init__(self, home: Path, redis_url: str, postgres_url: str) -> None:
        host = redis_url.removeprefix("redis://").split("/")[0]
        self.settings = Settings(
            profile="full", home=home, redis_url=f"redis://{host}/{DATABASE}", postgres_url=postgres_url
        )
        text = (REPO / "feature_store.full.yaml").read_text()
        assert text.count("redis:6379,db=0") == 1
        self._yaml = home / "store.yaml"
        self._yaml.write_text(text.replace("redis:6379,db=0", f"{host},db={DATABASE}"))

    def feast(self, *arguments: str) -> str:
        """What the command says in `feature_repo/`, where only the variables tell of the profile and its Postgres."""
        known = {"FRAUD_PROFILE": "full", "FRAUD_POSTGRES_URL": self.settings.postgres_url, "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            [str(FEAST), "-f", str(self._yaml), *arguments],
            cwd=REPO,
            env=os.environ | known,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, redis_server: str, postgres_server: Postgres
) -> Iterator[Workplace]:
    made = Workplace(tmp_path_factory.mktemp("full"), redis_server, postgres_server.database())
    made.feast("apply")
    backfill.load(payments(), made.settings, "history")
    yield made
    with redis.Redis.from_url(made.settings.redis_url) as client:
        client.flushdb()


def payments() -> pd.DataFrame:
    """Three payments of one card at one shop: 10, 30 and 50 at 1, 2 and 3 hours before `NOW`; the last was a fraud."""
    rows = pd.DataFrame({"amount": [50.0, 30.0, 10.0], "is_fraud": [1, 0, 0]})
    at = [NOW - timedelta(hours=hours) for hours in (3, 2, 1)]
    stamps = pd.Series(at).astype("datetime64[us, UTC]")
    rows = rows.assign(timestamp=stamps, ingested_at=stamps, transaction_id=["t3", "t2", "t1"])
    rows = rows.assign(card_id="card-1", merchant_id="shop").reindex(columns=[*HISTORY_SCHEMA.names, "is_fraud"])
    optional = [field.name for field in HISTORY_SCHEMA if field.nullable]
    return rows.assign(**dict.fromkeys(optional))


def test_feast_applies_materialises_and_serves_from_postgres(place: Workplace):
    assert "card_velocity" in place.feast("stream-feature-views", "list")
    since, until = NOW - timedelta(hours=2, minutes=30), NOW
    place.feast("materialize", f"{since:%FT%T}", f"{until:%FT%T}", "-v", "card_velocity", "-v", "merchant_velocity")
    asked = pd.DataFrame(
        {"card_id": ["card-1"], "merchant_id": ["shop"], "amount": [40.0], "timestamp": pd.Timestamp(NOW)}
    ).assign(transaction_id="t", merchant_category=None, country=None, channel=None)
    asked["timestamp"] = asked["timestamp"].astype("datetime64[us, UTC]")
    found = online(feature_store(place.settings), asked).iloc[0]
    assert (found["card_count_24h"], found["card_sum_amount_24h"], found["merchant_count_24h"]) == (3, 90.0, 3)
    assert (found["card_count_1h"], found["card_seconds_since_last"]) == (1, 3_600.0)


def test_what_the_command_applied_is_what_the_platform_finds(place: Workplace):
    with psycopg.connect(place.settings.postgres_url) as connection:
        [[views]] = connection.execute("SELECT count(*) FROM stream_feature_views").fetchall()
    assert views == 3
    source = feature_store(place.settings).get_data_source("transactions")
    assert sources.in_postgres(source)
    assert (source.timestamp_field, source.created_timestamp_column) == ("timestamp", "ingested_at")


def test_the_platform_s_own_part_of_the_stream_goes_into_the_same_table(place: Workplace):
    store = apply(place.settings)
    source = store.get_data_source("transactions")
    rows = payments().drop(columns="is_fraud").assign(transaction_id=["s1", "s2", "s3"])
    table = pa.Table.from_pandas(rows, schema=HISTORY_SCHEMA, preserve_index=False)
    for _ in range(2):  # a part that is written again after a crash
        sources.append(source, place.settings.offline_path, table, "transactions-1700000000000-0")
    found = sources.read(source, place.settings.offline_path, HISTORY_SCHEMA.names)
    sources.remove(source, place.settings.offline_path, "transactions-1700000000000-0")
    assert sorted(found["transaction_id"].to_pylist()) == ["s1", "s2", "s3", "t1", "t2", "t3"]
    assert found.schema.types == HISTORY_SCHEMA.types


def test_the_committed_file_names_no_address_but_redis_s(place: Workplace):
    content = yaml.safe_load((REPO / "feature_store.full.yaml").read_text())
    assert content["registry"]["path"] == content["offline_store"]["postgres_url"] == "${FRAUD_POSTGRES_URL}"
    config = repo_config(place.settings)
    assert config.offline_store.postgres_url == place.settings.postgres_url
    assert config.registry.path == place.settings.registry
    assert config.registry.path.startswith("postgresql+psycopg://")
    assert config.online_store.connection_string == place.settings.redis_url.removeprefix("redis://").replace(
        "/", ",db="
    )
