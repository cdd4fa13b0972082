"""A version as it was registered: its contract and its graph, fetched from MLflow; no pickle is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from feature_repo.contract import ContractMismatch, ModelContract
from feature_repo.settings import Settings
from training.graphs import MLMODEL_FILE, BrokenVersion, Graph, Scores, Vectors, chosen


class NoSuchVersion(LookupError):
    """A version that is not registered, or whose files are no model of this platform."""


@dataclass(frozen=True)
class Registered:
    """One version of a registered model, its files below `folder`."""

    name: str
    version: str
    folder: Path

    @cached_property
    def graph(self) -> Graph:
        """Its files as promotion reads them."""
        return Graph(self.name, self.version, self.folder)

    @cached_property
    def contract(self) -> ModelContract:
        """What it promises; raises `NoSuchVersion`."""
        try:
            return self.graph.contract
        except BrokenVersion as error:
            raise NoSuchVersion(f"Model '{self.name}' version {self.version}: {error}") from None

    def score(self, vectors: Vectors, columns: tuple[str, ...]) -> Scores:
        """Fraud probabilities of vectors over `columns`, of which the contract's are taken, in its order.

        Raises `ContractMismatch` where one is not there, `ValueError` for a graph that fails or gives no probability.
        """
        missing = [name for name in self.contract.columns if name not in columns]
        if missing:
            raise ContractMismatch(
                f"Model '{self.name}' version {self.version} takes {', '.join(missing)}, which feature service "
                f"'{self.contract.feature_service}' of this code has no more; score it with the code of its time."
            )
        scores = self.graph.score(chosen(vectors, columns, self.contract.columns))
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
    found = sorted(folder.rglob(MLMODEL_FILE))
    if not found:
        raise NoSuchVersion(f"Model '{name}' version {number}: there is no {MLMODEL_FILE} among its files.")
    return Registered(name, number, found[0].parent)
