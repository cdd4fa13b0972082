"""A planted drift in two replayed weeks on real parts: seen after it was planted and not before, then trained anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from feature_repo.settings import ROOT

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_drift_is_seen_after_it_was_planted_and_then_a_round_is_done(tmp_path: Path):
    given = ["--weeks", "2", "--planted-after", "1", "--payments-per-day", "100", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "training.replayed_weeks", *given],
        env={**os.environ, "FRAUD_HOME": str(tmp_path / "home")}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    told = json.loads((tmp_path / "out" / "closed-loop.json").read_text())
    assert (tmp_path / "out" / "closed-loop.png").read_bytes().startswith(PNG)
    assert [event["event"] for event in told["events"]] == ["first champion", "drift planted", "drift", "retrained"]
    first, planted, seen, trained = (event["at"] for event in told["events"])
    assert first < planted < seen == trained
    before, after = told["weeks"]
    assert (before["loop"]["decided"], after["loop"]["decided"]) == ("nothing", "retrain")
    assert before["drift_share"] < 0.3 <= after["drift_share"]
    [deed] = after["loop"]["did"]
    assert deed["outcome"] == "blocked", "the gates ask for more than a week of so few payments"
    assert after["champion"] == "1"
    assert after["live"]["payments"] > 500, "the first week has its labels by the end of the second"
    for event in told["events"]:
        assert event["told"] in done.stdout
