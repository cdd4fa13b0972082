"""Replays: the logged vector through the model that decided gives the logged score, to the last bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bentos import replay as command
from bentos.model import ModelFiles, load
from bentos.replay import NotReplayable, find, replay
from feature_repo.settings import Settings
from monitoring.decision_log import LoggedDecision
from monitoring.supervision import free_ports
from tests import tiny_model
from tests.integration.decisions import AT, log, made
from tests.integration.logs import unique
from tests.postgres_server import Postgres

COLUMNS = ["amount", "gone_since"]
"""One of them is a column that today's code has no more."""


@pytest.fixture
def current(redis_server: str, tmp_path: Path) -> Settings:
    [nobody] = free_ports(1)
    settings = Settings(
        home=tmp_path,
        redis_url=redis_server,
        mlflow_url=f"http://127.0.0.1:{nobody}",
        decisions_stream=unique("decisions"),
    )
    folder = tmp_path / "models" / settings.model_name / "3"
    folder.mkdir(parents=True)
    for name, content in tiny_model.files(tiny_model.contract(COLUMNS)).items():
        (folder / name).write_bytes(content)
    return settings


def scored(current: Settings, numbers: range) -> list[LoggedDecision]:
    """Decisions as version 3 makes them, a batch at a time."""
    folder = current.home / "models" / current.model_name / "3"
    files = ModelFiles(current.model_name, "3", folder, "cache")
    promised = tiny_model.contract(COLUMNS)
    model = load(
        files, role="champion", feature_service=promised.feature_service, columns=COLUMNS, review_threshold=None, now=AT
    )
    vectors = np.array([[number * 7.3, np.nan] for number in numbers], np.float32)
    probabilities = model.score(vectors).tolist()
    return [
        replace(made(number, fraud_probability=probability), vector=vector)
        for number, vector, probability in zip(numbers, vectors, probabilities, strict=True)
    ]


def test_every_decision_is_reproduced_from_the_cache_where_mlflow_is_away(current: Settings) -> None:
    log(current, scored(current, range(100)))
    done = replay(current, find(current, [f"t-{number}" for number in range(100)]))
    assert [one.same for one in done] == [True] * 100
    assert {one.decision.transaction_id for one in done} == {f"t-{number}" for number in range(100)}


def test_a_score_that_is_off_by_its_last_bit_is_told(
    current: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [decision] = scored(current, range(5, 6))
    off = float(np.nextafter(decision.probability, 1.0))
    answer: dict[str, Any] = json.loads(decision.answer) | {"transaction_id": "t-5", "fraud_probability": off}
    log(current, [replace(decision, answer=json.dumps(answer).encode())])
    assert run(current, monkeypatch, "t-5") == 1
    assert f"logged score {off!r}, now {decision.probability!r}. NOT THE SAME." in capsys.readouterr().err


def test_the_command_says_that_a_score_is_reproduced(
    current: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log(current, scored(current, range(2)))
    assert run(current, monkeypatch, "t-0", "t-1") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("Decision 't-0' (approve, 2026-03-04T12:00:00.003000Z) by tollgate-fraud version 3 ")
    assert all(line.endswith("reproduced bit for bit.") for line in said)


def test_what_cannot_be_replayed_is_told_with_the_reason(
    current: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(current, monkeypatch, "nobody-s") == 1
    assert "Decision 'nobody-s': must be on record; looked in Redis" in capsys.readouterr().err
    [decision] = scored(current, range(1))
    with pytest.raises(NotReplayable, match="its vector has 1 columns; tollgate-fraud version 3 takes 2"):
        replay(current, [replace(decision, vector=decision.vector[:1])])
    answer: dict[str, Any] = json.loads(decision.answer) | {"model_version": "4"}
    with pytest.raises(NotReplayable, match=r"does not answer.*4 does not exist"):
        replay(current, [replace(decision, answer=json.dumps(answer).encode())])


def test_a_decision_that_has_left_redis_is_found_in_the_table(current: Settings, postgres_server: Postgres) -> None:
    from monitoring.decision_table import append, connect, create

    current = Settings(**current.model_dump(exclude={"postgres_url"}), postgres_url=postgres_server.schema())
    with connect(current.postgres_url) as connection:
        create(connection)
        append(connection, scored(current, range(3)))
    assert [one.same for one in replay(current, find(current, ["t-2", "t-0"]))] == [True, True]


def test_a_version_that_is_not_in_the_cache_comes_from_mlflow(current: Settings, mlflow_server: str) -> None:
    name = unique("replayed")
    version = tiny_model.publish(mlflow_server, name, tiny_model.files(tiny_model.contract(COLUMNS)))
    [decision] = scored(current, range(8, 9))
    answer: dict[str, Any] = json.loads(decision.answer) | {"model_name": name, "model_version": version}
    there = current.model_copy(update={"mlflow_url": mlflow_server})
    assert replay(there, [replace(decision, answer=json.dumps(answer).encode())])[0].same
    missing = replace(decision, answer=json.dumps(answer | {"model_version": "77"}).encode())
    with pytest.raises(NotReplayable, match="77"):
        replay(there, [missing])


def run(current: Settings, monkeypatch: pytest.MonkeyPatch, *identifiers: str) -> int:
    monkeypatch.setattr("sys.argv", ["replay", *identifiers])
    monkeypatch.setattr(command, "settings", lambda: current)
    return command.main()
