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
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.contract import METADATA_KEY, ONNX_INPUT, ONNX_OUTPUT, ModelContract
from feature_repo.parity_sample import PARITY_FILE, ParitySample
from feature_repo.settings import Settings
from training.lineage import DataSetDigest, git_revision

EXPERIMENT = "tollgate"
CHAMPION, CHALLENGER = "champion", "challenger"
FALLBACK_TAG = "tollgate.fallback"
"""Tag of a version: the version of the fallback model that was trained with it, and serves beside it."""

KIND = "mlflow.experimentKind"
NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a run's description, in Markdown."""


RUNS_ON = ("onnx", "onnxruntime", "numpy")
"""What a graph needs to run. Left to itself MLflow runs each model in a process of its own to find out, for seconds."""


@dataclass(frozen=True)
class Exported:
    """A model as it is logged: its graph, its promise to the service, and vectors with the scores it gave for them."""

    graph: bytes
    contract: ModelContract
    sample: ParitySample


@dataclass
class TrainingLog:
    """The open run of a round."""

    mlflow: Any
    data: tuple[DataSetDigest, ...] = ()

    def candidate(
        self,
        name: str,
        parameters: Mapping[str, str],
        metrics: Mapping[str, float],
        pictures: Mapping[str, bytes],
        exported: Exported,
        tables: Mapping[str, Any] | None = None,
    ) -> None:
        """Log one candidate as a nested run, its graph with it; `tables` are data frames by file name."""
        with self.mlflow.start_run(run_name=name, nested=True, tags={"algorithm": name}):
            self.log_data()
            self.mlflow.log_params(parameters)
            self.files(pictures, "plots")
            for file, table in (tables or {}).items():
                self.mlflow.log_table(table.reset_index(), file)
            info = self._log_model(exported)
            self.mlflow.log_metrics(metrics, model_id=info.model_id)

    def log_data(self) -> None:
        """Say of the open run on which data it was made."""
        for each in self.data:
            self.mlflow.log_input(each.as_mlflow(), context=each.context)

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log metrics of the round itself."""
        self.mlflow.log_metrics(values)

    def note(self, markdown: str) -> None:
        """What the round's page says of it."""
        self.mlflow.set_tag(NOTE, markdown)

    def files(self, given: Mapping[str, bytes], path: str | None = None) -> None:
        """Log files by name below a folder of the open run."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in given.items():
                (Path(folder) / name).write_bytes(content)
            self.mlflow.log_artifacts(folder, path)

    def register(
        self,
        model_name: str,
        graph: bytes,
        contract: ModelContract,
        sample: ParitySample,
        alias: str | None = CHAMPION,
        files: Mapping[str, bytes] | None = None,
        note: str = "",
    ) -> str:
        """Register the graph with its contract and evidence; returns the version.

        `files` are further evidence, laid beside the graph by name. `alias` is pointed at the version last; with null
        none is: the version waits for whoever promotes it.
        """
        info = self._log_model(Exported(graph, contract, sample), model_name, files)
        version = str(info.registered_model_version)
        client = self.mlflow.MlflowClient()
        run = self.mlflow.active_run().data.tags
        tags = {
            "feature_service": contract.feature_service,
            "feast.feature_service": contract.feature_service,  # where Feast's `resolve_features` looks
            "algorithm": contract.algorithm,
            "trained_until": contract.trained_until,
            "dataset": run["dataset"],
            "git_revision": run["git_revision"],
        }
        for key, value in tags.items():
            client.set_model_version_tag(model_name, version, key, value)
        if note:
            client.update_model_version(model_name, version, note)
        if alias is not None:
            client.set_registered_model_alias(model_name, alias, version)
        return version

    def pair(self, name: str, version: str, fallback: str) -> None:
        """Say which version of the fallback model belongs to a version: it follows it into service."""
        self.mlflow.MlflowClient().set_model_version_tag(name, version, FALLBACK_TAG, fallback)

    def _log_model(
        self, exported: Exported, registered_as: str | None = None, files: Mapping[str, bytes] | None = None
    ) -> Any:
        import onnx
        from mlflow.models import infer_signature

        example = exported.sample.vectors[:5]
        signature = infer_signature({ONNX_INPUT: example}, {ONNX_OUTPUT: np.zeros((len(example), 2), np.float32)})
        with contextlib.redirect_stderr(io.StringIO()):  # it announces what it has done
            info = self.mlflow.onnx.log_model(
                onnx.load_from_string(exported.graph),
                name="model",
                signature=signature,
                input_example={ONNX_INPUT: np.nan_to_num(example)},
                metadata={METADATA_KEY: exported.contract.model_dump(mode="json")},
                registered_model_name=registered_as,
                pip_requirements=[f"{name}=={installed(name)}" for name in RUNS_ON],
                onnx_execution_providers=["CPUExecutionProvider"],
                save_as_external_data=False,  # the service fetches one file
            )
        with tempfile.TemporaryDirectory() as folder:
            for name, content in ({PARITY_FILE: exported.sample.dumps()} | dict(files or {})).items():
                (Path(folder) / name).write_bytes(content)
            self.mlflow.MlflowClient().log_model_artifacts(info.model_id, folder)
        return info


def _mlflow(current: Settings) -> Any:
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    import mlflow
    import mlflow.onnx

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(current.mlflow_url)
    return mlflow


@contextlib.contextmanager
def training_run(
    current: Settings,
    dataset: str,
    parameters: Mapping[str, str],
    data: tuple[DataSetDigest, ...] = (),
) -> Iterator[TrainingLog]:
    """Open a round's run on the tracking server of the settings; `data` are the data sets that its models have seen."""
    mlflow = _mlflow(current)
    mlflow.set_experiment(EXPERIMENT)
    mlflow.set_experiment_tag(KIND, "custom_model_development")  # else its pages are those of language models
    tags = {"dataset": dataset, "git_revision": git_revision()}
    with mlflow.start_run(run_name=f"round on {dataset}", tags=tags):
        mlflow.log_params({"dataset": dataset, **parameters})
        log = TrainingLog(mlflow, data)
        log.log_data()
        yield log
