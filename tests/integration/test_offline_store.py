"""The as-of store through Feast's own interface, over Parquet and over Postgres: which row, which value, no row less.

The views are of drivers, not of cards: the store knows nothing of fraud.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureView, Field, OnDemandFeatureView, ValueType
from feast.data_source import PushMode, PushSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import SavedDatasetPostgreSQLStorage
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.types import Float64, Int64, String, UnixTimestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo import retrieval, sources
from feature_repo.retrieval import InvalidEntityRows
from feature_repo.sources import MissingTable
from tests.integration.drivers import (
    DAY,
    FARES,
    HOUR,
    KINDS,
    RIDES,
    SECOND,
    US,
    ParquetRepo,
    Repo,
    T,
    asked_at,
    driver,
    entities,
    repo_over,
    rides,
    stats,
    stats_view,
    trips_of,
    values,
    windowed,
)


@pytest.fixture(params=KINDS)
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> Repo:
    return repo_over(request.param, tmp_path, request)


@pytest.fixture
def parquet(tmp_path: Path) -> ParquetRepo:
    return ParquetRepo(tmp_path)


# --- Which row -------------------------------------------------------------------------------------------------------


def test_rows_with_only_future_features_are_kept_with_null(repo: Repo):
    repo.store.apply([driver, stats_view(repo)])
    repo.write("stats", stats((1, T, T, 10), (2, T + DAY, T + DAY, 20)))
    rows = entities((1, T - US), (1, T), (1, T + US), (2, T), (3, T))
    assert trips_of(repo, rows) == [None, 10, 10, None, None]


def test_duplicate_entity_rows_stay_duplicates_in_the_order_given(repo: Repo):
    repo.store.apply([driver, stats_view(repo)])
    repo.write("stats", stats((1, T, T, 10), (2, T, T, 20), (1, T + DAY, T, 11)))
    rows = entities((2, T), (1, T + DAY), (1, T), (2, T), (1, T + DAY), (1, T))
    assert trips_of(repo, rows) == [20, 11, 10, 20, 11, 10]


@pytest.mark.parametrize("backwards", [False, True])
def test_of_rows_of_one_event_time_the_one_created_last_counts(repo: Repo, backwards: bool):
    repo.store.apply([driver, stats_view(repo)])
    written = stats((1, T, T + HOUR, 10), (1, T, T + 3 * HOUR, 12), (1, T, T + 2 * HOUR, 11))
    repo.write("stats", written[::-1] if backwards else written)
    assert trips_of(repo, entities((1, T), (1, T + DAY))) == [12, 12]
    asked = entities((1, T + HOUR - US), *((1, T + n * HOUR) for n in (1, 2, 3)))
    assert trips_of(repo, asked, filter_by_created_timestamp=True) == [None, 10, 11, 12]


def test_a_row_lives_for_its_ttl_to_the_microsecond(repo: Repo):
    repo.store.apply([driver, stats_view(repo, ttl=HOUR)])
    repo.write("stats", stats((1, T - DAY, T, 9), (1, T, T, 10)))
    asked = entities((1, T), (1, T + HOUR), (1, T + HOUR + US), (1, T + DAY))
    assert trips_of(repo, asked) == [10, 10, None, None]


def test_a_ttl_counts_from_the_event_time_and_not_from_the_creation(repo: Repo):
    repo.store.apply([driver, stats_view(repo, ttl=HOUR)])
    repo.write("stats", stats((1, T, T + HOUR, 10)))
    asked = entities((1, T + HOUR), (1, T + HOUR + US))
    assert trips_of(repo, asked, filter_by_created_timestamp=True) == [10, None]


def test_a_row_that_was_created_later_is_invisible_until_then(repo: Repo):
    repo.store.apply([driver, stats_view(repo)])
    repo.write("stats", stats((1, T, T, 10), (1, T + HOUR, T + 3 * HOUR, 11)))
    asked = entities((1, T + 2 * HOUR), (1, T + 3 * HOUR - US), (1, T + 3 * HOUR))
    assert trips_of(repo, asked, filter_by_created_timestamp=True) == [10, 10, 11]
    assert trips_of(repo, asked) == [11, 11, 11], "unless it is asked for, creation doesn't count"


def test_an_older_row_that_was_created_later_never_wins_over_a_newer_one_that_is_visible(repo: Repo):
    repo.store.apply([driver, stats_view(repo)])
    repo.write("stats", stats((1, T, T + 5 * HOUR, 10), (1, T + HOUR, T + HOUR, 11), (1, T - HOUR, T + 9 * HOUR, 9)))
    asked = entities((1, T), (1, T + HOUR), (1, T + 5 * HOUR), (1, T + 10 * HOUR))
    assert trips_of(repo, asked, filter_by_created_timestamp=True) == [None, 11, 11, 11]


def test_the_latest_row_counts_with_its_nulls(repo: Repo):
    repo.store.apply([driver, stats_view(repo)])
    repo.write("stats", stats((1, T, T, 10), (1, T + HOUR, T, None)))
    assert trips_of(repo, entities((1, T), (1, T + HOUR))) == [10, None]


def test_of_rows_that_tie_without_a_creation_one_counts_and_none_is_added(repo: Repo):
    repo.store.apply([driver, stats_view(repo, source=repo.source(created=""))])
    repo.write("stats", stats((1, T, T, 10), (1, T, T, 11), (2, T, T, 20)))
    first, later, other = trips_of(repo, entities((1, T), (1, T + DAY), (2, T)))
    assert first in (10, 11)
    assert later in (10, 11)
    assert other == 20


def test_a_null_key_is_nobody_s(repo: Repo):
    repo.store.apply([*windowed(repo), stats_view(repo)])
    unknown = stats((1, T, T, 10), (2, T, T, 20)).assign(driver_id=pd.array([1, None], "Int64"))
    repo.write("stats", unknown)
    nobodys = rides(RIDES).assign(driver_id=pd.array([1] * 4 + [None] * 2, "Int64"))
    repo.write("rides", nobodys)
    rows = asked_at((1, T), (2, T)).assign(driver_id=pd.array([1, None], "Int64"))
    got = repo.store.get_historical_features(rows, ["stats:trips", "fares:driver_count_7d"]).to_df()
    assert values(got) == [10, None]
    assert values(got, "driver_count_7d") == [3, 0]


def oracle(
    features: list[tuple[int, int, int, int]], asked: list[tuple[int, int]], ttl: int, by_created: bool
) -> list[int | None]:
    """The rule itself, a loop over everything: features are (driver, at, made, value), questions (driver, at)."""
    answers: list[int | None] = []
    for key, now in asked:
        visible = [f for f in features if f[0] == key and f[1] <= now and (not by_created or f[2] <= now)]
        best = max(visible, key=lambda f: (f[1], f[2]), default=None)
        answers.append(best[3] if best and (not ttl or now - best[1] <= ttl) else None)
    return answers


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """One repository for all the random cases: views `ttl0` and `ttl4` over one table."""
    made = repo_over(request.param, tmp_path_factory.mktemp("random"), request)
    made.store.apply([driver, stats_view(made, name="ttl0"), stats_view(made, ttl=4 * US, name="ttl4")])
    return made


moments = st.integers(0, 12)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    features=st.lists(st.tuples(st.integers(1, 3), moments, moments), max_size=25, unique=True),
    asked=st.lists(st.tuples(st.integers(1, 4), moments), min_size=1, max_size=20),
    view=st.sampled_from([("ttl0", 0), ("ttl4", 4)]),
    by_created=st.booleans(),
    parts=st.integers(1, 3),
)
def test_the_join_is_what_a_loop_over_everything_finds(shared: Repo, features, asked, view, by_created, parts) -> None:  # type: ignore[no-untyped-def]
    numbered = [(*row, n) for n, row in enumerate(features)]
    frame = stats(*((key, T + at * US, T + made * US, n) for key, at, made, n in numbered))
    for part in range(3):
        shared.write("stats", frame.iloc[part::parts] if part < parts else frame.iloc[:0], part=f"p{part}")
    rows = entities(*((key, T + at * US) for key, at in asked))
    name, ttl = view
    got = values(shared.ask(rows, [f"{name}:trips"], filter_by_created_timestamp=by_created))
    assert got == oracle(numbered, asked, ttl, by_created)


# --- What goes in and what comes out ---------------------------------------------------------------------------------


def test_no_entity_rows_give_no_rows_and_every_column(repo: Repo):
    repo.store.apply([driver, stats_view(repo), *windowed(repo)])
    repo.write("stats", stats((1, T, T, 10)))
    repo.write("rides", rides(RIDES))
    got = repo.ask(asked_at((1, T))[:0], ["stats:trips", "fares:driver_count_1h"])
    assert got.empty
    assert list(got.columns) == ["driver_id", "event_timestamp", "n", "timestamp_us", "trips", "driver_count_1h"]


def test_entity_rows_may_be_a_query_over_the_store_s_tables(repo: Repo):
    repo.store.apply([driver, stats_view(repo)])
    repo.write("stats", stats((1, T, T, 10), (1, T + HOUR, T, 11)))
    repo.write("stats", stats((2, T, T, 20))[["trips", "made", "at", "driver_id"]], part="b")
    query = 'SELECT driver_id, "at" AS event_timestamp, trips AS expected FROM stats ORDER BY driver_id, "at"'
    got = repo.ask(query, ["stats:trips"])
    assert values(got) == values(got, "expected") == [10, 11, 20]
    assert str(got["event_timestamp"].dtype) == "datetime64[us, UTC]"


def test_a_parquet_part_may_have_columns_that_others_lack(parquet: ParquetRepo):
    parquet.store.apply([driver, stats_view(parquet)])
    parquet.write("stats", stats((1, T, T, 10), (1, T + HOUR, T, 11)))
    parquet.write("stats", stats((2, T, T, 20)).assign(bonus=5), part="b")
    got = parquet.ask('SELECT driver_id, "at", bonus FROM stats ORDER BY driver_id, "at"', ["stats:trips"])
    assert values(got, "bonus") == [None, None, 5]


def test_full_names_bear_the_view(repo: Repo):
    repo.store.apply([driver, stats_view(repo), *windowed(repo)])
    repo.write("stats", stats((1, T, T, 10)))
    repo.write("rides", rides(RIDES))
    got = repo.ask(asked_at((1, T)), ["stats:trips", "fares:driver_count_1h"], full_feature_names=True)
    assert list(got.columns)[-2:] == ["stats__trips", "fares__driver_count_1h"]


def test_columns_may_have_other_names_in_the_table(repo: Repo):
    """Key, feature and both instants are mapped; the columns of the table keep their own names."""
    mapping = {"id": "driver_id", "n_trips": "trips", "raw_at": "at", "raw_made": "made"}
    repo.store.apply([driver, stats_view(repo, source=repo.source(field_mapping=mapping))])
    stored = {new: old for old, new in mapping.items()}
    repo.write("stats", stats((1, T, T, 10), (1, T + HOUR, T + DAY, 11)).rename(columns=stored))
    asked = entities((1, T), (1, T + 2 * HOUR))
    assert trips_of(repo, asked) == [10, 11]
    assert trips_of(repo, asked, filter_by_created_timestamp=True) == [10, 10]
    repo.store.materialize(T - DAY, T + DAY)
    online = repo.store.get_online_features(["stats:trips"], [{"driver_id": 1}]).to_dict()
    assert online["trips"] == [11]
    repo.store.write_to_offline_store("stats", stats((1, T + 2 * HOUR, T, 12)).rename(columns=stored))
    assert trips_of(repo, asked) == [10, 12]


def test_one_view_may_be_joined_twice_under_other_keys(repo: Repo):
    view = stats_view(repo)
    repo.store.apply([driver, view])
    repo.write("stats", stats((1, T, T, 10), (2, T, T, 20)))
    here = view.with_name("here").with_join_key_map({"driver_id": "from_id"})
    there = view.with_name("there").with_join_key_map({"driver_id": "to_id"})
    service = FeatureService(name="both", features=[here, there])
    repo.store.apply([service])
    rows = pd.DataFrame({"from_id": [1, 2, 3], "to_id": [2, 1, 1], "event_timestamp": pd.Timestamp(T)})
    got = repo.store.get_historical_features(rows, service, full_feature_names=True).to_df()
    assert values(got, "here__trips") == [10, 20, None]
    assert values(got, "there__trips") == [20, 10, 10]


def test_views_over_one_feature_name_do_not_take_each_other_s_values(repo: Repo):
    """Both views have `trips`; the on-demand view of each must see its own, and never the entity row's."""
    second = stats_view(repo, name="second", source=repo.source("second"))
    total = OnDemandFeatureView(
        name="total",
        sources=[stats_view(repo), second],
        schema=[Field(name="both", dtype=Int64)],
        mode="pandas",
        udf=_both,
        udf_string="def _both(inputs):\n    return inputs[['stats__trips', 'second__trips']]"
        ".sum(axis=1).to_frame('both').astype('int64')\n",
    )
    repo.store.apply([driver, stats_view(repo), second, total])
    repo.write("stats", stats((1, T, T, 10)))
    repo.write("second", stats((1, T, T, 500)))
    got = repo.ask(entities((1, T)), ["stats:trips", "second:trips", "total:both"], full_feature_names=True)
    assert values(got, "total__both") == [510]


