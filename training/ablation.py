"""What each feature view and each column brings to a model: `python -m training.ablation --dataset handbook`.

Views are added one after another, in the feature service's order, and left out one at a time; columns are judged by
permutation (what the average precision of the test days loses) and by SHAP (how far they move a score). The test days
are those of the protocol: what is read here is a report, and no feature is to be chosen by it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from sklearn.inspection import permutation_importance

from feature_repo.settings import settings
from feature_repo.vector import FEATURE_SERVICE
from training.dataset import TrainingSet
from training.datasets.catalogue import load_dataset
from training.evaluate import metrics_of
from training.models import CANDIDATES
from training.offline import offline
from training.split import Protocol, default_protocol

METRICS = ("auc_roc", "average_precision", "card_precision_100")
REQUEST = "request"
MODEL = "xgboost"
PERMUTATIONS = 3
SHOWN = 15
SEED = 7

Groups = dict[str, tuple[str, ...]]


class NoTrees(TypeError):
    """A model whose SHAP values have no exact form here."""


@dataclass(frozen=True)
class Step:
    """One set of columns and what a model over them reaches on the test days."""

    name: str
    columns: int
    metrics: dict[str, float]


def groups(store: Any, service: str = FEATURE_SERVICE) -> Groups:
    """The columns of a feature service by the stored view that they are made from, `request` where from none."""
    found: dict[str, list[str]] = {}
    for projection in store.get_feature_service(service).feature_view_projections:
        sources = store.get_on_demand_feature_view(projection.name).source_feature_view_projections
        view = "+".join(sources) or REQUEST
        found.setdefault(view, []).extend(feature.name for feature in projection.features)
    return {view: tuple(names) for view, names in found.items()}


def with_columns(data: TrainingSet, names: Sequence[str]) -> TrainingSet:
    """The same rows with these columns alone, in the vector's order."""
    places = [place for place, column in enumerate(data.columns) if column in set(names)]
    kept = tuple(data.columns[place] for place in places)
    return TrainingSet(data.rows, np.ascontiguousarray(data.vectors[:, places]), kept)


def steps(train: TrainingSet, test: TrainingSet, views: Groups, model: str = MODEL) -> tuple[list[Step], list[Step]]:
    """A step for each view added to those before it, and one for each view left out of all."""
    names = list(views)
    added = [(f"{'+ ' if n else ''}{name}", names[: n + 1]) for n, name in enumerate(names)]
    left = [(f"without {name}", [other for other in names if other != name]) for name in names]

    def made(chosen: list[tuple[str, list[str]]]) -> list[Step]:
        return [_step(said, [views[view] for view in kept], train, test, model) for said, kept in chosen]

    return made(added), made(left)


def _step(name: str, parts: Sequence[Sequence[str]], train: TrainingSet, test: TrainingSet, model: str) -> Step:
    columns = [column for part in parts for column in part]
    narrow, asked = with_columns(train, columns), with_columns(test, columns)
    fitted = CANDIDATES[model](narrow.columns).fit(narrow.vectors, narrow.rows["is_fraud"])
    scores = np.asarray(fitted.predict_proba(asked.vectors)[:, 1], np.float64)
    return Step(name, len(columns), metrics_of(asked.rows, scores))


def permutation(model: Any, test: TrainingSet, repeats: int = PERMUTATIONS) -> dict[str, float]:
    """What the average precision loses when a column's values are shuffled, by column, the dearest first."""
    found = permutation_importance(
        model,
        test.vectors,
        test.rows["is_fraud"],
        scoring="average_precision",
        n_repeats=repeats,
        random_state=SEED,
        n_jobs=1,
    )
    return _ranked(test.columns, found.importances_mean)


def shap(model: Any, test: TrainingSet) -> dict[str, float]:
    """The mean absolute SHAP value (log-odds) of each column, by exact TreeSHAP, the largest first.

    Source: Lundberg et al. 2020, as XGBoost and LightGBM compute it. Raises `NoTrees` for any other model.
    """
    last = model[-1] if hasattr(model, "steps") else model
    if hasattr(last, "get_booster"):
        from xgboost import DMatrix

        given = last.get_booster().predict(DMatrix(test.vectors), pred_contribs=True)
    elif hasattr(last, "booster_"):
        given = last.predict(test.vectors, pred_contrib=True)
    else:
        raise NoTrees(f"{type(last).__name__} has no exact SHAP values here; must be XGBoost or LightGBM.")
    return _ranked(test.columns, np.abs(given[:, :-1]).mean(axis=0))


