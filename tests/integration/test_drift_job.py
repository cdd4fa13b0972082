"""The drift job over a real decision log, a registered champion and a label history."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import redis

from feature_repo import sources
from feature_repo.contract import EVIDENCE_FILE, LABEL, REFERENCE_FILE, SCORE
from feature_repo.schema import LABEL_SCHEMA
from feature_repo.settings import Settings
from feature_repo.store import apply
from monitoring import drift_job, job_results
from monitoring.champion import NoChampion, champion
from monitoring.decision_log import LoggedDecision
from monitoring.decision_table import append, connect, create
from monitoring.decision_window import NoDecisions, Period, every, sampled
from monitoring.parts import environment
from tests import tiny_model
from tests.integration.decisions import log, made
from tests.postgres_server import Postgres

AT = datetime(2026, 3, 20, tzinfo=UTC)
COLUMNS = ("amount", "is_night", "card_count_24h", "merchant_mean_amount_7d")
SERVICE = "fraud_v2"
WEEK = 1_500


def payments(rows: int, seed: int, amount: float = 1.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "amount": rng.lognormal(3.5, 1.0, rows) * amount,
            "is_night": (rng.random(rows) < 0.1).astype(float),
            "card_count_24h": rng.poisson(3.0, rows).astype(float),
            "merchant_mean_amount_7d": np.where(rng.random(rows) < 0.2, np.nan, rng.gamma(9, 5, rows)),
        }
    ).astype(np.float32)


def scores(frame: pd.DataFrame) -> np.ndarray:
    return 1 / (1 + np.exp(2.0 - frame["amount"].to_numpy(np.float64) / 100))


def decided(frame: pd.DataFrame, begin: datetime, version: str, **said: Any) -> list[LoggedDecision]:
    """A week's decisions on these vectors."""
    contract, found = tiny_model.contract(COLUMNS), []
    for place, score in enumerate(scores(frame)):
        paid = begin + timedelta(days=7) * (place + 0.5) / len(frame)
        one = made(
            place,
            transaction_id=f"{begin:%m%d}-{place}",
            timestamp=paid,
            fraud_probability=float(score),
            **{"decision": contract.decide(score)[0], "model_version": version, "model_name": "drifting", **said},
        )
        answer = json.dumps(json.loads(one.answer) | {"timestamp": paid.isoformat()}).encode()
        vector = frame.iloc[place].to_numpy(np.float32)
        found.append(replace(one, vector=vector, answer=answer, feature_service=SERVICE))
    return found


def label_rows(begin: datetime, count: int, frauds: float) -> pa.Table:
    at = [begin + timedelta(days=7) * (place + 0.5) / count for place in range(count)]
    known = [one + timedelta(days=7) for one in at]
    rows = {
        "transaction_id": [f"l{begin:%m%d}-{place}" for place in range(count)],
        "card_id": "c", "merchant_id": "m", "timestamp": at, "known_at": known, "published_at": known,
        "is_fraud": (np.arange(count) < frauds * count).astype(float),
    }  # fmt: skip
    return pa.Table.from_pandas(pd.DataFrame(rows)[LABEL_SCHEMA.names], preserve_index=False).cast(LABEL_SCHEMA)


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory, redis_server: str, mlflow_server: str) -> Settings:
    home = tmp_path_factory.mktemp("drift")
    return Settings(
        home=home, redis_url=redis_server, mlflow_url=mlflow_server, model_name="drifting",
        decisions_stream="drift-decisions",
    )  # fmt: skip


@pytest.fixture(scope="module")
def version(current: Settings) -> str:
    """The registered champion, and its labels in history."""
    reference = payments(8_000, 1)
    reference[SCORE] = scores(reference)
    reference[LABEL] = (np.arange(len(reference)) % 100 == 0).astype("int8")
    out = io.BytesIO()
    reference.to_parquet(out)
    files = tiny_model.files(tiny_model.contract(COLUMNS))
    files |= {REFERENCE_FILE: out.getvalue(), EVIDENCE_FILE: json.dumps({"metrics": {}}).encode()}
    store = apply(current)
    for weeks in (3, 2):
        begin = AT - timedelta(days=7 * weeks)
        sources.add(store.get_data_source("labels"), current.offline_path, label_rows(begin, 2_000, 0.01))
    return tiny_model.publish(current.mlflow_url, current.model_name, files)


@pytest.fixture
def stream(current: Settings) -> Settings:
    with redis.Redis.from_url(current.redis_url) as client:
        client.delete(current.decisions_stream)
    return current


def weeks(version: str, amount: float = 1.0) -> list[LoggedDecision]:
    before = decided(payments(WEEK, 2), AT - timedelta(days=14), version)
    return before + decided(payments(WEEK, 3, amount), AT - timedelta(days=7), version)


def gauge(current: Settings, metric: str, **labels: str) -> float:
    found = job_results.read(current.home, drift_job.JOB)
    assert found is not None
    (value,) = [one.value for one in found.gauges if (one.metric, one.labels) == (metric, labels)]
    return value