def _both(inputs: pd.DataFrame) -> pd.DataFrame:
    return inputs[["stats__trips", "second__trips"]].sum(axis=1).to_frame("both").astype("int64")


@pytest.mark.parametrize("schema", [[Field(name="price", dtype=Float64)], []], ids=["declared", "inferred"])
def test_a_view_without_entities_joins_by_time_alone(repo: Repo, schema: list[Field]):
    prices = pd.DataFrame({"at": [T, T + DAY], "made": [T, T + DAY], "price": [1.5, 1.75]})
    repo.write("fuel", prices)
    repo.store.apply(
        [FeatureView(name="fuel", entities=[], schema=schema, source=repo.source("fuel"), ttl=timedelta(0))]
    )
    assert values(repo.ask(entities((1, T - US), (2, T), (3, T + DAY)), ["fuel:price"]), "price") == [None, 1.5, 1.75]


def test_a_view_may_have_two_keys_and_any_type_of_feature(repo: Repo):
    town = Entity(name="town", join_keys=["town"], value_type=ValueType.STRING)
    view = FeatureView(
        name="pairs",
        entities=[driver, town],
        ttl=timedelta(0),
        schema=[
            *(Field(name=name, dtype=kind) for name, kind in (("driver_id", Int64), ("town", String))),
            *(Field(name=name, dtype=kind) for name, kind in (("note", String), ("since", UnixTimestamp))),
        ],
        source=repo.source("pairs"),
    )
    repo.store.apply([driver, town, view])
    since = pd.Timestamp("2001-02-03T04:05:06.000007Z")
    table = pd.DataFrame({"driver_id": [1, 1], "town": ["x", "y"], "note": ["a", "b"], "since": since})
    repo.write("pairs", table.assign(at=pd.Timestamp(T), made=pd.Timestamp(T)))
    got = repo.ask(entities((1, T), (1, T), (2, T)).assign(town=["y", "x", "x"]), ["pairs:note", "pairs:since"])
    assert values(got, "note") == ["b", "a", None]
    assert got["since"].tolist()[:2] == [since, since]
    assert str(got["since"].dt.tz) == "UTC"


