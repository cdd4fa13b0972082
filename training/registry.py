"""What training writes to MLflow: one run per round, one nested run per candidate, a version of each registered model.

A version gets its alias last, when its evidence lies beside it: whoever follows the alias finds it whole.
"""

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

from feature_repo.contract import METADATA_KEY, ONNX_INPUT, ONNX_OUTPUT, ModelContract
from feature_repo.parity_sample import PARITY_FILE, ParitySample
from feature_repo.settings import Settings

EXPERIMENT = "tollgate"
CHAMPION = "champion"


@dataclass
class TrainingLog:
    """The open run of a round."""

    mlflow: Any

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

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log metrics of the round itself."""
        self.mlflow.log_metrics(values)

    def register(self, model_name: str, graph: bytes, contract: ModelContract, sample: ParitySample) -> str:
        """Register the graph with its contract and evidence, give it the alias `champion`; returns the version."""
        import onnx
        from mlflow.models import infer_signature

        example = sample.vectors[:5]
        signature = infer_signature({ONNX_INPUT: example}, {ONNX_OUTPUT: np.zeros((len(example), 2), np.float32)})
        with contextlib.redirect_stderr(io.StringIO()):  # it announces what it has done
            info = self.mlflow.onnx.log_model(
                onnx.load_from_string(graph),
                name="model",
                signature=signature,
                input_example={ONNX_INPUT: np.nan_to_num(example)},
                metadata={METADATA_KEY: contract.model_dump(mode="json")},
                registered_model_name=model_name,
                save_as_external_data=False,  # the service fetches one file
            )
        version = str(info.registered_model_version)
        client = self.mlflow.MlflowClient()
        with tempfile.TemporaryDirectory() as folder:
            evidence = Path(folder) / PARITY_FILE
            evidence.write_bytes(sample.dumps())
            client.log_model_artifact(info.model_id, str(evidence))
        client.set_model_version_tag(model_name, version, "feature_service", contract.feature_service)
        client.set_model_version_tag(model_name, version, "algorithm", contract.algorithm)
        client.set_registered_model_alias(model_name, CHAMPION, version)
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
        yield TrainingLog(mlflow)
