"""What retraining asks of MLflow's registry: who serves, what was promised, which version a round made."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from feature_repo.settings import Settings
from training.registry import CHALLENGER, CHAMPION, EXPERIMENT

ROUND_TAG = "tollgate.round"


class NoPromise(LookupError):
    """The champion's run doesn't say what was measured in its test."""


class Registry:
    """One registered model in the MLflow of the settings."""

    def __init__(self, current: Settings) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # one that is away is told within seconds
        import mlflow

        self.name = current.model_name
        self.client = mlflow.MlflowClient(current.mlflow_url, current.mlflow_url)

    def _versions(self) -> list[Any]:
        return list(self.client.search_model_versions(f"name = '{self.name}'"))

    def newest(self) -> datetime | None:
        """When the newest version was registered; null where there is none."""
        made = [one.creation_timestamp for one in self._versions()]
        return datetime.fromtimestamp(max(made) / 1000, UTC) if made else None

    def alias(self, alias: str) -> str | None:
        """The version behind an alias; null where there is none."""
        for one in self.client.search_registered_models(f"name = '{self.name}'"):
            found = one.aliases.get(alias)
            return None if found is None else str(found)
        return None

    def version_of(self, run_name: str) -> str | None:
        """The version that a round made whose runs have this data set's name; null where it made none."""
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return None
        made = {
            run.info.run_id
            for kind in ("params", "tags")
            for run in self.client.search_runs([experiment.experiment_id], f"{kind}.dataset = '{run_name}'")
        }
        found = [str(one.version) for one in self._versions() if one.run_id in made]
        return min(found, key=int) if found else None

    def promised(self, metric: str) -> tuple[str, float]:
        """The champion's version and what the metric was in its own test; raises `NoPromise`."""
        version = self.alias(CHAMPION)
        if version is None:
            raise NoPromise(f"Model '{self.name}' has no champion, and nothing was promised.")
        found = self.client.get_model_version(self.name, version)
        run = self.client.get_run(found.run_id)
        below = f"tags.mlflow.parentRunId = '{found.run_id}' and tags.mlflow.runName = '{found.tags.get('algorithm')}'"
        for one in (run, *self.client.search_runs([run.info.experiment_id], below)):
            if metric in one.data.metrics:
                return version, float(one.data.metrics[metric])
        raise NoPromise(f"Model '{self.name}' version {version}: its run has no metric '{metric}'.")

    def tag(self, version: str, key: str) -> None:
        """Say which round a version is of."""
        self.client.set_model_version_tag(self.name, version, ROUND_TAG, key)

    def challenge(self, version: str) -> None:
        """Make a version the challenger."""
        self.client.set_registered_model_alias(self.name, CHALLENGER, version)
