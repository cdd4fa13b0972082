"""A champion for the benchmark: the platform's own XGBoost candidate, fitted on vectors that Feast gives.

What fraud is here is drawn, but from all columns, so that the trees ask for all of them as a real model's do.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.contract import METADATA_KEY, ModelContract
from feature_repo.parity_sample import PARITY_FILE, ParitySample, chosen_rows
from feature_repo.settings import Settings
from feature_repo.vector import columns, to_vector
from tests import tiny_model
from tests.load.serving_population import Population
from tests.load.serving_requests import entity_rows
from training import registry
from training.export import check_parity, onnx_scores, to_onnx
from training.models import CANDIDATES

ROWS = 500
FRAUD_SHARE = 0.05
REVIEWED, DECLINED = 0.03, 0.005
"""Shares of payments from which on they are reviewed and declined: as a team can look at them."""

CHALLENGER = "challenger"

Floats32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Vectors:
    """What a feature service says of some payments: float32 (rows, columns), null as NaN."""

    found: Floats32
    columns: tuple[str, ...]

    def of(self, columns: tuple[str, ...]) -> Vectors:
        """Some of the columns, in another order."""
        return Vectors(self.found[:, [self.columns.index(name) for name in columns]], columns)


def vectors(store: Any, service_name: str, population: Population, rows: int) -> Vectors:
    """The vectors of `rows` payments made now, read through `get_online_features`."""
    service = store.get_feature_service(service_name)
    ordered = columns(service)
    now = time.time_ns() // 1_000 + np.arange(rows)
    entities = list(entity_rows(population.payments(now, seed=5, name="asked-")))
    parts = []
    for begin in range(0, rows, ROWS):
        told = store.get_online_features(features=service, entity_rows=entities[begin : begin + ROWS])
        parts.append(to_vector(told.to_dict(), ordered))
    return Vectors(np.concatenate(parts), ordered)


@dataclass(frozen=True)
class Trained:
    """A model ready to be registered."""

    graph: bytes
    contract: ModelContract
    sample: ParitySample


def train(seen: Vectors, feature_service: str, seed: int = 1) -> Trained:
    """An XGBoost model with 200 trees of depth 4, exported, and checked against what was fitted."""
    unfitted = CANDIDATES["xgboost"](seen.columns).set_params(n_jobs=1)  # of so few rows, threads only wait
    model = unfitted.fit(seen.found, drawn_fraud(seen.found, seed))
    scores = np.asarray(model.predict_proba(seen.found)[:, 1], np.float64)
    review, decline = (float(np.quantile(scores, 1 - share)) for share in (REVIEWED, DECLINED))
    contract = ModelContract(
        feature_service=feature_service,
        columns=seen.columns,
        review_from=review,
        decline_from=decline,
        algorithm="xgboost",
        trained_until="2026-01-01T00:00:00Z",
    )
    graph = to_onnx(model, len(seen.columns))
    check_parity(graph, seen.found, scores, (0.5, 0.9))
    some = seen.found[chosen_rows(scores)]
    return Trained(graph, contract, ParitySample(seen.columns, some, onnx_scores(graph, some)))


def drawn_fraud(found: Floats32, seed: int) -> npt.NDArray[np.int64]:
    """Frauds among the rows: the highest of a random mixture of all columns' ranks, and noise."""
    draw = np.random.default_rng(seed)
    filled = np.where(np.isnan(found), -1.0, found)
    ranks = np.argsort(np.argsort(filled, axis=0), axis=0) / len(found)
    mixture = ranks @ draw.normal(size=found.shape[1]) + draw.normal(0.0, 1.0, len(found))
    return (mixture > np.quantile(mixture, 1 - FRAUD_SHARE)).astype(np.int64)


def register(current: Settings, models: Sequence[Trained], fallback: Trained) -> list[str]:
    """Register each as a version of the platform's model, the first as champion, a second one as challenger.

    The fallback is champion under its own name.
    """
    import mlflow

    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(current.mlflow_url)
    mlflow.set_experiment("bench")  # the process may know one of another server
    with contextlib.redirect_stderr(io.StringIO()):  # it announces what it has done
        versions = [_version(mlflow, current.model_name, one) for one in models]
        spare = _version(mlflow, current.fallback_model_name, fallback)
    for role, version in zip((registry.CHAMPION, CHALLENGER), versions, strict=False):
        point(current, role, version)
    tiny_model.point(current.mlflow_url, current.fallback_model_name, registry.CHAMPION, spare)
    return versions


def point(current: Settings, role: str, version: str) -> None:
    """Make a role's alias mean this version."""
    tiny_model.point(current.mlflow_url, current.model_name, role, version)


def _version(mlflow: Any, name: str, trained: Trained) -> str:
    """The version that a model was registered as, its parity sample beside the graph."""
    import onnx

    with mlflow.start_run(), tempfile.TemporaryDirectory() as folder:
        logged = mlflow.onnx.log_model(
            onnx.load_from_string(trained.graph),
            name="model",
            registered_model_name=name,
            metadata={METADATA_KEY: trained.contract.model_dump(mode="json")},
            save_as_external_data=False,
            pip_requirements=["onnxruntime"],  # else it is found out by loading the model in another process
        )
        evidence = Path(folder) / PARITY_FILE
        evidence.write_bytes(trained.sample.dumps())
        mlflow.MlflowClient().log_model_artifact(logged.model_id, str(evidence))
    return str(logged.registered_model_version)
