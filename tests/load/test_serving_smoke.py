"""The serving benchmark runs from end to end at its tiniest size, and its report has the shape that was promised."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.load import bench_serving
from tests.load.serving_sizes import TINY
from tests.load.serving_table import lines, markdown

FIGURES = {"rps", "p50_ms", "p99_ms", "p999_ms", "seconds", "errors"}


def test_the_service_and_a_peer_are_measured_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_serving, "REPORTED", TINY)
    output = tmp_path / "bench.json"
    assert bench_serving.main(["--only", "service", "--only", "peers", "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    assert set(report["single"]) >= FIGURES
    assert set(report["half_rate"]) >= FIGURES
    assert report["single"]["statuses"] == {"200": report["single"]["requests"]}
    assert report["batch"]["tx_per_s"] > 0
    assert report["peers"]["bare_rps"] > 0
    assert report["ready_s"] > 0
    assert report["worker_mb"] > 0
    assert {"machine", "versions", "command", "date"} <= set(report)
    assert (tmp_path / bench_serving.PICTURE).read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert bench_serving.main(["--markdown", str(output)]) == 0
    assert capsys.readouterr().out == markdown(report) + "\n"
    for line in lines(report):
        assert line.what.strip() in printed
