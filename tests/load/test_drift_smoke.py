"""The drift benchmark runs from end to end at a small size, and its tables say what its report says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.load import bench_drift
from tests.load.drift_planted import PLANTED


def test_drifts_are_planted_judged_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture):
    output = tmp_path / "bench.json"
    assert bench_drift.main(["--quick", "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    assert set(report["planted"]) == set(PLANTED)
    sizes = [str(size) for size in bench_drift.QUICK.samples]
    assert [report["planted"]["dead"][size]["calibrated"] for size in sizes] == [1.0]
    assert [report["planted"]["nulls"][size]["evidently"] for size in sizes] == [0.0], "it drops nulls"
    assert report["planted"]["amount"][sizes[-1]]["calibrated"] == 1.0
    for size in report["same"]:
        same = report["same"][size]["calibrated"]
        assert (same["reports"], same["data_set"]) == (bench_drift.QUICK.alarms, 0.0)
        assert same["columns"] > 60
    (week,) = report["weeks"]
    assert (week["from_day"], week["rows"] > 300) == (bench_drift.QUICK.trained, True)
    assert len(week["last_week_calibrated"]) < week["columns"] / 2
    capsys.readouterr()
    assert bench_drift.main(["--markdown", str(output)]) == 0
    told = capsys.readouterr().out
    for drift in PLANTED.values():
        assert f"| {drift.title} |" in told
