"""A version as it was registered: its contract and its graph, fetched from MLflow; no pickle is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import ValidationError

from feature_repo.contract import METADATA_KEY, ONNX_FILE, ONNX_INPUT, ONNX_OUTPUT, ContractMismatch, ModelContract
from feature_repo.settings import Settings


class NoSuchVersion(LookupError):
    """A version that is not registered, or whose files are no model of this platform."""


@dataclass(frozen=True)
class Registered:
    """One version of a registered model, its files below `folder`."""

    name: str
    version: str
    folder: Path

    @cached_property
    def contract(self) -> ModelContract:
        """What it promises; raises `NoSuchVersion`."""
        try:
            document = yaml.safe_load((self.folder / "MLmodel").read_bytes())
            return ModelContract.model_validate(document["metadata"][METADATA_KEY])
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValidationError) as error:
            raise NoSuchVersion(f"Model '{self.name}' version {self.version} holds no contract: {error}") from None

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()  # as in the service: on more threads sums may come out otherwise
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        path = str(self.folder / ONNX_FILE)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def score(self, vectors: npt.NDArray[np.float32], columns: tuple[str, ...]) -> npt.NDArray[np.float64]:
        """Fraud probabilities of vectors over `columns`, of which the contract's are taken, in its order.

        Raises `ContractMismatch` where one is not there, `ValueError` for a score that is no probability.
        """
        missing = [name for name in self.contract.columns if name not in columns]
        if missing:
            raise ContractMismatch(
                f"Model '{self.name}' version {self.version} takes {', '.join(missing)}, which feature service "
                f"'{self.contract.feature_service}' of this code has no more; score it with the code of its time."
            )
        if columns != self.contract.columns:
            places = [columns.index(name) for name in self.contract.columns]
            vectors = np.ascontiguousarray(vectors[:, places])
        (given,) = self._session.run([ONNX_OUTPUT], {ONNX_INPUT: vectors})
        scores = given[:, 1].astype(np.float64)
        if not ((scores >= 0) & (scores <= 1)).all():  # false for NaN
            raise ValueError(f"Model '{self.name}' version {self.version} gave a score outside 0 to 1, or NaN.")
        return scores


def fetch(current: Settings, name: str, version: str, folder: Path) -> Registered:
    """Download a version, named by its number or by an alias, into `folder`; raises `NoSuchVersion`."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient(current.mlflow_url, current.mlflow_url)
    try:
        number = version if version.isdigit() else str(client.get_model_version_by_alias(name, version).version)
        address = client.get_model_version_download_uri(name, number)
        download_artifacts(artifact_uri=address, dst_path=str(folder), tracking_uri=current.mlflow_url)
    except MlflowException as error:
        raise NoSuchVersion(
            f"Model '{name}' version '{version}' cannot be had from {current.mlflow_url}: "
            f"{str(error).splitlines()[0]} Set FRAUD_MLFLOW_URL, --model and --version."
        ) from error
    found = sorted(folder.rglob("MLmodel"))
    if not found:
        raise NoSuchVersion(f"Model '{name}' version {number}: there is no MLmodel among its files.")
    return Registered(name, number, found[0].parent)
