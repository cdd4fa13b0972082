"""The measurement of monitoring's cost runs from end to end at its tiniest size, and its ratio is what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.load import bench_monitoring
from tests.load.bench_monitoring import Size, compared
from tests.load.serving_sizes import TINY


def test_both_arms_are_measured_and_the_one_was_scraped(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "bench.json"
    assert bench_monitoring.run(Size(TINY, 1, 0.5), output) == 0, capsys.readouterr().out
    report = json.loads(output.read_text())
    assert {"machine", "versions", "date", "ratio", "ratio_interval", "goal", "met"} <= set(report)
    assert report["versions"]["prometheus"]
    assert set(report["scraped"]) == {"service", "monitor"}
    for arm in ("on", "off"):
        [figures] = report["rounds"][arm]
        assert figures["statuses"] == {"200": figures["requests"]}
        assert figures["worker_us"] > 0
    assert f"{report['on_rps']:,.0f}/s" in capsys.readouterr().out


def test_the_ratio_is_taken_within_a_round_and_its_interval_is_told():
    rounds = {"on": [90.0, 190.0, 300.0], "off": [100.0, 200.0, 300.0]}
    found = compared(
        {arm: [{"rps": rps, "p99_ms": 1.0, "worker_us": 9e4 / rps} for rps in rates] for arm, rates in rounds.items()}
    )
    assert found["ratios"] == [0.9, 0.95, 1.0]
    assert (found["ratio"], found["ratio_interval"], found["met"]) == (0.95, [0.9, 1.0], True)
    assert (found["on_rps"], found["off_rps"]) == (190.0, 200.0)
    assert (found["on_worker_us"], found["off_worker_us"]) == (473.7, 450.0)