@pytest.mark.parametrize("kind", ["datetime64[ns]", "datetime64[us]", "datetime64[ms, UTC]", "datetime64[ns, UTC]"])
def test_instants_of_any_resolution_are_compared_in_utc(repo: Repo, kind: str):
    repo.store.apply([driver, stats_view(repo)])
    stored = stats((1, T, T, 10), (1, T + HOUR, T + HOUR, 11))
    naive = "UTC" not in kind
    for column in ("at", "made"):
        stored[column] = (stored[column].dt.tz_localize(None) if naive else stored[column]).astype(kind)
    repo.write("stats", stored)
    asked = entities((1, T), (1, T + HOUR - SECOND), (1, T + HOUR))
    for zone in ("UTC", "Asia/Kolkata"):
        asked["event_timestamp"] = asked["event_timestamp"].dt.tz_convert(zone)
        assert trips_of(repo, asked) == [10, 10, 11]
        assert trips_of(repo, asked, filter_by_created_timestamp=True) == [10, 10, 11]


def test_entity_rows_without_the_key_are_refused_by_name(repo: Repo):
    repo.store.apply([driver, stats_view(repo)])
    repo.write("stats", stats((1, T, T, 10)))
    with pytest.raises(InvalidEntityRows, match=r"have no column driver_id; a view joins by it"):
        repo.ask(entities((1, T)).drop(columns="driver_id"), ["stats:trips"])


