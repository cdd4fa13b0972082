"""A history that exceeds the memory allowed gives what it gives in memory, to the bit, and leaves nothing behind."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from feast import Field, RequestSource, StreamFeatureView
from feast.data_source import PushSource
from feast.types import Bytes, Int64

from feature_repo import retrieval
from feature_repo.spill import Buckets
from feature_repo.transformations import on_demand, state_column, state_field
from feature_repo.windows import spec_of
from tests.integration.drivers import (
    FARES,
    KINDS,
    US,
    ParquetRepo,
    Repo,
    T,
    asked_at,
    repo_over,
    rides,
    stats,
    stats_view,
    windowed,
)

SPAN = 20 * 86_400_000_000
"""Microseconds over which events and questions are spread: some lie further back than any window reaches."""


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Events of each group of buckets that was read back."""
    sizes: list[int] = []
    take = Buckets.take

    def counted(self, group):  # type: ignore[no-untyped-def]
        events = take(self, group)
        sizes.append(len(events))
        return events

    monkeypatch.setattr(Buckets, "take", counted)
    return sizes


@pytest.fixture
def spilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "spilled"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(retrieval, "CHUNK", 300)
    return folder


@pytest.fixture(params=KINDS)
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> Repo:
    folder = tmp_path / "repo"
    folder.mkdir()
    made = repo_over(request.param, folder, request)
    made.store.apply([*windowed(made), stats_view(made)])
    return made


