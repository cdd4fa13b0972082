"""A backtest of the hour that a real service has just answered says what the service said, bit for bit."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from feature_repo.contract import ONNX_FILE, ModelContract
from feature_repo.historical import vectors
from feature_repo.parity_sample import PARITY_FILE, ParitySample
from feature_repo.schema import FIELDS
from feature_repo.settings import Settings
from feature_repo.store import apply, put_online
from feature_repo.vector import FEATURE_SERVICE
from monitoring.decision_log import read_decisions
from monitoring.processes import Platform, at_free_ports
from tests import tiny_model
from training import backfill, backtest, batch, skew_audit
from training.dataset import training_set
from training.datasets import synthetic
from training.export import onnx_scores, to_onnx
from training.hindsight import payments, score_column
from training.models import CANDIDATES
from training.registered import fetch

VIEWS = ["card_velocity", "merchant_velocity", *batch.BATCH_VIEWS]
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return synthetic.load(25_000, seed=3, days=40).transactions


def busiest(rows: pd.DataFrame) -> pd.Timestamp:
    """The hour of the last days in which most cards pay."""
    late = rows[rows["timestamp"] >= rows["timestamp"].max().floor("D") - timedelta(days=4)]
    return late.groupby(late["timestamp"].dt.floor("h"))["card_id"].nunique().idxmax()


def test_a_backtest_is_what_the_service_logged(rows: pd.DataFrame, tmp_path: Path, mlflow_server: str):
    live = busiest(rows)
    inside = rows[(rows["timestamp"] >= live) & (rows["timestamp"] < live + HOUR)]
    # Of a card and of a merchant one payment: nothing between them would have to go through the stream.
    asked = inside.drop_duplicates("card_id").drop_duplicates("merchant_id")
    assert len(asked) > 15
    patient = Settings(home=tmp_path, feature_budget=10.0, max_age=None, features_stale_after=None, reasons="off")
    current = at_free_ports(patient).model_copy(update={"mlflow_url": mlflow_server, "model_name": "backtest-served"})
    store = apply(current)
    backfill.load(rows[rows["timestamp"] < live], current, "history")
    first = rows["timestamp"].min().to_pydatetime()
    batch.publish(current, batch.midnights(live.to_pydatetime() - timedelta(days=2), live.to_pydatetime()), None)
    data = training_set(store, current, live.to_pydatetime() - timedelta(days=20), live.to_pydatetime())
    # Labels drawn at random: what it has learnt is not the question, and so it splits on every column.
    drawn = np.random.default_rng(1).random(len(data.rows)) < 0.3
    made = CANDIDATES["xgboost"](data.columns).set_params(n_estimators=30, n_jobs=1)
    graph = to_onnx(made.fit(data.vectors, drawn.astype("int8")), len(data.columns))
    contract = ModelContract(
        feature_service=FEATURE_SERVICE, columns=data.columns, review_from=0.1, decline_from=0.5,
        algorithm="xgboost", trained_until=live.isoformat(),
    )  # fmt: skip
    sample = ParitySample(data.columns, data.vectors[:9], onnx_scores(graph, data.vectors[:9]))
    files = tiny_model.files(contract) | {ONNX_FILE: graph, PARITY_FILE: sample.dumps()}
    version = tiny_model.publish(mlflow_server, current.model_name, files)
    with Platform(current) as platform:
        platform.start("redis")
        put_online(store, first, live.to_pydatetime(), VIEWS)
        platform.start("service")
        with httpx.Client(base_url=f"http://{current.host}:{current.port}", timeout=30) as client:
            for _, row in asked.iterrows():
                sent = {name: row[name] for name in FIELDS if pd.notna(row[name])}
                sent["timestamp"] = row["timestamp"].isoformat()
                client.post("/predict", json=sent).raise_for_status()
        audited = skew_audit.run(current, (live + HOUR).to_pydatetime(), settle=0.0)
        logged = {one.transaction_id: one for one in read_decisions(current.redis_url, current.decisions_stream)}
    assert (audited["audited"], audited["different"], audited["values_rounded_otherwise"]) == (len(asked), 0, 0)
    backfill.load(asked, current, "the hour")
    model = fetch(current, current.model_name, version, tmp_path / "version")
    period = live.to_pydatetime(), (live + HOUR).to_pydatetime()
    _, scored = backtest.run(current, [model], *period)
    assert set(scored["transaction_id"]) == set(logged) == set(asked["transaction_id"])
    recomputed, columns = vectors(store, payments(store, current, *period))
    assert columns == contract.columns
    for place, row in scored.iterrows():
        decision = logged[row["transaction_id"]]
        assert (decision.model_version, decision.feature_service) == (version, FEATURE_SERVICE)
        assert recomputed[place].tobytes() == decision.vector.tobytes()
        assert np.float64(row[score_column(model)]).tobytes() == np.float64(decision.probability).tobytes()
    assert scored[score_column(model)].nunique() > 3, "scores that are all alike would prove little"
    assert not np.isnan(recomputed).all(axis=0).all()
