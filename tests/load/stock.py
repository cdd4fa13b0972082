"""Our offline store and Feast's own DuckDB store, asked the same: two views of stored rows, no windows.

Stock Feast executes no windows, so the views hold finished columns at event level. Both stores read the same Parquet
files and are asked about the same rows; the answers must be equal, value for value. No two rows of a view, nor a row
and a question, share an instant, because stores differ in what they make of ties.
"""

from __future__ import annotations

import importlib.util
import time
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64

from tests.load.apart import MeasurementFailed, apart
from tests.load.backfill import SPAN_DAYS
from tests.load.payments import ALIKE, PER_DAY, Ints, Payments, card_id, merchant_id, payments

STORES = {"ours": "feature_repo.offline_store.TollgateOfflineStore", "stock": "duckdb"}
VIEWS = {"card_stats": "card", "merchant_stats": "merchant"}
COLUMNS = ("count_24h", "mean_24h")

BYTES_PER_ROW = 25_000
"""Memory that the stock store takes for each row it is asked about (seen: 10 GB for 500,000, and more)."""

SPARE = 0.8
"""The share of the memory at hand that it may be expected to take."""


def measure(sizes: tuple[int, ...]) -> dict[str, Any]:
    """Seconds of both stores for each number of rows; the last one that fits into memory is the one reported."""
    if importlib.util.find_spec("ibis") is None:
        return {"stock_duckdb_seconds": None, "stock_missing": "it needs ibis: install tollgate[bench]"}
    found: dict[str, Any] = {"stock_duckdb_seconds": None, "stock_runs": {}}
    for rows in sizes:
        if rows * BYTES_PER_ROW > psutil.virtual_memory().available * SPARE:
            found["stock_runs"][str(rows)] = f"left out: it would take about {rows * BYTES_PER_ROW / 1e9:.0f} GB"
            continue
        run = found["stock_runs"][str(rows)] = _both(rows)
        if "stock_seconds" in run:
            found["stock_rows"], found["stock_duckdb_seconds"] = rows, run["stock_seconds"]
            found["same_views_seconds"] = run["ours_seconds"]
    return found


def _both(rows: int) -> dict[str, Any]:
    with TemporaryDirectory(prefix="tollgate-bench-") as folder:
        apart(make, folder=folder, rows=rows)
        run: dict[str, Any] = {}
        for store in STORES:
            try:
                answer = apart(retrieve, folder=folder, store=store)
            except MeasurementFailed as error:
                return {**run, f"{store}_failed": str(error)}
            run |= {f"{store}_{name}": value for name, value in answer.items()}
        different = differences(*(pq.read_table(Path(folder) / f"answer-{store}.parquet") for store in STORES))
    if different:
        raise AssertionError(f"Our store and Feast's DuckDB store differ for {rows} rows: {different}.")
    return {**run, "equal": True}


def make(folder: str, rows: int) -> dict[str, int]:
    """Write the tables of both views and the rows to ask about, `rows` of each."""
    drawn = payments(2 * rows, max(2 * rows // (SPAN_DAYS * PER_DAY), 1), **ALIKE)
    known, asked = np.arange(0, 2 * rows, 2), np.arange(1, 2 * rows, 2)
    value = np.random.default_rng(4).random((2, rows))
    for view, entity in VIEWS.items():
        stamps = _instants(drawn, known)
        columns = {f"{entity}_id": _ids(drawn, entity, known), "at": stamps, "created": stamps}
        values = {name: pa.array(value[place]) for place, name in enumerate(COLUMNS)}
        pq.write_table(pa.table({**columns, **values}), Path(folder) / f"{view}.parquet")
    ids = {f"{entity}_id": _ids(drawn, entity, asked) for entity in VIEWS.values()}
    questions = pa.table({"row": pa.array(np.arange(rows)), **ids, "event_timestamp": _instants(drawn, asked)})
    pq.write_table(questions, Path(folder) / "asked.parquet")
    return {"rows": rows}


def retrieve(folder: str, store: str) -> dict[str, float]:
    """Ask one store about all rows, and keep its answer."""
    root = Path(folder)
    asked: pd.DataFrame = pq.read_table(root / "asked.parquet").to_pandas()
    feast, features = _feast(root, store), [f"{view}:{name}" for view in VIEWS for name in COLUMNS]
    _ask(feast, asked.head(100), features)
    began = time.perf_counter()
    answer = _ask(feast, asked, features)
    seconds = time.perf_counter() - began
    pq.write_table(answer, root / f"answer-{store}.parquet")
    return {"seconds": round(seconds, 2)}


def differences(ours: pa.Table, stock: pa.Table) -> str:
    """The first difference between two answers, as text; empty where there is none."""
    if ours.num_rows != stock.num_rows:
        return f"{ours.num_rows} rows against {stock.num_rows}"
    left, right = (table.take(pc.sort_indices(table["row"])) for table in (ours, stock))
    for name in ("row", *(f"{view}__{column}" for view in VIEWS for column in COLUMNS)):
        a, b = (pc.cast(table[name], pa.float64()).to_numpy() for table in (left, right))
        if not np.array_equal(a, b, equal_nan=True):
            return f"{name} of row {int(np.flatnonzero(~((a == b) | (np.isnan(a) & np.isnan(b))))[0])}"
    return ""


def _ask(feast: Any, asked: pd.DataFrame, features: list[str]) -> pa.Table:
    return feast.get_historical_features(asked, features, full_feature_names=True).to_arrow()


def _feast(root: Path, store: str) -> FeatureStore:
    """A Feast repository of the two views with one of the stores."""
    own = {"path": str(root)} if store == "ours" else {}
    config = RepoConfig(
        project=store,
        provider="local",
        registry=str(root / f"{store}.db"),
        offline_store={"type": STORES[store], **own},
        online_store={"type": "sqlite", "path": str(root / f"{store}-online.db")},
        entity_key_serialization_version=3,
    )
    objects: list[Any] = []
    for view, name in VIEWS.items():
        entity = Entity(name=name, join_keys=[f"{name}_id"], value_type=ValueType.STRING)
        file = FileSource(path=str(root / f"{view}.parquet"), timestamp_field="at", created_timestamp_column="created")
        schema = [Field(name=column, dtype=Float64) for column in COLUMNS]
        objects += [entity, FeatureView(name=view, entities=[entity], schema=schema, source=file, ttl=timedelta(0))]
    made = FeatureStore(config=config)
    made.apply(objects)
    return made


def _ids(drawn: Payments, entity: str, places: Ints) -> pa.Array:
    numbers, name = (drawn.card, card_id) if entity == "card" else (drawn.merchant, merchant_id)
    return pa.array([name(number) for number in numbers[places].tolist()])


def _instants(drawn: Payments, places: Ints) -> pa.Array:
    return pa.array(drawn.ts[places]).cast(pa.timestamp("us", tz="UTC"))
