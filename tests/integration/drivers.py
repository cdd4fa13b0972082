"""Repositories of drivers and their rides over each kind of offline store, for what any of them must do alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RequestSource, ValueType
from feast import StreamFeatureView as WindowedView
from feast.aggregation import Aggregation
from feast.data_source import DataSource, PushSource
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
from feast.repo_config import RepoConfig
from feast.types import Bytes, Int64

from feature_repo import sources
from feature_repo.sources import Offline
from feature_repo.transformations import finished, state_field
from feature_repo.windows import EVENT_ID_TAG, spec_of

T = datetime(2024, 5, 6, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
US = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)


class Repo(ABC):
    """A Feast repository of its own, with our store below a temporary folder."""

    def __init__(self, folder: Path, postgres_url: str | None = None) -> None:
        self.root = folder / "offline"
        self.folder = folder
        self.place = Offline(self.root, postgres_url)
        self.root.mkdir()
        kind = "feature_repo.offline_store.TollgateOfflineStore"
        self.store = FeatureStore(
            config=RepoConfig(
                project="drivers",
                provider="local",
                registry=str(folder / "registry.db"),
                online_store={"type": "sqlite", "path": str(folder / "online.db")},
                offline_store={"type": kind, "path": str(self.root), "postgres_url": postgres_url},
                batch_engine={"type": "feature_repo.compute_engine.WindowComputeEngine"},
                entity_key_serialization_version=3,
                repo_path=folder,
            )
        )

    @abstractmethod
    def source(self, name: str = "stats", created: str = "made", **options: Any) -> DataSource:
        """The source of a table of this store."""

    @abstractmethod
    def write(self, table: str, frame: pd.DataFrame, part: str = "a") -> None:
        """Make the frame a part of the table, in place of what the part was."""

    def ask(self, rows: pd.DataFrame | str, features: Sequence[str], **options: Any) -> pd.DataFrame:
        """The retrieval; every entity row comes back once, in its order."""
        got = self.store.get_historical_features(rows, list(features), **options).to_df()
        if isinstance(rows, pd.DataFrame):
            assert len(got) == len(rows)
            for column in rows.columns.intersection(["n", "driver_id"]):
                assert got[column].tolist() == rows[column].tolist()
        return got


class ParquetRepo(Repo):
    """Over Parquet, written as any program might."""

    def source(self, name: str = "stats", created: str = "made", **options: Any) -> DataSource:
        return FileSource(name=name, path=name, timestamp_field="at", created_timestamp_column=created, **options)

    def write(self, table: str, frame: pd.DataFrame, part: str = "a") -> None:
        (self.root / table).mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), self.root / table / f"{part}.parquet")


class PostgresRepo(Repo):
    """Over Postgres, written by our own writer."""

    def source(self, name: str = "stats", created: str = "made", **options: Any) -> DataSource:
        return PostgreSQLSource(
            name=name, table=name, timestamp_field="at", created_timestamp_column=created, **options
        )

    def write(self, table: str, frame: pd.DataFrame, part: str = "a") -> None:
        sources.append(self.source(table), self.place, pa.Table.from_pandas(frame, preserve_index=False), part)


KINDS = ["parquet", "postgres"]


def repo_over(kind: str, folder: Path, request: pytest.FixtureRequest) -> Repo:
    """A repository over a store of this kind; the server is started for the first that needs it."""
    if kind == "parquet":
        return ParquetRepo(folder)
    return PostgresRepo(folder, request.getfixturevalue("postgres_server").schema())


def stats_view(repo: Repo, ttl: timedelta = timedelta(0), name: str = "stats", **options: Any) -> FeatureView:
    return FeatureView(
        name=name,
        entities=[driver],
        ttl=ttl,
        schema=[Field(name="driver_id", dtype=Int64), Field(name="trips", dtype=Int64)],
        source=options.pop("source", None) or repo.source(),
        **options,
    )


def stats(*rows: tuple[int, datetime, datetime, int | None]) -> pd.DataFrame:
    """Feature rows as (driver, event time, created, trips)."""
    frame = pd.DataFrame(list(rows), columns=["driver_id", "at", "made", "trips"])
    return frame.astype({"at": "datetime64[us, UTC]", "made": "datetime64[us, UTC]", "trips": "Int64"})


def entities(*rows: tuple[int, datetime]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=["driver_id", "event_timestamp"])
    frame["event_timestamp"] = frame["event_timestamp"].astype("datetime64[us, UTC]")
    return frame.assign(n=range(len(frame)))


def values(frame: pd.DataFrame, column: str = "trips") -> list[Any]:
    return [None if pd.isna(value) else value for value in frame[column]]


def trips_of(repo: Repo, rows: pd.DataFrame, **options: Any) -> list[Any]:
    return values(repo.ask(rows, ["stats:trips"], **options))


RIDES = [  # driver, instant, first known, fare, identifier
    (1, T - 2 * DAY, T - 2 * DAY, 5.0, "r0"),
    (1, T - HOUR, T - HOUR, 10.0, "r1"),
    (1, T - 30 * SECOND, T + 10 * SECOND, 30.0, "r2"),
    (1, T, T, 100.0, "r3"),
    (2, T - HOUR + US, T - HOUR + US, 7.0, "r4"),
    (2, T - HOUR + US, T - HOUR + 2 * US, 7.0, "r4"),
]
AGGREGATIONS = [
    *(Aggregation(column="", function="count", time_window=window) for window in (HOUR, DAY, 7 * DAY)),
    *(Aggregation(column="fare", function="sum", time_window=window) for window in (HOUR, 7 * DAY)),
    Aggregation(column="fare", function="mean", time_window=HOUR),
    Aggregation(function="seconds_since_last"),
]


def rides(rows: Sequence[tuple[int, datetime, datetime, float, str]]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=["driver_id", "at", "made", "fare", "ride_id"])
    frame["driver_id"] = frame["driver_id"].astype("int64")
    return frame.astype({"at": "datetime64[us, UTC]", "made": "datetime64[us, UTC]", "fare": "float64"})


def windowed(repo: Repo, **options: Any) -> list[Any]:
    """Entity, windowed view of rides and the on-demand view that finishes it."""
    spec = spec_of("rides", "driver", "driver_id", "ride_id", AGGREGATIONS)
    view = WindowedView(
        name="rides",
        entities=[driver],
        ttl=timedelta(0),
        timestamp_field="at",
        schema=[Field(name="driver_id", dtype=Int64), Field(name=state_field("rides"), dtype=Bytes)],
        source=PushSource(name="rides_stream", batch_source=repo.source("rides", **options)),
        aggregations=AGGREGATIONS,
        tags={EVENT_ID_TAG: "ride_id"},
    )
    asked = RequestSource(name="asked", schema=[Field(name="timestamp_us", dtype=Int64)])
    return [driver, view, finished("fares", view, asked, spec, "Windows of a driver's rides")]


FARES = [f"fares:{name}" for name in spec_of("rides", "driver", "driver_id", "ride_id", AGGREGATIONS).names]


def asked_at(*rows: tuple[int, datetime]) -> pd.DataFrame:
    frame = entities(*rows)
    return frame.assign(timestamp_us=frame["event_timestamp"].astype("int64"))
