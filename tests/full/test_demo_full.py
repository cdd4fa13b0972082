"""The demo on the full profile without Docker: the same history gives the figures of the embedded profile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psycopg
import pytest

from feature_repo.settings import ROOT, Settings
from monitoring.full_profile import FullProfile
from tests.running import naming
from training import demo

DEMO = (sys.executable, "-m", "training.demo", "--dataset", "synthetic", "--rows", "6000", "--replay", "300")
FULL = (sys.executable, "-m", "monitoring.full_profile")
MACHINE_S = {"profile", "seconds", "drift_report"}
"""What a report says of the machine or the profile; the rest is of the payments and the models."""

OF_TIME = {"p50_ms", "p99_ms"}
ROUNDING = 1e-6
"""Scores are float32, and computed for whatever payments come together."""


def report(home: Path, *before: str) -> dict[str, Any]:
    """What a demo reports that was started by this command."""
    done = subprocess.run(
        [*before, *DEMO, "--reports", str(home / "reports")],
        cwd=ROOT,
        env=os.environ | {"FRAUD_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "served vectors recomputed from history: 300, different: 0" in done.stdout
    found: dict[str, Any] = json.loads((home / "reports" / "demo.json").read_text())
    lines = [json.loads(line)["answer"] for line in (home / "demo" / "answers.jsonl").read_text().splitlines()]
    return found | {"answers": {answer["transaction_id"]: answer for answer in lines}}


def figures(found: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in found.items() if name not in MACHINE_S | {"answers"}}
    return kept | {"replay": {name: value for name, value in found["replay"].items() if name not in OF_TIME}}


@pytest.mark.timeout(1_800)
def test_the_full_profile_gives_the_embedded_one_s_figures_and_loses_nothing(tmp_path: Path) -> None:
    embedded, full = report(tmp_path / "embedded"), report(tmp_path / "full", *FULL)
    assert (embedded["profile"], full["profile"]) == ("embedded", "full")
    assert figures(full) == figures(embedded)
    for name, said in embedded["answers"].items():
        again = full["answers"][name]
        assert again["fraud_probability"] == pytest.approx(said["fraud_probability"], abs=ROUNDING, rel=0), name
        assert (again["decision"], again["model_version"]) == (said["decision"], said["model_version"]), name
        assert [one["feature"] for one in again["reasons"]] == [one["feature"] for one in said["reasons"]], name
    assert len({answer["fraud_probability"] for answer in full["answers"].values()}) > 100, "payments are told apart"
    live = full["replay"]
    assert (live["scored"], live["decisions_logged"], live["vectors_checked"]) == (300, 300, 300)
    assert (live["vectors_different"], live["without_stored_features"]) == (0, 0)
    assert naming(str(tmp_path / "full")) == []


def test_the_demo_writes_over_nothing_that_a_full_profile_holds(tmp_path: Path) -> None:
    with FullProfile(Settings(home=tmp_path)) as servers:
        servers.prepare()
        servers.start("redis", "postgres")
        servers.create("tollgate")
        demo.require_empty(servers.settings)
        with psycopg.connect(servers.settings.postgres_url) as connection:
            connection.execute("CREATE TABLE decisions (x int)")
        with pytest.raises(demo.DemoFailed, match="the database 'tollgate' has 1 tables"):
            demo.require_empty(servers.settings)


def test_a_command_on_the_profile_gives_its_exit_code(tmp_path: Path) -> None:
    told = "import os; print(os.environ['FRAUD_PROFILE'], os.environ['FRAUD_DECISION_LOG']); raise SystemExit(7)"
    done = subprocess.run(
        [*FULL, sys.executable, "-c", told],
        cwd=ROOT,
        env=os.environ | {"FRAUD_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.split()) == (7, ["full", "kafka"]), done.stderr


def test_a_profile_that_is_told_to_end_leaves_nothing_behind(tmp_path: Path) -> None:
    temporary = Path(tempfile.mkdtemp(prefix="tollgate-ended-"))  # Postgres's user may not enter pytest's own
    temporary.chmod(0o711)
    running = subprocess.Popen(
        [*FULL, sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"],
        cwd=ROOT,
        env=os.environ | {"FRAUD_HOME": str(tmp_path), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert running.stdout.readline().strip() == "up"
    assert list(temporary.glob("tollgate-full-*/postgres/data"))
    running.terminate()
    running.communicate()
    assert running.returncode == 143
    assert naming(str(tmp_path)) == naming(str(temporary)) == []
    assert list(temporary.iterdir()) == []
    temporary.rmdir()