def _ranked(columns: Sequence[str], values: npt.NDArray[Any]) -> dict[str, float]:
    order = np.argsort(-values, kind="stable")
    return {columns[place]: float(values[place]) for place in order}


def ablation(data: TrainingSet, protocol: Protocol, views: Groups, model: str = MODEL) -> dict[str, Any]:
    """The whole report: `added`, `left_out` (lists of steps), `permutation` and `shap` (by column)."""
    train, test = data.where(protocol.train(data.rows)), data.where(protocol.test(data.rows))
    added, left = steps(train, test, views, model)
    fitted = CANDIDATES[model](data.columns).fit(train.vectors, train.rows["is_fraud"])
    return {
        "model": model,
        "added": [vars(step) for step in added],
        "left_out": [vars(step) for step in left],
        "permutation": permutation(fitted, test),
        "shap": shap(fitted, test),
    }


def show(report: Mapping[str, Any], console: Console) -> None:
    """The report as two tables: by view, and the columns that matter most."""
    by_view = Table("features", "columns", *METRICS, box=None, pad_edge=False)
    for step in (*report["added"], *report["left_out"]):
        by_view.add_row(step["name"], str(step["columns"]), *(f"{step['metrics'][metric]:.4f}" for metric in METRICS))
    columns = Table("column", "loss of average precision", "mean |SHAP|", box=None, pad_edge=False)
    for name, loss in list(report["permutation"].items())[:SHOWN]:
        columns.add_row(name, f"{loss:+.4f}", f"{report['shap'][name]:.3f}")
    console.print(by_view, "", columns)


def log(report: Mapping[str, Any], mlflow_url: str, experiment: str) -> None:
    """The report as a run of MLflow: each step's metrics by the number of its columns, and the whole as an artifact."""
    import mlflow

    mlflow.set_tracking_uri(mlflow_url)
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name=f"ablation of {report['model']}"):
        mlflow.log_params({"model": report["model"], "dataset": report["dataset"]})
        for step in report["added"]:
            mlflow.log_metrics({metric: step["metrics"][metric] for metric in METRICS}, step=step["columns"])
        mlflow.log_dict(dict(report), "ablation.json")


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the report of a data set, from nothing."""
    parser = argparse.ArgumentParser(prog="python -m training.ablation", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", help="handbook, sparkov, synthetic or a file; default: what FRAUD_DATA holds")
    parser.add_argument("--rows", type=int, default=100_000, help="payments to generate, where they are generated")
    parser.add_argument("--train-start", type=lambda text: datetime.fromisoformat(text + "T00:00:00+00:00"))
    for name in ("train", "delay", "test"):
        parser.add_argument(f"--{name}-days", type=int, default=7)
    parser.add_argument("--model", default=MODEL, choices=("xgboost", "lightgbm"))
    parser.add_argument("--out", type=Path, help="write the report here as JSON")
    parser.add_argument("--mlflow", metavar="URL", help="log the report as a run here")
    given, console = parser.parse_args(arguments), Console()
    dataset = load_dataset(given.dataset, settings().data, rows=given.rows)
    protocol = default_protocol(dataset.name, dataset.transactions["timestamp"])
    if given.train_start:
        protocol = Protocol(given.train_start, given.train_days, given.delay_days, given.test_days)
    with TemporaryDirectory(prefix="tollgate-ablation-") as home, console.status("  features and fits …"):
        found = offline(dataset, Path(home), protocol.train_start, protocol.test_end)
        report = ablation(found.data, protocol, groups(found.store), given.model)
    report |= {"dataset": dataset.name, "train_start": protocol.train_start.isoformat()}
    show(report, console)
    if given.mlflow:
        log(report, given.mlflow, settings().model_name)
    if given.out:
        given.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
