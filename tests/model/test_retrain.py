"""Retraining: due or not, once for the same data, to its end however often it is killed, and never past the gate."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from feature_repo.settings import ROOT, Settings, settings
from feature_repo.store import apply
from monitoring import job_results
from monitoring.parts import environment
from tests.model.conftest import Past
from training import backfill, gates, gates_data, models, retrain, round_steps, train
from training.models_registry import ROUND_TAG, Registry
from training.registry import CHALLENGER
from training.retrain import BLOCKED, BUSY, DONE, UNFIT, WRONG
from training.round_steps import STEPS
from training.versions import Versions

DAYS = ["--train-days", "14", "--delay-days", "7", "--test-days", "7"]
QUICK = "logistic_regression"
ALL_RULES = gates.RULES


class Killed(BaseException):
    """As abrupt as a kill, as far as the code can see."""


def asked(*names: str) -> tuple[gates.Rule, ...]:
    """The gates of those names."""
    return tuple(rule for rule in ALL_RULES if rule.name in names)


@pytest.fixture(autouse=True)
def one_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is retrained is not the question here: one quick candidate, and a fallback of the same.

    Nor is what can be said of a week of so few payments: the gates that are asked are those that can say it.
    """
    monkeypatch.setattr(train, "CANDIDATES", {QUICK: models.CANDIDATES[QUICK]})
    monkeypatch.setattr(train, "ALGORITHM", QUICK)
    monkeypatch.setattr(gates, "RULES", asked("files", "columns", "parity", "outputs", "window"))
    for least, number in (("PAYMENTS", 500), ("FRAUDS", 10), ("CARDS", 3)):
        monkeypatch.setattr(gates_data, f"LEAST_{least}", number)


@pytest.fixture
def current(past: Past, tmp_path: Path) -> Settings:
    """The shared history, read from a home of its own, and a model of its own."""
    (tmp_path / "offline").symlink_to(past.settings.offline_folder)
    own = {"home": tmp_path, "registry_url": past.settings.registry, "model_name": f"retrained-{uuid4().hex[:8]}"}
    return past.settings.model_copy(update=own)


def versions(current: Settings) -> list[str]:
    return sorted((str(one.version) for one in Registry(current)._versions()), key=int)


def go(current: Settings, *given: str, now: datetime | None = None) -> dict[str, Any]:
    asked = retrain.arguments([*DAYS, *given])
    return retrain.run(current, asked, lambda line: None, lambda: now or datetime.now(UTC))


def test_nothing_is_done_where_nothing_is_due_and_a_done_round_stays_done(current: Settings):
    assert go(current) == {"triggers": [], "outcome": "nothing due", "code": DONE}
    first = go(current, "--every-days", "7")
    assert (first["outcome"], first["code"]) == ("challenger", DONE)
    assert [*first["seconds"]] == [*STEPS]
    registry = Registry(current)
    assert versions(current) == [first["version"]]
    assert registry.alias(CHALLENGER) == first["version"]
    assert registry.alias("champion") is None, "a round promotes nothing"
    assert registry.client.get_model_version(current.model_name, first["version"]).tags[ROUND_TAG] == first["round"]
    assert 0.5 < first["test"]["auc_roc"] <= 1
    idle = go(current, "--every-days", "7")
    assert (idle["outcome"], [one["fired"] for one in idle["triggers"]]) == ("nothing due", [False])
    again = go(current, "--every-days", "7", now=datetime.now(UTC) + timedelta(days=8))
    assert (again["outcome"], again["code"], again["seconds"]) == ("already done: challenger", DONE, {})
    assert (again["version"], again["round"], again["test"]) == (first["version"], first["round"], first["test"])
    other = go(current, "--force", "--train-days", "13")
    assert other["round"] != first["round"]
    assert versions(current) == [first["version"], other["version"]]
    counted = {one.labels["reason"]: one.value for one in job_results.counts(current.home)}
    assert counted == {"schedule": 1.0, "force": 1.0}, "a round that was done is not begun again"


def test_a_round_goes_step_by_step_as_far_as_it_is_asked_to(current: Settings):
    first = go(current, "--every-days", "7", "--until", "train")
    assert (first["outcome"], first["code"]) == ("done until train", DONE)
    assert [*first["seconds"]] == ["data", "validate", "train"]
    assert Registry(current).alias(CHALLENGER) is None
    again = go(current, "--force", "--until", "validate")
    assert (again["outcome"], again["seconds"]) == ("done until validate", {})
    rest = go(current, "--force")
    assert (rest["outcome"], [*rest["seconds"]]) == ("challenger", ["evaluate", "gate", "challenger"])
    assert rest["round"] == first["round"]


@pytest.mark.parametrize("place", range(len(STEPS)), ids=list(STEPS))
def test_a_round_killed_after_a_step_and_before_its_mark_goes_on(
    current: Settings, monkeypatch: pytest.MonkeyPatch, place: int
):
    name = list(STEPS)[place]
    ran: list[str] = []

    def counted(step: str, whole: Any) -> Any:
        def work(this: Any) -> Any:
            ran.append(step)
            return whole(this)

        return work

    def killed(this: Any) -> Any:
        STEPS_BEFORE[name](this)
        raise Killed

    STEPS_BEFORE = dict(STEPS)
    for step, whole in STEPS_BEFORE.items():
        monkeypatch.setitem(STEPS, step, counted(step, whole))
    monkeypatch.setitem(STEPS, name, killed)
    with pytest.raises(Killed):
        go(current, "--force")
    assert ran == list(STEPS)[:place]
    ran.clear()
    monkeypatch.setitem(STEPS, name, counted(name, STEPS_BEFORE[name]))
    outcome = go(current, "--force")
    assert outcome["outcome"] == "challenger"
    assert ran == list(STEPS)[place:], "what was done is not done again"
    assert versions(current) == [outcome["version"]], "and no version is registered twice"
    assert Registry(current).alias(CHALLENGER) == outcome["version"]


