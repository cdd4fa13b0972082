"""Triggers say whether a round is due, and why or why not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from training import triggers
from training.triggers import UnreadableReport

NOW = datetime(2026, 5, 4, tzinfo=UTC)


def written(folder: Path, document: Any) -> Path:
    file = folder / "report.json"
    file.write_text(json.dumps(document))
    return file


@pytest.mark.parametrize(("age", "fired"), [(6.9, False), (7.0, True), (8.0, True)])
def test_a_version_of_that_age_is_due(age: float, fired: bool):
    said = triggers.schedule(NOW - timedelta(days=age), NOW, 7)
    assert said.fired is fired
    assert f"{age:.1f} days old" in said.because


def test_without_a_version_a_round_is_due():
    assert triggers.schedule(None, NOW, 7) == triggers.Trigger("schedule", True, "no version is registered")


@pytest.mark.parametrize(("share", "fired"), [(0.29, False), (0.3, True)])
@pytest.mark.parametrize("wrapped", [True, False], ids=["drift.json", "printed summary"])
def test_so_many_drifted_columns_are_due(tmp_path: Path, share: float, fired: bool, wrapped: bool):
    summary = {"share": share, "drifted": ["amount", "hour"]}
    said = triggers.drift(written(tmp_path, {"summary": summary} if wrapped else summary), 0.3)
    assert said.fired is fired
    assert "amount, hour" in said.because


@pytest.mark.parametrize(("value", "fired"), [(0.44, True), (0.46, False), (0.9, False)])
def test_a_metric_below_its_promise_by_more_than_the_margin_is_due(value: float, fired: bool):
    said = triggers.performance(value, 0.5, "average_precision", 0.05)
    assert said.fired is fired
    assert f"{value:.4f}" in said.because


def test_the_champion_s_figure_is_read_from_a_backtest_of_two_versions(tmp_path: Path):
    told = [{"version": v, "total": {"then": {"auc_roc": a}, "now": {"auc_roc": 0}}} for v, a in (("3", 0.8), ("4", 1))]
    file = written(tmp_path, {"versions": told})
    assert triggers.measured(file, "auc_roc", "3") == 0.8
    with pytest.raises(UnreadableReport, match="is of version 3, 4; the champion is version 7"):
        triggers.measured(file, "auc_roc", "7")
    assert triggers.measured(written(tmp_path, {"recall": 1}), "recall", "7") == 1.0


@pytest.mark.parametrize(
    ("document", "metric", "words"),
    [
        ({"auc_roc": "high"}, "auc_roc", "no value of 'auc_roc'"),
        ({"auc_roc": None}, "auc_roc", "no value of 'auc_roc'"),
        ({"brier": 0.1}, "brier", "is no trigger"),
        ([1], "auc_roc", "holds a list"),
    ],
)
def test_a_report_without_the_figure_is_named(tmp_path: Path, document: Any, metric: str, words: str):
    with pytest.raises(UnreadableReport, match=words):
        triggers.measured(written(tmp_path, document), metric, "1")


def test_a_file_that_is_no_drift_report_is_named(tmp_path: Path):
    with pytest.raises(UnreadableReport, match="no share of drifted columns"):
        triggers.drift(written(tmp_path, {"evidently": {}}), 0.3)
    with pytest.raises(UnreadableReport, match="cannot be read as JSON"):
        triggers.drift(tmp_path / "nowhere.json", 0.3)
