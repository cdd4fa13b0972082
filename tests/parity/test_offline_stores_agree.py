"""One history in both profiles' stores: bit-identical training sets, and the same states online.

In the full profile everything that Feast keeps, registry and history, lies in a real Postgres.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from redis import Redis

from feature_repo import sources
from feature_repo.settings import Settings
from feature_repo.store import apply
from tests.parity.three_ways import online, unequal
from tests.postgres_server import Postgres
from training import backfill, batch
from training.dataset import training_set
from training.datasets.catalogue import load_dataset

PARQUET, POSTGRES = "embedded", "full"
DAY = timedelta(days=1)
DATABASES = {PARQUET: 6, POSTGRES: 7}
"""The Redis is the whole session's; these tests empty two databases of their own."""


class Profile:
    """A platform of one profile, with a history."""

    def __init__(self, current: Settings) -> None:
        self.current = current
        self.store: Any = apply(current)


@pytest.fixture(scope="module")
def history() -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Generated payments, some of them late and some at the same instant, and the cards' profiles."""
    dataset = load_dataset("synthetic", Settings().data, rows=12_000)
    rows = dataset.transactions.copy()
    draw = np.random.default_rng(3)
    late = draw.random(len(rows)) < 0.05
    rows.loc[late, "ingested_at"] = rows.loc[late, "ingested_at"] + pd.Timedelta(minutes=7)
    rows["timestamp"] = rows["timestamp"].where(draw.random(len(rows)) > 0.1, rows["timestamp"].dt.floor("h"))
    return rows, dataset.profiles


@pytest.fixture(scope="module")
def both(
    history: tuple[pd.DataFrame, pd.DataFrame | None],
    redis_server: str,
    postgres_server: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Profile]]:
    rows, profiles = history
    host = redis_server.rsplit("/", 1)[0]
    platforms = {}
    last = rows["timestamp"].max().to_pydatetime()
    for name, database in DATABASES.items():
        current = Settings(
            profile=name,
            home=tmp_path_factory.mktemp(name),
            redis_url=f"{host}/{database}",
            postgres_url=postgres_server.database(),
        )
        Redis.from_url(current.redis_url).flushdb()
        platforms[name] = platform = Profile(current)
        half = len(rows) // 2
        backfill.load(rows[: half + 500], current, "early")
        backfill.load(rows[half:], current, "late")  # 500 payments are delivered twice
        batch.publish(current, batch.midnights(last - 20 * DAY, last), profiles)
    yield platforms
    for platform in platforms.values():
        Redis.from_url(platform.current.redis_url).flushdb()


def test_the_full_profile_keeps_history_and_registry_in_postgres(both: dict[str, Profile]):
    current = both[POSTGRES].current
    with psycopg.connect(current.postgres_url) as connection:
        found = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        tables = {name for [name] in found}
        [[loaded]] = connection.execute("SELECT count(*) FROM transactions").fetchall()
    assert {"transactions", "labels", "card_profiles", "stream_feature_views", "feature_services"} <= tables
    assert loaded == 12_500
    assert sorted(path.name for path in current.home.iterdir()) == []


def test_training_sets_are_bit_identical(both: dict[str, Profile], history: tuple[pd.DataFrame, Any]):
    rows, _ = history
    begin, end = (rows["timestamp"].quantile(share).to_pydatetime() for share in (0.3, 0.8))
    sets = {name: training_set(platform.store, platform.current, begin, end) for name, platform in both.items()}
    parquet, postgres = sets[PARQUET], sets[POSTGRES]
    assert len(parquet.rows) > 4_000
    assert len(parquet.rows) == rows["timestamp"].between(begin, end, inclusive="left").sum(), "rows out = rows in"
    pd.testing.assert_frame_equal(parquet.rows, postgres.rows, check_exact=True)
    assert parquet.columns == postgres.columns
    assert np.array_equal(parquet.vectors.view(np.int32), postgres.vectors.view(np.int32))
    assert len(np.unique(parquet.vectors[:, parquet.columns.index("card_count_24h")])) > 3


def test_materialised_windows_are_the_same(both: dict[str, Profile], history: tuple[pd.DataFrame, Any]):
    rows, _ = history
    until = rows["timestamp"].quantile(0.9).floor("h").to_pydatetime()
    asked = rows[rows["timestamp"] >= until].head(300).reset_index(drop=True)
    answers = {}
    for name, platform in both.items():
        views = ["card_velocity", "merchant_velocity", *batch.BATCH_VIEWS]
        batch.put_online(platform.store, rows["timestamp"].min().to_pydatetime(), until, views)
        answers[name] = online(platform.store, asked)
    assert unequal(answers[PARQUET], answers[POSTGRES]) == []
    for name in ("card_count_24h", "merchant_count_30d", "merchant_count_is_fraud_30d", "card_count_90d"):
        assert answers[POSTGRES][name].nunique() > 2, name


def test_a_part_is_taken_out_of_every_table(both: dict[str, Profile], history: tuple[pd.DataFrame, Any]):
    rows, _ = history
    for platform in both.values():
        backfill.load(rows[:5], platform.current, "more")
        backfill.unload(platform.current, "more")
        source = platform.store.get_data_source("labels")
        assert sources.read(source, platform.current.offline_path, ["is_fraud"]).num_rows == 12_500
