"""The search for each candidate's parameters, over prequential folds that end before the model's own test days.

A trial's score is the mean over the folds of (average precision + Gini) / 2, Gini being 2 × AUC-ROC - 1: both are 0 for
chance (nearly) and 1 for an oracle, and neither alone is steady on a week's frauds. The settled parameters are the
first trial, so a search never ends below them. A trial's draws depend on how many were finished before it, so a search
that was broken off and taken up again ends where an unbroken one does.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from training.evaluate import metrics_of
from training.folds import Fold
from training.imbalance import SEED
from training.models import CANDIDATES
from training.search_log import Quiet, SearchLog
from training.search_progress import Progress, Silent

WARM_UP = 8
"""Trials drawn at random before the sampler learns from them."""

BEFORE_PRUNING = 4
"""Finished trials that a median is worth something of; and no trial is given up on its first fold."""

DONE = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Budget:
    """How long to search for one candidate: minutes, trials (those of earlier rounds count), or whichever ends first.

    A search bounded by trials alone gives the same result twice.
    """

    minutes: float | None = None
    trials: int | None = None

    def __post_init__(self) -> None:
        if self.minutes is None and self.trials is None:
            raise ValueError("The budget is empty; must have minutes, trials, or both.")


@dataclass(frozen=True)
class Found:
    """The best parameters of a candidate, their score, what the settled ones scored, and how many trials were made."""

    parameters: dict[str, Any]
    score: float
    settled_score: float
    trials: int


def score_of(metrics: dict[str, float]) -> float:
    """What a search maximises, of one fold's metrics."""
    return (metrics["average_precision"] + 2 * metrics["auc_roc"] - 1) / 2


def search(
    name: str,
    folds: Sequence[Fold],
    budget: Budget,
    storage: Path | None = None,
    log: SearchLog | None = None,
    progress: Progress | None = None,
) -> Found:
    """Search for one candidate's parameters; `storage` is the folder in which a search can be taken up again.

    A search is taken up where candidate, folds and rows are the same; with another data set a new one begins.
    """
    study, shown, log = _study(name, folds, storage), progress or Silent(), log or Quiet()
    ends = time.monotonic() + budget.minutes * 60 if budget.minutes is not None else np.inf
    with log.of(name, folds), shown.of(name, budget.trials):
        while (made := _done(study)) < (budget.trials or np.inf) and (made == 0 or time.monotonic() < ends):
            _draw_as_after(study, made, name)
            trial = study.ask()
            by_fold = _try(name, folds, trial, study)
            finished = study.trials[trial.number]
            log.trial(finished, by_fold)
            shown.trial(_done(study), study.best_value)
        best = study.best_trial
        log.best(best)
    return Found(parameters(best), float(study.best_value), float(_first(study).values[0]), _done(study))


def parameters(trial: FrozenTrial) -> dict[str, Any]:
    """What a trial was fitted with, as `Candidate` takes it."""
    return dict(trial.user_attrs["parameters"])


def _try(name: str, folds: Sequence[Fold], trial: optuna.Trial, study: optuna.Study) -> list[dict[str, float]]:
    """Fit and judge fold by fold; the trial is told, complete or pruned."""
    settled = _done(study) == 0
    chosen = dict(CANDIDATES[name].settled) if settled else CANDIDATES[name].space(trial)
    trial.set_user_attr("parameters", chosen)
    measured: list[dict[str, float]] = []
    for step, fold in enumerate(folds):
        model = CANDIDATES[name](fold.train.columns, **chosen)
        model.fit(fold.train.vectors, fold.train.rows["is_fraud"].to_numpy())
        scores = np.asarray(model.predict_proba(fold.test.vectors)[:, 1], np.float64)
        measured.append(metrics_of(fold.test.rows, scores))
        so_far = float(np.mean([score_of(metrics) for metrics in measured]))
        trial.report(so_far, step)
        if step + 1 < len(folds) and not settled and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return measured
    study.tell(trial, so_far)
    return measured


def _study(name: str, folds: Sequence[Fold], storage: Path | None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend: Any = None
    if storage is not None:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        storage.mkdir(parents=True, exist_ok=True)
        backend = JournalStorage(JournalFileBackend(str(storage / f"{name}.journal")))
    study = optuna.create_study(
        storage=backend,
        study_name=f"{name}-{_digest(name, folds)}",
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=BEFORE_PRUNING, n_warmup_steps=1),
        load_if_exists=True,
    )
    for broken_off in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(broken_off.number, state=TrialState.FAIL)
    return study


def _draw_as_after(study: optuna.Study, made: int, name: str) -> None:
    """A sampler of its own for each trial: it knows of the others by the study alone."""
    of_candidate = int.from_bytes(hashlib.sha256(name.encode()).digest()[:3], "big")
    study.sampler = optuna.samplers.TPESampler(seed=SEED + of_candidate + made, n_startup_trials=WARM_UP)


def _done(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=DONE))


def _first(study: optuna.Study) -> FrozenTrial:
    return study.get_trials(deepcopy=False, states=DONE)[0]


def _digest(name: str, folds: Sequence[Fold]) -> str:
    """What a search depends on: settled parameters, folds, columns, and every value and label."""
    told = hashlib.sha256(json.dumps(dict(CANDIDATES[name].settled), sort_keys=True).encode())
    for fold in folds:
        told.update(repr((fold.protocol, fold.train.columns)).encode())
        for part in (fold.train, fold.test):
            told.update(np.ascontiguousarray(part.vectors).tobytes())
            told.update(part.rows["is_fraud"].to_numpy().tobytes())
    return told.hexdigest()[:16]
