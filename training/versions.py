"""The versions of a registered model as promotion sees them: who serves, who served before, and what was said of each.

All of it lies in MLflow, with the version: its verdicts as JSON beside the graph, what happened to it as tags. The
alias that the service follows moves last, when the rest has been written.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from feature_repo.settings import Settings
from training.graphs import Graph
from training.registry import CHALLENGER, CHAMPION, FALLBACK_TAG
from training.verdicts import Verdict

VERDICTS = "verdicts"
"""Folder beside the graph that holds every verdict on the version."""

VERDICT_TAG = "tollgate.verdict"
EVENT_TAG = "tollgate.event."

Action = Literal["promoted", "overridden", "blocked", "rolled back", "rollback undone"]


class RegistryFailed(RuntimeError):
    """MLflow does not answer, or does not have what was asked for."""


class Event(BaseModel):
    """What happened to a version: `left` is the champion whose place it took, or who stayed where it was blocked."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    action: Action
    version: str
    left: str | None
    by: str
    reason: str
    verdict: str

    @property
    def changed(self) -> bool:
        """Whether it made the version champion."""
        return self.action != "blocked"


class Versions:
    """One registered model in the MLflow of the settings."""

    def __init__(self, current: Settings, name: str | None = None) -> None:
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        import mlflow

        self.name, self.url = name or current.model_name, current.mlflow_url
        self.spare = current.fallback_model_name
        self.client = mlflow.MlflowClient(self.url, self.url)

    def aliases(self) -> dict[str, str]:
        """The version behind each alias, none where the model is not registered; raises `RegistryFailed`."""
        from mlflow.exceptions import MlflowException

        try:
            with self.failures("its aliases"):
                found: dict[str, Any] = dict(self.client.get_registered_model(self.name).aliases)
        except RegistryFailed as error:
            cause = error.__cause__
            if isinstance(cause, MlflowException) and cause.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
        return {alias: str(version) for alias, version in found.items()}

    @contextlib.contextmanager
    def files(self, version: str) -> Iterator[Graph]:
        """The version's files, fetched for the length of the block; raises `RegistryFailed`."""
        with contextlib.ExitStack() as stack:
            with self.failures(f"version {version}"):
                folder = stack.enter_context(self._fetched(self._address(version)))
            yield Graph(self.name, version, folder)

    def keep(self, verdict: Verdict) -> None:
        """Store a verdict with its version."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with tempfile.TemporaryDirectory() as folder, self.failures(f"version {verdict.version}"):
            file = Path(folder) / f"{verdict.judged_at:%Y%m%dT%H%M%S.%f}.json"
            file.write_text(verdict.model_dump_json(indent=1))
            address = self._address(verdict.version)
            get_artifact_repository(address, tracking_uri=self.url).log_artifact(str(file), VERDICTS)
            self.client.set_model_version_tag(self.name, verdict.version, VERDICT_TAG, str(verdict))
            self.client.set_model_version_tag(
                self.name, verdict.version, f"{VERDICT_TAG}.file", f"{VERDICTS}/{file.name}"
            )

    def last_verdict(self, version: str) -> Verdict | None:
        """The last verdict on a version; None where there is none."""
        with self.failures(f"version {version}"):
            tags = self.client.get_model_version(self.name, version).tags
            if f"{VERDICT_TAG}.file" not in tags:
                return None
            with self._fetched(f"{self._address(version)}/{tags[f'{VERDICT_TAG}.file']}") as file:
                return Verdict.model_validate_json(file.read_bytes())

    def record(self, event: Event) -> None:
        """Write what happened to its version's tags."""
        key = f"{EVENT_TAG}{event.at:%Y%m%dT%H%M%S.%f}"
        with self.failures(f"version {event.version}"):
            self.client.set_model_version_tag(self.name, event.version, key, event.model_dump_json())

    def strike(self, event: Event) -> None:
        """Take back a record of what did not happen after all."""
        key = f"{EVENT_TAG}{event.at:%Y%m%dT%H%M%S.%f}"
        with self.failures(f"version {event.version}"):
            self.client.delete_model_version_tag(self.name, event.version, key)

    def events(self) -> list[Event]:
        """All that happened to the model's versions, in the order of time."""
        with self.failures("its versions"):
            found = self.client.search_model_versions(f"name = '{self.name}'")
        tags = [value for one in found for key, value in one.tags.items() if key.startswith(EVENT_TAG)]
        return sorted((Event.model_validate_json(text) for text in tags), key=lambda event: event.at)

    def seat(self, event: Event) -> None:
        """Record that a version becomes champion, then move the alias to it: it is followed as soon as it moves.

        The fallback that was trained with the version goes before it; one that is not known stays as it is.
        """
        self.record(event)
        try:
            self._seat_fallback(event.version)
            with self.failures(f"the alias '{CHAMPION}'"):
                self.client.set_registered_model_alias(self.name, CHAMPION, event.version)
        except RegistryFailed:
            self.strike(event)
            raise
        if self.aliases().get(CHALLENGER) == event.version:
            with self.failures(f"the alias '{CHALLENGER}'"):
                self.client.delete_registered_model_alias(self.name, CHALLENGER)

    def _seat_fallback(self, version: str) -> None:
        with self.failures(f"version {version}"):
            spare = self.client.get_model_version(self.name, version).tags.get(FALLBACK_TAG)
            if spare is not None:
                self.client.set_registered_model_alias(self.spare, CHAMPION, spare)

    def challenge(self, version: str) -> None:
        """Make a version the challenger: in shadow, or with a share of the traffic (`monitoring.traffic`)."""
        with self.failures(f"the alias '{CHALLENGER}'"):
            self.client.set_registered_model_alias(self.name, CHALLENGER, version)

    @contextlib.contextmanager
    def failures(self, subject: str) -> Iterator[None]:
        """What MLflow raises, as `RegistryFailed` with the subject's name."""
        import requests
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, requests.RequestException) as error:
            raise RegistryFailed(
                f"Model '{self.name}' in MLflow at {self.url}: {subject} cannot be had: {str(error).splitlines()[0]} "
                "Set FRAUD_MLFLOW_URL and FRAUD_MODEL_NAME, or register a version by training."
            ) from error

    @contextlib.contextmanager
    def _fetched(self, address: str) -> Iterator[Path]:
        """What lies at an artifact's address, for the length of the block."""
        from mlflow.artifacts import download_artifacts

        with tempfile.TemporaryDirectory() as folder:
            yield Path(download_artifacts(artifact_uri=address, dst_path=folder, tracking_uri=self.url))

    def _address(self, version: str) -> str:
        return str(self.client.get_model_version_download_uri(self.name, version))


def someone() -> str:
    """Who is at work here, as far as the machine knows."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def utc_now() -> datetime:
    """This instant."""
    return datetime.now(UTC)