def test_entity_rows_without_an_instant_are_refused(repo: Repo):
    repo.store.apply([driver, stats_view(repo)])
    repo.write("stats", stats((1, T, T, 10)))
    rows = entities((1, T), (1, T))
    rows.loc[1, "event_timestamp"] = pd.NaT
    with pytest.raises(InvalidEntityRows, match=r"event_timestamp is null in 1 of 2"):
        repo.ask(rows, ["stats:trips"])
    with pytest.raises(InvalidEntityRows, match=r"have no column of type timestamp"):
        repo.ask(rows.drop(columns="event_timestamp"), ["stats:trips"])
    twice = entities((1, T)).rename(columns={"event_timestamp": "x"}).assign(y=pd.Timestamp(T))
    with pytest.raises(InvalidEntityRows, match=r"have x, y of type timestamp"):
        repo.ask(twice, ["stats:trips"])


def test_history_that_is_not_there_is_named(repo: Repo):
    repo.store.apply([driver, stats_view(repo)])
    place = r"postgresql://127.0.0.1:\d+/postgres" if repo.place.postgres_url else r"/.*stats"
    with pytest.raises(MissingTable, match=rf"Table 'stats': there is no history at {place}\. Load some first"):
        repo.ask(entities((1, T)), ["stats:trips"])