def test_the_job_is_quiet_where_nothing_moved(stream: Settings, version: str):
    fallback = decided(payments(40, 9), AT - timedelta(days=1), "1", model_role="fallback")
    log(stream, weeks(version) + [replace(one, feature_service="fraud_request_v1") for one in fallback])
    found = drift_job.run(stream, AT)
    assert (found["champion"], found["decisions"], found["sampled"]) == (version, WEEK, WEEK)
    assert {name: each["drifted"] for name, each in found["against"].items()} == {"training": [], "last_week": []}
    columns = {one["column"] for one in found["against"]["training"]["columns"]}
    assert columns == {*COLUMNS, "merchant_mean_amount_7d is null", "score", "decision", "is_fraud"}
    assert gauge(stream, "drift_share") == 0.0
    assert gauge(stream, "feature_nulls", feature="merchant_mean_amount_7d") == pytest.approx(0.2, abs=0.05)
    assert 0 <= gauge(stream, "label_drift") < gauge(stream, "feature_drift_threshold", feature="is_fraud")
    for name in ("training", "last_week"):
        assert (stream.home / "monitoring" / "drift" / name / "drift.html").stat().st_size > 100_000
    assert len(list((stream.home / "monitoring" / "evidently").rglob("snapshots/*.json"))) == 2


def test_the_command_names_what_moved_and_ends_well(stream: Settings, version: str):
    log(stream, weeks(version, amount=1.3))
    command = [sys.executable, "-m", "monitoring.drift_job", "--at", AT.isoformat()]
    done = subprocess.run(
        command, env={**os.environ, **environment(stream)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = job_results.read(stream.home, drift_job.JOB)
    assert found is not None
    for name in ("training", "last_week"):
        moved = set(found.details["against"][name]["drifted"])
        assert {"amount", "score"} <= moved <= {"amount", "score", "decision"}
        assert f"against {name}: " in done.stdout
    assert gauge(stream, "score_drift") == gauge(stream, "feature_drift", feature="score") > 0.15


def test_a_control_payment_counts_as_the_decline_it_would_have_been(stream: Settings, version: str):
    logged = [
        replace(one, answer=one.answer.replace(b'"decision": "decline"', b'"decision":"approve","control_group":true'))
        for one in decided(payments(WEEK, 3), AT - timedelta(days=7), version)
    ]
    assert any(b"control_group" in one.answer for one in logged)
    log(stream, logged)
    side = drift_job.side(stream, champion(stream), Period(AT - timedelta(days=7), AT), AT, WEEK)
    shown = side.sample.rows["decision"].value_counts()
    meant = side.columns["decision"].value_counts()
    assert "decline" not in shown
    assert meant["decline"] == sum(b"control_group" in one.answer for one in logged)


def test_too_few_decisions_are_no_drift_and_no_failure(stream: Settings, version: str):
    log(stream, decided(payments(50, 3), AT - timedelta(days=7), version))
    found = drift_job.run(stream, AT)
    assert "at least 200" in found["nothing"]
    result = job_results.read(stream.home, drift_job.JOB)
    assert result is not None
    assert result.gauges == []


def test_without_a_champion_the_job_says_so_and_fails(stream: Settings, version: str, capsys: pytest.CaptureFixture):
    with pytest.raises(NoChampion, match="404 for the champion of 'nobody'"):
        drift_job.run(stream.model_copy(update={"model_name": "nobody"}), AT)


def test_a_sample_is_even_repeatable_and_no_larger_than_asked(stream: Settings, version: str):
    log(stream, weeks(version))
    period = Period(AT - timedelta(days=14), AT)
    first, again = (sampled(stream, period, SERVICE, 500) for _ in range(2))
    assert (len(first), first.seen) == (500, 2 * WEEK)
    assert first.rows.equals(again.rows)
    assert first.vectors.tobytes() == again.vectors.tobytes()
    late = (first.rows["paid_at"] >= AT - timedelta(days=7)).mean()
    assert late == pytest.approx(0.5, abs=0.1)
    amounts = payments(WEEK, 2)["amount"].tolist() + payments(WEEK, 3)["amount"].tolist()
    places = [int(name.partition("-")[2]) + WEEK * (name[:4] == "0313") for name in first.rows["transaction_id"]]
    assert first.vectors[:, 0].tolist() == [amounts[place] for place in places], "each row with its own vector"


def test_the_table_gives_what_the_log_gives(stream: Settings, version: str, postgres_server: Postgres):
    decisions = weeks(version)
    log(stream, decisions)
    tabled = stream.model_copy(update={"postgres_url": postgres_server.schema()})
    tabled = Settings(**tabled.model_dump(include={"home", "redis_url", "postgres_url", "decisions_stream"}))
    period = Period(AT - timedelta(days=7), AT)
    assert len(every(tabled, period)) == WEEK, "no table yet: the log is asked"
    with connect(tabled.postgres_url) as table:
        create(table)
        append(table, decisions)
    both = [every(one, period).sort_values("transaction_id", ignore_index=True) for one in (stream, tabled)]
    pd.testing.assert_frame_equal(*both, check_dtype=False)
    drawn = [sampled(one, period, SERVICE, 10_000) for one in (stream, tabled)]
    assert [one.seen for one in drawn] == [WEEK, WEEK]
    pd.testing.assert_frame_equal(drawn[0].rows, drawn[1].rows, check_dtype=False)
    assert drawn[0].vectors.tobytes() == drawn[1].vectors.tobytes()
    assert len(sampled(tabled, period, SERVICE, 100)) == 100


def test_a_log_in_kafka_cannot_be_asked_for_a_period(stream: Settings):
    over_kafka = stream.model_copy(update={"decision_log": "kafka"})
    with pytest.raises(NoDecisions, match=r"stream_jobs\.decisions"):
        every(over_kafka, Period(AT - timedelta(days=7), AT))
