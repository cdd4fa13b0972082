"""`python -m training.train` on a data set: from nothing, again, and where it cannot be done."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from feature_repo.settings import Settings, settings
from monitoring.processes import at_free_ports
from training import backfill, command
from training.datasets import synthetic
from training.history import UncoveredWindow, covers
from training.split import Protocol

ROWS = 6_000
NAMES = "logistic_regression"


def asked(*given: str) -> Any:
    return command.arguments(["--dataset", "synthetic", "--rows", str(ROWS), "--candidates", NAMES, *given])


def run(home: Path, mlflow_url: str, *given: str) -> tuple[dict[str, Any], str]:
    """The report and what was said."""
    said = StringIO()
    current = Settings(home=home, mlflow_url=mlflow_url, model_name="by-command")
    return command.run(asked(*given), current, Console(file=said, width=110)), said.getvalue()


def test_from_nothing_and_then_again_with_the_same_metrics(tmp_path: Path, mlflow_server: str):
    nothing_there = at_free_ports(Settings(home=tmp_path)).mlflow_url
    first, said = run(tmp_path, nothing_there)
    assert "loading and validating synthetic" in said
    assert "Registered as version 1 of by-command: waits for its promotion, blocked by window" in said, "too few frauds"
    assert first["verdict"].startswith("blocked by window")
    assert set(first["models"]) == {NAMES} == {first["champion"]}
    metrics = first["models"][NAMES]
    for name, (low, high) in metrics["intervals"].items():
        assert low is None or low <= high, name
    assert {"auc_roc", "average_precision", "precision_at_90_recall", "cost_saved"} <= set(metrics)
    assert json.loads(json.dumps(first)) == first

    second, said = run(tmp_path, mlflow_server)
    assert "using the history of synthetic" in said
    assert "loading" not in said
    for part in ("models", "earlier_fold", "fallback", "thresholds", "segments", "protocol"):
        assert second[part] == first[part], part

    tuned = tmp_path / "tuned.json"
    tuned.write_text(json.dumps({NAMES: {"C": 1e-4}}))
    third, said = run(tmp_path, mlflow_server, "--tuned", str(tuned))
    assert third["models"][NAMES]["log_loss"] != first["models"][NAMES]["log_loss"]
    assert "Registered as version 2 of by-command: waits for its promotion" in said


def test_what_backfill_has_loaded_is_enough_to_train_on(
    tmp_path: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("FRAUD_HOME", str(tmp_path))
    monkeypatch.setattr(backfill, "load_dataset", lambda name, folder: synthetic.load(ROWS, seed=7, days=75))
    monkeypatch.setattr("sys.argv", ["backfill", "--dataset", "synthetic"])
    settings.cache_clear()
    try:
        backfill.main()
    finally:
        settings.cache_clear()
    assert f"Loaded {ROWS:,} transactions" in capsys.readouterr().out
    current = Settings(home=tmp_path, mlflow_url=mlflow_server, model_name="after-backfill")
    from_store = command.arguments(["--candidates", NAMES, "--train-start", "2024-02-10", "--train-days", "10"])
    found = command.run(from_store, current, Console(file=StringIO(), width=110))
    assert found["dataset"] == "history"
    assert found["train_rows"] > 100


def test_windows_that_the_data_do_not_cover_are_refused_with_those_that_fit(tmp_path: Path, mlflow_server: str):
    with pytest.raises(UncoveredWindow, match=r"covers 2024-01-01 to 2024-05-29; the window needs 2024-05-06"):
        run(tmp_path, mlflow_server, "--train-start", "2024-05-20")


@pytest.mark.parametrize(
    ("days", "start", "said"),
    [
        ((7, 7, 7), 10, r"needs 2023-12-28 .* With these lengths --train-start can be 2024-01-15 to 2024-01-20"),
        ((7, 7, 7), 20, r"to 2024-02-10 .* With these lengths --train-start can be 2024-01-15 to 2024-01-20"),
        ((20, 7, 7), 27, r"These lengths need 61 days of 40: shorten --train-days, --delay-days or --test-days"),
    ],
)
def test_a_refusal_says_which_days_would_do(days: tuple[int, int, int], start: int, said: str):
    first = datetime(2024, 1, 1, tzinfo=UTC)
    with pytest.raises(UncoveredWindow, match=said):
        covers("mine", first, first + timedelta(days=40), Protocol(first + timedelta(days=start), *days))


def test_windows_up_to_both_ends_of_the_data_are_taken():
    first = datetime(2024, 1, 1, tzinfo=UTC)
    covers("mine", first, first + timedelta(days=35), Protocol(first + timedelta(days=14), 7, 7, 7))


@pytest.mark.parametrize("content", ["[1]", '{"xgboost": 3}', "no json"])
def test_a_file_of_parameters_that_is_none_is_refused(content: str, tmp_path: Path):
    file = tmp_path / "tuned.json"
    file.write_text(content)
    with pytest.raises(command.InvalidTuning, match=r"tuned\.json"):
        run(tmp_path, "http://127.0.0.1:9", "--tuned", str(file))


def test_generated_data_of_other_sizes_have_other_histories(tmp_path: Path):
    small, smaller = (
        command.history.digest(Settings(home=tmp_path), synthetic.NAME, rows)[0] for rows in (3_000, 2_000)
    )
    assert small != smaller
    assert small == command.history.digest(Settings(home=tmp_path), synthetic.NAME, 3_000)[0]