def instants(draw: np.random.Generator, n: int) -> list[int]:
    return [int(at) for at in draw.integers(-SPAN, SPAN // 4, n)]


def random_history(draw: np.random.Generator, n: int, drivers: int) -> pd.DataFrame:
    """Rides of which some come twice, some late, and some are nobody's."""
    rows = [
        (int(who), T + at * US, T + (at + int(late)) * US, float(fare), f"r{number}")
        for who, at, late, fare, number in zip(
            draw.integers(1, drivers, n),
            instants(draw, n),
            np.where(draw.random(n) < 0.2, draw.integers(0, SPAN // 2, n), 0),
            draw.normal(20, 9, n).round(2),
            draw.integers(0, n, n),
            strict=True,
        )
    ]
    frame = rides([*rows, *(rows[int(place)] for place in draw.integers(0, n, n // 10))])
    nobodys = draw.random(len(frame)) < 0.02
    return frame.assign(driver_id=pd.array(np.where(nobodys, None, frame["driver_id"]), "Int64"))


def random_questions(draw: np.random.Generator, n: int, drivers: int) -> pd.DataFrame:
    """Of drivers some of whom never rode, and of nobody."""
    rows = asked_at(*((int(who), T + at * US) for who, at in zip(draw.integers(1, 2 * drivers, n), instants(draw, n))))  # noqa: B905
    return rows.assign(driver_id=pd.array(np.where(draw.random(n) < 0.03, None, rows["driver_id"]), "Int64"))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_history_in_buckets_gives_what_it_gives_in_memory(
    repo: Repo, spilled: Path, taken: list[int], seed: int
) -> None:
    draw = np.random.default_rng(seed)
    frame = random_history(draw, 6_000, 60)
    repo.write("rides", frame.iloc[:4_000])
    repo.write("rides", frame.iloc[4_000:], part="b")
    repo.write("stats", stats(*((n, T, T, n) for n in range(1, 40))))
    rows = random_questions(draw, 2_000, 60)
    for by_created in (True, False):
        options = {"filter_by_created_timestamp": by_created}
        answers = []
        for memory in (None, 400_000, 1):
            repo.store.config.offline_store.memory = memory
            answers.append(repo.store.get_historical_features(rows, ["stats:trips", *FARES], **options).to_df())
            assert list(spilled.iterdir()) == []
            assert bool(taken) == (memory is not None)
        assert len(taken) > 60
        assert max(taken) < len(frame) // 2
        assert answers[0]["driver_count_7d"].sum() > 0
        assert answers[0]["driver_seconds_since_last"].isna().any()
        pd.testing.assert_frame_equal(answers[1], answers[0], check_exact=True)
        pd.testing.assert_frame_equal(answers[2], answers[0], check_exact=True)
        taken.clear()


def test_nothing_stays_on_disk_when_a_retrieval_is_broken_off(tmp_path: Path, spilled: Path, taken: list[int]) -> None:
    repo = ParquetRepo(tmp_path)
    repo.store.apply(windowed(repo))
    repo.store.config.offline_store.memory = 1
    draw = np.random.default_rng(3)
    repo.write("rides", random_history(draw, 1_000, 30))
    job = repo.store.get_historical_features(random_questions(draw, 1_000, 30), FARES)
    batches = job.batches()
    assert next(batches).num_rows == 300
    assert list(spilled.iterdir()) != []
    batches.close()
    assert list(spilled.iterdir()) == []
    assert taken


def test_a_failure_half_way_leaves_nothing_on_disk(
    tmp_path: Path, spilled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = ParquetRepo(tmp_path)
    repo.store.apply(windowed(repo))
    repo.store.config.offline_store.memory = 1
    draw = np.random.default_rng(4)
    repo.write("rides", random_history(draw, 1_000, 30))

    def fails(self, group):  # type: ignore[no-untyped-def]
        raise OSError("no space left on device")

    monkeypatch.setattr(Buckets, "take", fails)
    with pytest.raises(OSError, match="no space left"):
        repo.store.get_historical_features(random_questions(draw, 50, 30), FARES).to_df()
    assert list(spilled.iterdir()) == []


def test_a_table_without_events_needs_no_disk(tmp_path: Path, spilled: Path, taken: list[int]) -> None:
    repo = ParquetRepo(tmp_path)
    repo.store.apply(windowed(repo))
    repo.store.config.offline_store.memory = 0
    repo.write("rides", rides([])[:0])
    got = repo.store.get_historical_features(asked_at((1, T), (2, T + timedelta(days=1))), FARES).to_df()
    assert got["driver_count_7d"].tolist() == [0, 0]
    assert taken == []


def test_views_that_one_transformation_asks_together_stay_in_memory(
    tmp_path: Path, spilled: Path, taken: list[int]
) -> None:
    repo = ParquetRepo(tmp_path)
    entity, view, finishing = windowed(repo)
    again = StreamFeatureView(
        name="again",
        entities=[entity],
        ttl=view.ttl,
        timestamp_field="at",
        schema=[Field(name="driver_id", dtype=Int64), Field(name=state_field("again"), dtype=Bytes)],
        source=PushSource(name="again_stream", batch_source=repo.source("rides")),
        aggregations=view.aggregations,
        tags=view.tags,
    )
    asked = RequestSource(name="asked", schema=[Field(name="timestamp_us", dtype=Int64)])
    spec = spec_of("rides", "driver", "driver_id", "ride_id", view.aggregations).dumps()
    counts = [
        f"finish_columns({spec!r}, inputs, {state_column(name)!r}, 'timestamp_us')['driver_count_7d']"
        for name in ("rides", "again")
    ]
    imports = "from feature_repo.window_state import finish_columns"
    twice = on_demand("twice", [view, again, asked], ["both"], imports, f"{{'both': {' + '.join(counts)}}}", "")
    repo.store.apply([entity, view, again, finishing, twice])
    repo.store.config.offline_store.memory = 1
    draw = np.random.default_rng(5)
    repo.write("rides", random_history(draw, 1_000, 30))
    got = repo.store.get_historical_features(random_questions(draw, 500, 30), ["twice:both", "fares:driver_count_7d"])
    found = got.to_df()
    assert found["driver_count_7d"].sum() > 0
    assert found["both"].tolist() == (2 * found["driver_count_7d"]).tolist()
    assert taken == []
    assert list(spilled.iterdir()) == []
