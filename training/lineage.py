"""Where a model comes from: the data by digest, the feature service by Feast's own tags, the code by revision."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from feature_repo.settings import ROOT, Settings
from feature_repo.vector import FEATURE_SERVICE
from training.dataset import TrainingSet

UNKNOWN = "unknown"


class LineageMissing(RuntimeError):
    """MLflow took no lineage; a model without it cannot be traced to its features."""


@dataclass(frozen=True)
class DataSetDigest:
    """A data set that a run saw: rows, frauds, the period (UTC) and a digest of every label and vector."""

    name: str
    context: str
    columns: tuple[str, ...]
    rows: int
    frauds: int
    begin: datetime
    end: datetime
    digest: str

    @classmethod
    def of(cls, name: str, context: str, data: TrainingSet, begin: datetime, end: datetime) -> DataSetDigest:
        """Of these rows; `context` says what they were for: `choosing`, `training` or `testing`."""
        seen = hashlib.blake2b(digest_size=16)
        seen.update(",".join(data.columns).encode())
        seen.update(pd.util.hash_pandas_object(data.rows["transaction_id"], index=False).to_numpy().tobytes())
        seen.update(data.rows["is_fraud"].to_numpy().tobytes())
        seen.update(data.vectors.tobytes())
        frauds = int(data.rows["is_fraud"].sum())
        return cls(name, context, data.columns, len(data.rows), frauds, begin, end, seen.hexdigest())

    def as_json(self) -> dict[str, Any]:
        """As the evidence of a version has it."""
        return asdict(self) | {"columns": len(self.columns), "begin": str(self.begin), "end": str(self.end)}

    def as_mlflow(self) -> Any:
        """As MLflow logs it, without the rows: looking at each value for its schema takes MLflow longer than a fit."""
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.types import ColSpec, DataType, Schema

        schema = Schema([ColSpec(DataType.float, name) for name in self.columns])
        said = {"rows": self.rows, "frauds": self.frauds, "begin": f"{self.begin:%F}", "end": f"{self.end:%F}"}
        source = CodeDatasetSource(tags={key: str(value) for key, value in said.items()})
        return MetaDataset(source, name=f"{self.name} {self.context}", digest=self.digest, schema=schema)


def git_revision() -> str:
    """The commit of the working tree, with `-dirty` where it was changed since; `unknown` outside a repository."""
    git = shutil.which("git")
    if git is None:
        return UNKNOWN
    command = [git, "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 — our own question
    return done.stdout.strip() if done.returncode == 0 else UNKNOWN


def feature_lineage(store: Any, current: Settings, data: TrainingSet) -> None:
    """Tag the open run as Feast's MLflow integration does: project, feature service, its views and features.

    Feast's own automatic logging is not used: it would tie each retrieval, the service's too, to a tracking server.
    """
    from feast.mlflow_integration.client import FeastMlflowClient
    from feast.mlflow_integration.config import MlflowConfig

    service = store.get_feature_service(FEATURE_SERVICE)
    store.config.mlflow_config = MlflowConfig(enabled=True, auto_log=False, tracking_uri=current.mlflow_url)
    features = [
        f"{view.name_to_use()}:{field.name}" for view in service.feature_view_projections for field in view.features
    ]
    taken = FeastMlflowClient(store).log_feature_retrieval(
        features, len(data.rows), data.seconds, feature_service=service
    )
    if not taken:
        raise LineageMissing(f"MLflow at {current.mlflow_url} took no tags of feature service '{FEATURE_SERVICE}'.")