def test_a_process_killed_while_it_trains_leaves_a_round_that_the_next_one_ends(current: Settings):
    """SIGKILL, in a process of its own, between the registration of the version and the mark of it."""
    code = (
        "import os, signal, sys\n"
        "from training import models, retrain, train\n"
        "from training.models_registry import Registry\n"
        f"train.CANDIDATES = {{'{QUICK}': models.CANDIDATES['{QUICK}']}}; train.ALGORITHM = '{QUICK}'\n"
        "Registry.tag = lambda *given: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.exit(retrain.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--force", *DAYS],
        cwd=ROOT,
        env=os.environ | environment(current),
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(versions(current)) == 1
    outcome = go(current, "--force")
    assert "data" not in outcome["seconds"]
    assert "train" in outcome["seconds"]
    assert versions(current) == [outcome["version"]]


def test_a_version_that_is_clearly_worse_than_the_champion_is_blocked(
    current: Settings, monkeypatch: pytest.MonkeyPatch
):
    good = go(current, "--force")
    registry = Registry(current)
    registry.client.set_registered_model_alias(current.model_name, "champion", good["version"])
    registry.client.delete_registered_model_alias(current.model_name, CHALLENGER)
    whole = round_steps.Round.data

    def blinded(this: round_steps.Round) -> Any:
        """The training days say little of the test days: five labels of six are those of other payments."""
        found = whole(this)
        rows = found.rows
        told = (rows["timestamp"] >= this.protocol.train_end) | (np.arange(len(rows)) % 6 == 0)
        mixed = rows["is_fraud"].where(told, rows["is_fraud"].sample(frac=1, random_state=1).to_numpy())
        return type(found)(rows.assign(is_fraud=mixed.astype("int8")), found.vectors, found.columns)

    monkeypatch.setattr(round_steps.Round, "data", blinded)
    monkeypatch.setattr(gates, "RULES", asked("files", "columns", "window", "quality"))
    outcome = go(current, "--force", "--train-days", "15")
    assert (outcome["outcome"], outcome["code"]) == ("blocked", BLOCKED)
    assert {gate["name"]: gate["word"] for gate in outcome["gates"]}["quality"] != "pass"
    kept = Versions(current).last_verdict(outcome["version"])
    assert kept is not None
    assert (kept.champion, kept.blocked_by) == (good["version"], ("quality",)), "and the verdict lies with the version"
    assert registry.alias(CHALLENGER) is None
    again = go(current, "--force", "--train-days", "15")
    assert (again["outcome"], again["code"]) == ("already done: blocked", BLOCKED)


@pytest.fixture
def process(current: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """The process's own settings are these."""
    for name, value in environment(current).items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    yield current
    settings.cache_clear()


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return dict(json.loads(capsys.readouterr().out))


def test_the_command_s_exit_code_says_what_came_of_it(
    process: Settings, past: Past, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    figures = tmp_path / "figures.json"
    figures.write_text('{"average_precision": 0.0}')
    assert retrain.main([*DAYS, "--performance", str(figures)]) == WRONG
    assert "has no champion" in told(capsys)["because"]
    assert retrain.main([*DAYS, "--drift", str(tmp_path / "nowhere.json")]) == WRONG
    assert "cannot be read as JSON" in told(capsys)["because"]
    assert retrain.main(["--force", "--train-days", "400"]) == WRONG
    assert "Load more history" in told(capsys)["because"]
    with retrain.alone(process.home / "retraining"):
        assert retrain.main([*DAYS, "--force"]) == BUSY
    assert told(capsys)["outcome"] == "busy"
    drift = tmp_path / "drift.json"
    drift.write_text('{"summary": {"share": 0.5, "drifted": ["amount"]}}')
    assert retrain.main([*DAYS, "--drift", str(drift), "--out", str(tmp_path / "outcome.json")]) == DONE
    outcome = told(capsys)
    assert outcome == json.loads((tmp_path / "outcome.json").read_text())
    assert [one["name"] for one in outcome["triggers"]] == ["drift"]
    registry = Registry(process)
    registry.client.set_registered_model_alias(process.model_name, "champion", outcome["version"])
    version, promised = registry.promised("average_precision")
    assert (version, promised) == (outcome["version"], pytest.approx(outcome["test"]["average_precision"], abs=1e-3))
    figures.write_text(json.dumps({"average_precision": promised}))
    assert retrain.main([*DAYS, "--performance", str(figures)]) == DONE
    assert told(capsys)["outcome"] == "nothing due"
    assert retrain.main([*DAYS, "--performance", str(figures), "--skip-code", "99"]) == 99
    assert told(capsys)["outcome"] == "nothing due"
    figures.write_text(json.dumps({"average_precision": promised - 0.06}))
    assert retrain.main([*DAYS, "--performance", str(figures)]) == DONE
    assert told(capsys)["outcome"] == "already done: challenger"


def test_data_that_fail_a_gate_of_validation_are_not_trained_on(past: Past, tmp_path: Path):
    current = past.settings.model_copy(update={"home": tmp_path, "model_name": f"retrained-{uuid4().hex[:8]}"})
    apply(current)
    backfill.load(past.payments.assign(is_fraud=past.payments.index % 3 == 0), current, "history")
    (current.offline_folder / "card_profiles").symlink_to(past.settings.offline_folder / "card_profiles")
    with pytest.raises(retrain.DataQualityError, match="fraud rate"):
        go(current, "--force")
    assert versions(current) == []
    assert UNFIT == 3
