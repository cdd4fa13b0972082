"""The quality job over a real decision log and label history: what is full, what is partial, and what was promised."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import redis

from feature_repo import sources
from feature_repo.contract import EVIDENCE_FILE
from feature_repo.schema import LABEL_SCHEMA
from feature_repo.settings import Settings
from feature_repo.store import apply
from monitoring import job_results, quality_job
from monitoring.decision_log import LoggedDecision
from tests import tiny_model
from tests.integration.decisions import log, made
from training.triggers import measured

AT = datetime(2026, 3, 25, tzinfo=UTC)
DAY = timedelta(days=1)
WEEK = 700
PROMISED = {"precision": 0.8, "recall": 0.7, "average_precision": 0.6, "auc_roc": 0.95, "ece": 0.002, "brier": 0.01}


def week(
    begin: datetime, version: str, seed: int, card: str = "", model: str = "judged"
) -> tuple[list[LoggedDecision], pd.DataFrame]:
    """Decisions of seven days on a score that is the true probability, and the labels of their payments."""
    random = np.random.default_rng(seed)
    scores = random.beta(0.15, 2.0, WEEK)
    fraud = random.random(WEEK) < scores
    decisions, labels = [], []
    for place, score in enumerate(scores):
        paid = begin + 7 * DAY * (place + 0.5) / WEEK
        name = f"{begin:%m%d}{card}-{place}"
        said = "decline" if score >= 0.6 else "review" if score >= 0.3 else "approve"
        one = made(
            place, transaction_id=name, timestamp=paid, fraud_probability=float(score), decision=said,
            model_version=version, model_name=model,
        )  # fmt: skip
        request = json.loads(one.request) | {"card_id": card or f"card-{seed}-{place}"}
        answer = json.loads(one.answer) | {"timestamp": paid.isoformat()}
        decisions.append(replace(one, request=json.dumps(request).encode(), answer=json.dumps(answer).encode()))
        labels.append((name, request["card_id"], "m", paid, paid + 7 * DAY, paid + 7 * DAY, float(fraud[place])))
    return decisions, pd.DataFrame(labels, columns=LABEL_SCHEMA.names)


def publish(current: Settings, labels: pd.DataFrame) -> None:
    table = pa.Table.from_pandas(labels, preserve_index=False).cast(LABEL_SCHEMA)
    sources.add(apply(current).get_data_source("labels"), current.offline_path, table)


@pytest.fixture
def current(tmp_path: Path, redis_server: str, mlflow_server: str) -> Settings:
    with redis.Redis.from_url(redis_server) as client:
        client.delete("quality-decisions")
    return Settings(
        home=tmp_path, redis_url=redis_server, mlflow_url=mlflow_server, model_name="judged",
        decisions_stream="quality-decisions",
    )  # fmt: skip


@pytest.fixture(scope="module")
def version(mlflow_server: str) -> str:
    files = tiny_model.files(tiny_model.contract(("amount",)))
    files[EVIDENCE_FILE] = json.dumps(
        {"metrics": {name: [x, x - 0.01, x + 0.01] for name, x in PROMISED.items()}}
    ).encode()
    return tiny_model.publish(mlflow_server, "judged", files)


def gauges(current: Settings) -> dict[tuple[str, str], float]:
    found = job_results.read(current.home, quality_job.JOB)
    assert found is not None
    return {(one.metric, *one.labels.values()): one.value for one in found.gauges}


def test_full_and_partial_weeks_are_told_apart(current: Settings, version: str):
    older, labels = week(AT - 14 * DAY - timedelta(hours=1), version, 1)
    younger, early = week(AT - 7 * DAY - timedelta(hours=1), version, 2)
    log(current, older + younger)
    # Of the younger week only chargebacks have come, after two days.
    early = early[early["is_fraud"] == 1].assign(known_at=early["timestamp"] + 2 * DAY)
    early = early[early["known_at"] <= AT].assign(published_at=early["known_at"])
    publish(current, pd.concat([labels, early]))
    found = quality_job.run(current, AT)
    full, partial = found["all"]["full"], found["all"]["partial"]
    assert (full["payments"], full["labelled_share"], full["frauds"]) == (WEEK, 1.0, int(labels["is_fraud"].sum()))
    assert (partial["payments"], partial["labelled"]) == (WEEK, len(early))
    assert partial["precision"] == 1.0, "of a week in which only frauds are labelled, which is why it is kept apart"
    given = gauges(current)
    assert given["live_labelled_share", "full"] == 1.0
    assert given["live_labelled_share", "partial"] == len(early) / WEEK
    decided = np.array([one.decision != "approve" for one in older])
    truth = labels["is_fraud"].to_numpy() == 1
    assert given["live_recall", "full"] == pytest.approx((decided & truth).sum() / truth.sum())
    assert given["live_precision", "full"] == pytest.approx((decided & truth).sum() / decided.sum())
    assert given["live_promised", "auc_roc"] == 0.95
    assert given["live_promised", "calibration_error"] == 0.002
    file = current.home / "monitoring" / "quality" / "full.json"
    assert measured(file, "recall", version) == given["live_recall", "full"], "what retraining reads"


def test_a_full_week_without_its_labels_raises_no_alarm_but_its_own(current: Settings, version: str):
    older, labels = week(AT - 14 * DAY - timedelta(hours=1), version, 1)
    log(current, older)
    publish(current, labels.head(WEEK // 2))
    quality_job.run(current, AT)
    given = gauges(current)
    assert given["live_labelled_share", "full"] == 0.5
    assert not [key for key in given if key[0] not in ("live_labelled_share", "live_promised")]
    assert json.loads((current.home / "monitoring" / "quality" / "full.json").read_text()) == {}


def test_each_version_has_its_own_figures_and_known_cards_are_aside(current: Settings, version: str):
    begin = AT - 14 * DAY - timedelta(hours=1)
    ours, labels = week(begin, version, 1)
    theirs, their_labels = week(begin + timedelta(minutes=1), "99", 3, card="stolen")
    log(current, ours + theirs)
    earlier = their_labels.head(1).assign(transaction_id="before", timestamp=begin - 9 * DAY, is_fraud=1.0)
    publish(current, pd.concat([labels, their_labels, earlier.assign(published_at=begin - 2 * DAY)]))
    found = quality_job.run(current, AT)
    assert set(found["versions"]) == {f"judged {version}"}, "every payment of the other one is of a known card"
    assert found["all"]["full"]["payments"] == 2 * WEEK


def test_without_labels_or_decisions_it_runs_and_says_nothing(current: Settings, version: str):
    found: dict[str, Any] = quality_job.run(current, AT)
    assert found["all"]["full"]["payments"] == 0
    assert {key[0] for key in gauges(current)} == {"live_promised"}
    assert "no payment" in quality_job.told(found)


def test_without_mlflow_the_command_says_so_and_fails(
    current: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    away = current.model_copy(update={"mlflow_url": "http://127.0.0.1:9"})
    monkeypatch.setattr(quality_job, "settings", lambda: away)
    assert quality_job.main([]) == 1
    assert "The quality job could not run. NoChampion: MLflow at http://127.0.0.1:9 does not answer" in (
        capsys.readouterr().err
    )
