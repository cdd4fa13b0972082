"""A search in MLflow: a run for each candidate, below it one for each trial with its parameters and its folds."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from training.folds import Fold
from training.registry import EXPERIMENT


class SearchLog(Protocol):
    """Told of a search's trials as they end."""

    def of(self, name: str, folds: Sequence[Fold]) -> AbstractContextManager[None]: ...

    def trial(self, trial: FrozenTrial, by_fold: Sequence[dict[str, float]]) -> None: ...

    def best(self, trial: FrozenTrial) -> None: ...


class Quiet:
    """Nothing is logged."""

    @contextmanager
    def of(self, name: str, folds: Sequence[Fold]) -> Iterator[None]:
        yield

    def trial(self, trial: FrozenTrial, by_fold: Sequence[dict[str, float]]) -> None:
        """Nothing is logged."""

    def best(self, trial: FrozenTrial) -> None:
        """Nothing is logged."""


class MlflowSearch:
    """Searches over `dataset`, logged to the tracking server at `url`."""

    def __init__(self, url: str, dataset: str) -> None:
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        mlflow.set_tracking_uri(url)
        mlflow.set_experiment(EXPERIMENT)
        self._mlflow: Any = mlflow
        self._dataset = dataset

    @contextmanager
    def of(self, name: str, folds: Sequence[Fold]) -> Iterator[None]:
        """The run of one candidate's search; one that is taken up again gets a run of its own."""
        with self._mlflow.start_run(run_name=f"search of {name} on {self._dataset}"):
            first, last = folds[0].protocol, folds[-1].protocol
            self._mlflow.log_params(
                {
                    "dataset": self._dataset,
                    "candidate": name,
                    "folds": len(folds),
                    "tested_from": first.test_start.isoformat(),
                    "tested_to": last.test_end.isoformat(),
                }
            )
            yield

    def trial(self, trial: FrozenTrial, by_fold: Sequence[dict[str, float]]) -> None:
        """A trial as a run below the search's: the mean of each metric over its folds, and each fold as a step."""
        with self._mlflow.start_run(run_name=f"trial {trial.number}", nested=True):
            self._mlflow.log_params(trial.user_attrs["parameters"])
            self._mlflow.set_tag("state", trial.state.name.lower())
            for step, metrics in enumerate(by_fold):
                self._mlflow.log_metrics({f"fold_{name}": value for name, value in metrics.items()}, step=step)
            means = {name: float(np.mean([each[name] for each in by_fold])) for name in by_fold[0]}
            complete = {"score": trial.values[0]} if trial.state == TrialState.COMPLETE else {}
            self._mlflow.log_metrics(means | complete)

    def best(self, trial: FrozenTrial) -> None:
        """The best trial's score and parameters, on the search's own run."""
        self._mlflow.log_metric("score", trial.values[0])
        self._mlflow.log_params({f"best_{name}": value for name, value in trial.user_attrs["parameters"].items()})
