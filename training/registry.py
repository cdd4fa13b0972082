"""What training writes to MLflow: one run per round, one nested run per candidate, one registered version."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.contract import METADATA_KEY, ONNX_INPUT, ONNX_OUTPUT, ModelContract
from feature_repo.settings import Settings

EXPERIMENT = "tollgate"
CHAMPION = "champion"


@dataclass
class TrainingLog:
    """The open run of a round."""

    mlflow: Any
    model_name: str

    def candidate(
        self,
        name: str,
        parameters: Mapping[str, str],
        metrics: Mapping[str, float],
        pictures: Mapping[str, Any],
    ) -> None:
        """Log one candidate as a nested run."""
        with self.mlflow.start_run(run_name=name, nested=True):
            self.mlflow.log_params(parameters)
            self.mlflow.log_metrics(metrics)
            with tempfile.TemporaryDirectory() as folder:
                for file, figure in pictures.items():
                    figure.savefig(Path(folder) / file, dpi=110)
                self.mlflow.log_artifacts(folder, "plots")

    def register(self, graph: bytes, contract: ModelContract, example: npt.NDArray[np.float32]) -> str:
        """Register the graph with its contract, give it the alias `champion`; returns the version."""
        import onnx
        from mlflow.models import infer_signature

        signature = infer_signature({ONNX_INPUT: example}, {ONNX_OUTPUT: np.zeros((len(example), 2), np.float32)})
        with contextlib.redirect_stderr(io.StringIO()):  # it announces what it has done
            info = self.mlflow.onnx.log_model(
                onnx.load_from_string(graph),
                name="model",
                signature=signature,
                input_example={ONNX_INPUT: np.nan_to_num(example)},
                metadata={METADATA_KEY: contract.model_dump(mode="json")},
                registered_model_name=self.model_name,
                save_as_external_data=False,  # the service fetches one file
            )
        version = str(info.registered_model_version)
        client = self.mlflow.MlflowClient()
        client.set_model_version_tag(self.model_name, version, "feature_service", contract.feature_service)
        client.set_model_version_tag(self.model_name, version, "algorithm", contract.algorithm)
        client.set_registered_model_alias(self.model_name, CHAMPION, version)
        return version


@contextlib.contextmanager
def training_run(current: Settings, dataset: str, parameters: Mapping[str, str]) -> Iterator[TrainingLog]:
    """Open a round's run on the tracking server of the settings."""
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    import mlflow
    import mlflow.onnx

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(current.mlflow_url)
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name=f"round on {dataset}"):
        mlflow.log_params({"dataset": dataset, **parameters})
        yield TrainingLog(mlflow, current.model_name)
