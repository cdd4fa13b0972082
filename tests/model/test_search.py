"""The search: the same twice, taken up where it was broken off, never below the settled parameters, seen in MLflow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tests.model.test_export import COLUMNS, drawn
from training import search as searching
from training.dataset import TrainingSet
from training.folds import Fold, prequential, split
from training.search import Budget, search
from training.search_log import MlflowSearch
from training.search_progress import Shown
from training.split import Protocol

NAME = "logistic_regression"
START = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def folds() -> list[Fold]:
    """Three folds of 500 payments each, every payment of a card of its own."""
    vectors, fraud = drawn(1)
    few = (fraud == 0) | (np.arange(len(fraud)) % 3 == 0)
    vectors, fraud = vectors[few], fraud[few]
    at = pd.date_range(START - timedelta(days=35), START + timedelta(days=7), periods=len(fraud))
    rows = pd.DataFrame({"timestamp": at, "card_id": np.arange(len(at)).astype(str), "is_fraud": fraud})
    return split(TrainingSet(rows, vectors, COLUMNS), prequential(Protocol(START, 7, 1, 7), 3))


def test_a_search_bounded_by_trials_gives_the_same_twice(folds: list[Fold]):
    first, second = (search("xgboost", folds, Budget(trials=3)) for _ in range(2))
    assert first == second
    assert first.trials == 3
    assert first.score >= first.settled_score


class Killed(Exception):
    """What a search is broken off by here."""


def test_a_search_that_was_broken_off_ends_where_an_unbroken_one_does(
    folds: list[Fold], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = search(NAME, folds, Budget(trials=12), tmp_path / "whole")
    judged, asked = searching.metrics_of, []

    def broken(*given: Any) -> dict[str, float]:
        asked.append(given)
        if len(asked) == 17:  # in the middle of a trial, which is then left running
            raise Killed
        return judged(*given)

    monkeypatch.setattr(searching, "metrics_of", broken)
    with pytest.raises(Killed):
        search(NAME, folds, Budget(trials=12), tmp_path / "broken")
    monkeypatch.undo()
    assert search(NAME, folds, Budget(trials=12), tmp_path / "broken") == whole


def test_a_search_that_is_done_makes_no_trial_more_and_other_rows_begin_anew(folds: list[Fold], tmp_path: Path):
    first = search(NAME, folds, Budget(trials=2), tmp_path)
    assert search(NAME, folds, Budget(trials=1), tmp_path).trials == 2
    assert search(NAME, folds, Budget(trials=3), tmp_path).trials == 3
    other = search(NAME, folds[:2], Budget(trials=1), tmp_path)
    assert (other.trials, first.trials) == (1, 2)


def test_a_search_without_time_tries_the_settled_parameters(folds: list[Fold]):
    found = search(NAME, folds, Budget(minutes=0.0))
    assert found.trials == 1
    assert found.parameters == dict(searching.CANDIDATES[NAME].settled)
    assert found.score == found.settled_score
    with pytest.raises(ValueError, match="must have minutes, trials, or both"):
        Budget()


def test_the_score_is_the_mean_of_average_precision_and_gini():
    assert searching.score_of({"average_precision": 0.6, "auc_roc": 0.9}) == pytest.approx(0.7)


def test_the_bar_tells_how_far_it_is_and_the_best_score(folds: list[Fold]):
    console = Console(record=True, width=120, force_terminal=False)
    found = search(NAME, folds, Budget(trials=2), progress=Shown(console))
    shown = console.export_text()
    assert f"best {found.score:.4f}" in shown
    assert "2/2" in shown


def test_each_trial_is_a_run_below_the_search_s(folds: list[Fold], mlflow_server: str):
    dataset = f"drawn-{uuid4().hex[:8]}"
    found = search(NAME, folds, Budget(trials=6), log=MlflowSearch(mlflow_server, dataset))

    def runs(wanted: str) -> list[dict[str, Any]]:
        asked = {"experiment_ids": [str(n) for n in range(10)], "filter": wanted}
        answer = httpx.post(f"{mlflow_server}/api/2.0/mlflow/runs/search", json=asked)
        return answer.raise_for_status().json().get("runs", [])

    (parent,) = runs(f"params.dataset = '{dataset}'")
    below = runs(f"tags.mlflow.parentRunId = '{parent['info']['run_id']}'")
    assert sorted(run["info"]["run_name"] for run in below) == [f"trial {n}" for n in range(6)]
    scores = {
        run["info"]["run_name"]: metric["value"]
        for run in below
        for metric in run["data"]["metrics"]
        if metric["key"] == "score"
    }
    assert max(scores.values()) == pytest.approx(found.score)
    assert scores["trial 0"] == pytest.approx(found.settled_score)
    own = {metric["key"]: metric["value"] for metric in parent["data"]["metrics"]}
    assert own["score"] == pytest.approx(found.score)
