"""The loop against a real MLflow: a champion that is worse live than promised is taken back, once, with its reason."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
import redis

from feature_repo.contract import EVIDENCE_FILE
from feature_repo.settings import Settings
from monitoring import job_results, quality_job
from tests import tiny_model
from tests.integration.decisions import log
from tests.integration.test_quality_job import AT, DAY, publish, week
from training import loop, promote_command
from training.marks import Busy, alone
from training.versions import Event, Versions

DUE = timedelta(days=7, hours=1)


@pytest.fixture
def current(tmp_path: Path, redis_server: str, mlflow_server: str) -> Settings:
    with redis.Redis.from_url(redis_server) as client:
        client.delete("loop-decisions")
    return Settings(
        home=tmp_path, redis_url=redis_server, mlflow_url=mlflow_server, model_name=f"looped-{time.time_ns()}",
        decisions_stream="loop-decisions",
    )  # fmt: skip


def version(current: Settings, promised: float, days_ago: float, left: str | None) -> str:
    """A version whose test had this precision and recall, promoted some days ago."""
    files = tiny_model.files(tiny_model.contract(("amount",)))
    metrics = {name: [promised, promised, promised] for name in ("precision", "recall")}
    files[EVIDENCE_FILE] = json.dumps({"metrics": metrics}).encode()
    made = tiny_model.publish(current.mlflow_url, current.model_name, files, None)
    event = Event(
        at=AT - days_ago * DAY, action="promoted", version=made, left=left, by="us", reason="", verdict="pass"
    )
    Versions(current).seat(event)
    return made


def live(current: Settings, *versions: str) -> None:
    """A full week of each version's decisions, half as good as 0.95."""
    found = [week(AT - 7 * DAY - DUE, one, int(one), f"card{one}-", current.model_name) for one in versions]
    log(current, [decision for decisions, _ in found for decision in decisions])
    publish(current, pd.concat([labels for _, labels in found]))


def rollbacks(current: Settings) -> float:
    found = job_results.counts(current.home)
    return sum(one.value for one in found if (one.metric, one.labels) == ("rollbacks", {"reason": "live_quality"}))


def test_a_champion_worse_live_than_promised_is_taken_back_once_with_its_reason(
    current: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    first = version(current, 0.3, 60, None)
    second = version(current, 0.95, 15, first)
    live(current, first, second)
    quality_job.run(current, AT)
    versions = Versions(current)

    assert loop.run(current, AT, dry_run=True)["decided"] == "rollback"
    assert versions.aliases() == {"champion": second}
    assert job_results.read(current.home, loop.JOB) is None

    for command in (loop, promote_command):
        monkeypatch.setattr(command, "settings", lambda: current)
    assert loop.main(["--at", AT.isoformat()]) == 0
    assert versions.aliases() == {"champion": first}
    last = versions.events()[-1]
    assert (last.action, last.version, last.left, last.at) == ("rolled back", first, second, AT)
    assert "promised 0.950" in last.reason
    found = job_results.read(current.home, loop.JOB)
    assert found is not None
    assert found.details["did"] == [{"action": "rollback", "because": last.reason, "champion": first, "left": second}]
    assert {one["metric"] for one in found.details["breaches"]} == {"precision", "recall"}
    assert rollbacks(current) == 1
    capsys.readouterr()
    assert promote_command.main(["history"]) == 0
    assert "promised 0.950" in " ".join(capsys.readouterr().out.split())

    again = loop.run(current, AT + timedelta(hours=1))
    assert again["decided"] == "nothing"
    assert again["unread"][0] == f"quality: its result is of version {second}, the champion is version {first}"
    quality_job.run(current, AT)
    assert loop.run(current, AT)["because"] == "drift: has not run", "the one before keeps its own promise"
    assert (rollbacks(current), len(versions.events())) == (1, 3)


def test_who_was_gone_back_to_is_trained_anew_and_not_taken_back(current: Settings):
    first = version(current, 0.3, 60, None)
    second = version(current, 0.95, 40, first)
    third = version(current, 0.95, 10, second)
    live(current, second, third)
    quality_job.run(current, AT)
    loop.run(current, AT)
    assert Versions(current).aliases() == {"champion": second}
    quality_job.run(current, AT)
    found = loop.run(current, AT)
    assert found["decided"] == "retrain"
    assert "somebody was taken back" in found["because"]
    assert found["did"][0]["failed"].startswith("NoPromise: "), "these versions have no figures in their runs"
    assert found["last_round"] is None, "a round that was not done is tried again"
    assert Versions(current).aliases() == {"champion": second}
    assert rollbacks(current) == 1


def test_two_loops_do_not_act_at_once(current: Settings):
    version(current, 0.3, 60, None)
    with alone(current.home / loop.JOB), pytest.raises(Busy):
        loop.run(current, AT)
    assert loop.run(current, AT)["decided"] == "nothing"