def test_a_folder_without_files_is_no_history(parquet: ParquetRepo):
    parquet.store.apply([driver, stats_view(parquet)])
    (parquet.root / "stats").mkdir()
    with pytest.raises(MissingTable, match=r"Table 'stats': there is no history at .*stats\. Load some first"):
        parquet.ask(entities((1, T)), ["stats:trips"])


def test_a_table_without_rows_gives_every_row_with_null(repo: Repo):
    repo.store.apply([*windowed(repo), stats_view(repo)])
    repo.write("stats", stats((1, T, T, 10))[:0])
    repo.write("rides", rides(RIDES[:0]))
    got = repo.ask(asked_at((1, T), (2, T)), ["stats:trips", *FARES])
    assert values(got) == [None, None]
    assert values(got, "driver_count_7d") == [0, 0]
    assert values(got, "driver_seconds_since_last") == [None, None]


def test_a_column_that_is_not_there_is_named(repo: Repo):
    repo.store.apply([driver, stats_view(repo)])
    repo.write("stats", stats((1, T, T, 10)).drop(columns="trips"))
    with pytest.raises(KeyError, match=r"Table 'stats' has no column trips; it has \['driver_id', 'at', 'made'\]"):
        repo.ask(entities((1, T)), ["stats:trips"])


def test_a_parquet_part_that_is_being_written_is_not_read(parquet: ParquetRepo, monkeypatch: pytest.MonkeyPatch):
    parquet.store.apply([driver, stats_view(parquet)])
    parquet.write("stats", stats((1, T, T, 10)))
    seen: list[list[Any]] = []
    write = pq.write_table

    def half(rows: pa.Table, path: Path) -> None:
        path.write_bytes(b"PAR1 and no more yet")
        seen.append(trips_of(parquet, entities((1, T + DAY))))
        write(rows, path)

    monkeypatch.setattr(sources.pq, "write_table", half)
    added = pa.Table.from_pandas(stats((1, T + HOUR, T, 11)), preserve_index=False)
    sources.append(parquet.store.get_data_source("stats"), parquet.root, added, "b")
    assert seen == [[10]]
    assert trips_of(parquet, entities((1, T + DAY))) == [11]
    assert sorted(path.name for path in (parquet.root / "stats").iterdir()) == ["a.parquet", "b.parquet"]


# --- Windowed views ---------------------------------------------------------------------------------------------------


def us(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // US


def window_oracle(
    events: Sequence[tuple[int, datetime, datetime, float, str]], rows: Sequence[tuple[int, datetime]], created: bool
) -> pd.DataFrame:
    """Every windowed feature of each (driver, instant) by a loop; 7 days are rounded outwards to 2 h."""
    found = []
    for key, at in rows:
        once: dict[str, tuple[datetime, float]] = {}
        for who, when, made, fare, ride in sorted(events, key=lambda event: event[2]):
            if who == key and when < at and (not created or made <= at):
                once.setdefault(ride, (when, fare))
        edge = at - 7 * DAY
        edges = {"1h": at - HOUR, "24h": at - DAY, "7d": edge - timedelta(microseconds=us(edge) % (2 * HOUR // US))}
        inside = {w: [fare for when, fare in once.values() if when >= edge] for w, edge in edges.items()}
        row = {f"driver_count_{window}": float(len(fares)) for window, fares in inside.items()}
        row |= {f"driver_sum_fare_{window}": float(sum(inside[window])) for window in ("1h", "7d")}
        row["driver_mean_fare_1h"] = float(np.mean(inside["1h"])) if inside["1h"] else np.nan
        last = max((when for when, _ in once.values()), default=None)
        row["driver_seconds_since_last"] = (at - last) / SECOND if last else np.nan
        found.append(row)
    return pd.DataFrame(found)


@pytest.mark.parametrize("created", [False, True])
@pytest.mark.parametrize(
    "asked",
    [
        [(1, T), (1, T + US), (1, T + 10 * SECOND - US), (1, T + 10 * SECOND), (2, T), (2, T + US), (3, T)],
        [(1, T + 60 * DAY), (2, T + 60 * DAY)],
        [(1, T - 3 * DAY), (1, T + 7 * DAY), (1, T + 7 * DAY), (1, T + 8 * DAY)],
    ],
    ids=["at the edges", "long after", "far apart"],
)
def test_windows_are_finished_as_of_each_row(repo: Repo, asked: list[tuple[int, datetime]], created: bool):
    repo.store.apply(windowed(repo))
    repo.write("rides", rides(RIDES))
    got = repo.ask(asked_at(*asked), FARES, filter_by_created_timestamp=created)
    expected = window_oracle(RIDES, asked, created)
    pd.testing.assert_frame_equal(got[list(expected.columns)], expected, check_exact=False, rtol=1e-12)


def test_the_last_event_is_the_last_that_was_known_however_old(repo: Repo):
    """Both are older than every window; of the later one nobody knew before the question, at which it is asked."""
    repo.store.apply(windowed(repo))
    events = [(1, T - 40 * DAY, T - 40 * DAY, 1.0, "a"), (1, T - 30 * DAY, T + SECOND, 1.0, "b")]
    repo.write("rides", rides(events))
    asked = [(1, T), (1, T + SECOND - US), (1, T + SECOND), (1, T + DAY)]
    for rows in (asked, asked[2:], asked[:1]):
        got = repo.ask(asked_at(*rows), FARES, filter_by_created_timestamp=True)
        expected = window_oracle(events, rows, True)["driver_seconds_since_last"]
        assert values(got, "driver_seconds_since_last") == expected.tolist()


event_times = st.integers(0, 9 * 24).map(lambda quarter: T - quarter * HOUR)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    drawn=st.lists(
        st.tuples(st.integers(1, 2), event_times, st.integers(-1, 300), st.integers(1, 9)), min_size=1, max_size=30
    ),
    asked=st.lists(st.tuples(st.integers(1, 3), event_times, st.integers(-1, 1)), min_size=1, max_size=12),
    created=st.booleans(),
)
def test_windows_are_what_a_loop_over_everything_finds(rides_repo: Repo, drawn, asked, created: bool) -> None:  # type: ignore[no-untyped-def]
    events = [(key, at, at + late * HOUR, float(fare), f"r{n}") for n, (key, at, late, fare) in enumerate(drawn)]
    questions = [(key, at + step * US) for key, at, step in asked]
    rides_repo.write("rides", rides(events))
    got = rides_repo.ask(asked_at(*questions), FARES, filter_by_created_timestamp=created)
    expected = window_oracle(events, questions, created)
    pd.testing.assert_frame_equal(got[list(expected.columns)], expected, check_exact=False, rtol=1e-12)


@pytest.fixture(scope="module", params=KINDS)
def rides_repo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    made = repo_over(request.param, tmp_path_factory.mktemp("rides"), request)
    made.store.apply(windowed(made))
    return made


def test_columns_of_events_may_have_other_names_in_the_table(repo: Repo):
    mapping = {"raw_at": "at", "raw_made": "made", "eur": "fare", "ride": "ride_id", "id": "driver_id"}
    repo.store.apply(windowed(repo, field_mapping=mapping))
    repo.write("rides", rides(RIDES).rename(columns={new: old for old, new in mapping.items()}))
    asked = [(1, T), (2, T), (1, T + 60 * DAY)]
    got = repo.ask(asked_at(*asked), FARES, filter_by_created_timestamp=True)
    expected = window_oracle(RIDES, asked, True)
    pd.testing.assert_frame_equal(got[list(expected.columns)], expected, check_exact=False, rtol=1e-12)


def test_chunks_of_a_large_training_set_fit_together(repo: Repo, monkeypatch: pytest.MonkeyPatch):
    """Stored, windowed and pandas-mode features; in the first chunk the latter have no value at all."""
    noted = OnDemandFeatureView(
        name="noted",
        sources=[stats_view(repo)],
        schema=[Field(name="note", dtype=String), Field(name="double", dtype=Float64)],
        mode="pandas",
        udf=_note,
        udf_string="def _note(inputs):\n    trips = inputs['stats__trips']\n    return inputs.assign("
        "note=trips.map(str, na_action='ignore').astype(object), double=trips * 2.0)[['note', 'double']]\n",
    )
    repo.store.apply([*windowed(repo), stats_view(repo), noted])
    repo.write("rides", rides(RIDES))
    repo.write("stats", stats((1, T, T, 10)))
    asked = [*((9, T - n * HOUR) for n in range(7)), (1, T), (1, T + US), (2, T), (1, T - US)]
    features = ["stats:trips", "noted:note", "noted:double", *FARES]
    whole = repo.ask(asked_at(*asked), features)
    monkeypatch.setattr(retrieval, "CHUNK", 3)
    pieces = repo.ask(asked_at(*asked), features)
    pd.testing.assert_frame_equal(pieces, whole)
    assert values(whole, "double")[7:] == [20.0, 20.0, None, None]
    assert values(whole, "note")[:7] == [None] * 7
    assert values(whole, "note")[7] is not None
    batches = list(repo.store.get_historical_features(asked_at(*asked), features).batches())
    assert [batch.num_rows for batch in batches] == [3, 3, 3, 2]


def _note(inputs: pd.DataFrame) -> pd.DataFrame:
    trips = inputs["stats__trips"]
    note = trips.map(str, na_action="ignore").astype(object)
    return inputs.assign(note=note, double=trips * 2.0)[["note", "double"]]


# --- Materialisation, writing and saving ------------------------------------------------------------------------------


@pytest.mark.parametrize("backwards", [False, True])
def test_the_latest_row_goes_online_and_of_equal_times_the_one_created_last(repo: Repo, backwards: bool):
    repo.store.apply([driver, stats_view(repo)])
    written = stats((1, T, T + 2 * HOUR, 12), (1, T, T + HOUR, 11), (1, T - HOUR, T + 9 * HOUR, 9), (2, T + DAY, T, 20))
    repo.write("stats", written[::-1] if backwards else written)
    repo.store.materialize(T - DAY, T)
    online = repo.store.get_online_features(["stats:trips"], [{"driver_id": 1}, {"driver_id": 2}]).to_dict()
    assert online["trips"] == [12, None], "the end is inclusive, what lies after it is not"
    # Feast's engine removes duplicates once more; what the store itself gives has none.
    job = repo.store._get_provider().offline_store.pull_latest_from_table_or_query(
        repo.store.config, repo.source(), ["driver_id"], ["trips"], "at", "made", T - DAY, T
    )
    assert values(job.to_df()) == [12]


def test_rows_written_through_feast_are_read_back(repo: Repo):
    repo.store.apply([driver, stats_view(repo)])
    repo.write("stats", stats((1, T, T, 10)))
    added = stats((1, T + HOUR, T + HOUR, 11), (2, T, T, 20)).set_index(pd.Index([7, 9]))
    added["trips"] = added["trips"].astype("float64")
    repo.store.write_to_offline_store("stats", added[["trips", "made", "at", "driver_id"]])
    assert trips_of(repo, entities((1, T), (1, T + HOUR), (2, T))) == [10, 11, 20]
    if isinstance(repo, ParquetRepo):
        schemas = [pq.read_schema(part) for part in sorted((repo.root / "stats").iterdir())]
        assert len(schemas) == 2
        assert schemas[0].equals(schemas[1])
    with pytest.raises(ValueError, match="missing_expected_columns"):
        repo.store.write_to_offline_store("stats", added.drop(columns="trips"))


def test_what_is_pushed_once_for_two_views_is_in_history_once(repo: Repo):
    shared = PushSource(name="pushed", batch_source=repo.source())
    repo.store.apply([driver, *(stats_view(repo, name=name, source=shared) for name in ("first", "second"))])
    repo.write("stats", stats((1, T, T, 10)))
    added = stats((1, T + HOUR, T, 11), (2, T, T, 20))
    for _ in range(2):
        repo.store.push("pushed", added, to=PushMode.OFFLINE)
    table = sources.read(repo.source(), repo.place, ["trips"])
    assert sorted(table["trips"].to_pylist()) == [10, 11, 20]
    assert values(repo.ask(entities((1, T + HOUR), (2, T)), ["second:trips"])) == [11, 20]


def test_an_event_that_two_parts_hold_counts_once_as_it_came_first(repo: Repo):
    repo.store.apply(windowed(repo))
    repo.write("rides", rides(RIDES))
    again = rides(RIDES).assign(made=lambda frame: frame["made"] + HOUR, fare=1_000.0)
    repo.write("rides", again, part="b")
    got = repo.ask(asked_at((1, T + DAY), (2, T + DAY)), FARES, filter_by_created_timestamp=True)
    expected = window_oracle(RIDES, [(1, T + DAY), (2, T + DAY)], True)
    pd.testing.assert_frame_equal(got[list(expected.columns)], expected, check_exact=False, rtol=1e-12)


def test_a_part_can_be_taken_out_again(repo: Repo):
    repo.write("stats", stats((1, T, T, 10)))
    repo.write("stats", stats((2, T, T, 20)), part="b")
    for _ in range(2):
        sources.remove(repo.source(), repo.place, "a")
    assert sources.read(repo.source(), repo.place, ["trips"])["trips"].to_pylist() == [20]


def test_every_row_of_a_range_can_be_pulled(repo: Repo):
    view = stats_view(repo)
    repo.store.apply([driver, view])
    repo.write("stats", stats(*((1, T + n * HOUR, T, n) for n in range(5))))
    provider = repo.store._get_provider()
    job = provider.offline_store.pull_all_from_table_or_query(
        repo.store.config, view.batch_source, ["driver_id"], ["trips"], "at", "made", T + HOUR, T + 3 * HOUR
    )
    assert sorted(job.to_df()["trips"]) == [1, 2, 3]


# Feast says so of every saved data set.
@pytest.mark.filterwarnings("ignore:(Saving dataset|Retrieving datasets) is an experimental feature:RuntimeWarning")
def test_a_training_set_can_be_saved_and_read_again(repo: Repo):
    repo.store.apply([*windowed(repo), stats_view(repo)])
    repo.write("stats", stats((1, T, T, 10), (2, T, T, 20)))
    repo.write("rides", rides(RIDES))
    features = ["stats:trips", "fares:driver_count_7d"]
    job = repo.store.get_historical_features(asked_at((1, T), (2, T), (2, T - US)), features)
    in_postgres = repo.place.postgres_url
    target = SavedDatasetPostgreSQLStorage("saved") if in_postgres else SavedDatasetFileStorage(path="saved.parquet")
    saved = repo.store.create_saved_dataset(from_=job, name="drivers_of_may", storage=target)
    assert (saved.min_event_timestamp, saved.max_event_timestamp) == (T - US, T)
    again = repo.store.get_saved_dataset("drivers_of_may").to_df()
    assert (repo.root / "saved.parquet").is_file() is not bool(in_postgres)
    again = again.sort_values(["event_timestamp", "driver_id"])
    assert values(again) == [None, 10, 20]
    assert values(again, "driver_count_7d") == [1, 3, 1]
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.persist(target)
    job.persist(target, allow_overwrite=True)


def test_the_columns_of_a_view_without_schema_are_inferred_from_the_store_s_table(repo: Repo):
    repo.write("stats", stats((1, T, T, 10)))
    view = FeatureView(name="stats", entities=[driver], ttl=timedelta(0), source=repo.source())
    repo.store.apply([driver, view])
    assert [field.name for field in repo.store.get_feature_view("stats").features] == ["trips"]
    assert trips_of(repo, entities((1, T))) == [10]
