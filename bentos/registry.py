"""The model registry as the service sees it: an alias in MLflow, resolved and fetched over REST, kept in a cache.

A version is in the cache whole or not at all, and the last one that was served can be found without MLflow.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from bentos.model import MLMODEL_FILE, LoadedModel, ModelFiles, load
from feature_repo.contract import ONNX_FILE
from feature_repo.settings import Settings

logger = logging.getLogger(__name__)

CHAMPION: Literal["champion"] = "champion"
API = "/api/2.0"
FILES = (MLMODEL_FILE, ONNX_FILE)
ORIGIN_FILE = "origin.json"
"""Beside the model: the artifact address it came from. Every registry counts versions from 1; an address is unique."""
TIMEOUT_SECONDS = 10.0


class RegistryUnreachable(ConnectionError):
    """MLflow doesn't answer, or answers with an error of its own."""


class NoModel(LookupError):
    """There is nothing to serve."""


class Registry:
    """One registered model in one MLflow server, and its cache folder."""

    def __init__(self, url: str, name: str, cache: Path, transport: httpx.BaseTransport | None = None) -> None:
        self.name = name
        self._url = url.rstrip("/")
        self._cache = cache / name
        self._transport = transport

    def fetch(self, alias: str) -> ModelFiles:
        """The version behind an alias, downloaded unless it is in the cache.

        Raises `RegistryUnreachable`, or `NoModel` where the registry answers that there is no such alias.
        """
        with httpx.Client(base_url=self._url, timeout=TIMEOUT_SECONDS, transport=self._transport) as client:
            asked = {"name": self.name, "alias": alias}
            version = self._get(client, "/mlflow/registered-models/alias", asked).json()["model_version"]["version"]
            asked = {"name": self.name, "version": version}
            address = self._get(client, "/mlflow/model-versions/get-download-uri", asked).json()["artifact_uri"]
            folder = self._cache / version
            if _origin(folder) != address:
                self._download(client, address, folder)
        return ModelFiles(self.name, version, folder, "registry")

    def last_served(self, alias: str) -> ModelFiles:
        """The version that was last served under an alias; raises `NoModel` where the cache has none."""
        try:
            version = json.loads(self._mark(alias).read_text())["version"]
        except FileNotFoundError:
            raise NoModel(f"The cache {self._cache} holds no model that was served as '{alias}'.") from None
        return ModelFiles(self.name, version, self._cache / version, "cache")

    def remember(self, files: ModelFiles, alias: str) -> None:
        """Note that a version is good to serve under an alias."""
        mark = self._mark(alias)
        unfinished = mark.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps({"version": files.version}))
        unfinished.replace(mark)

    def _mark(self, alias: str) -> Path:
        return self._cache / f"{alias}.json"

    def _get(self, client: httpx.Client, path: str, params: dict[str, str] | None = None) -> httpx.Response:
        try:
            response = client.get(API + path, params=params)
        except httpx.HTTPError as error:
            raise RegistryUnreachable(
                f"MLflow at {self._url} does not answer: {error or type(error).__name__}."
            ) from error
        if response.status_code in (400, 404):
            raise NoModel(
                f"MLflow at {self._url} has no {path.rsplit('/', 1)[-1]} for {params or 'the model'}: "
                f"{_message(response)} Train and register a model, and give it the alias."
            )
        if response.is_error:
            raise RegistryUnreachable(f"MLflow at {self._url} answers {response.status_code}: {_message(response)}")
        return response

    def _download(self, client: httpx.Client, address: str, folder: Path) -> None:
        parts = urlsplit(address)
        if parts.scheme != "mlflow-artifacts":
            raise NoModel(
                f"Model '{self.name}': its artifacts are at {address}; must be served by MLflow itself "
                "(`mlflow server --serve-artifacts`, an address of the form mlflow-artifacts:/...)."
            )
        self._cache.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=self._cache))
        try:
            for file in FILES:
                path = f"/mlflow-artifacts/artifacts{parts.path.rstrip('/')}/{file}"
                (unfinished / file).write_bytes(self._get(client, path).content)
            (unfinished / ORIGIN_FILE).write_text(json.dumps({"address": address}))
            _move(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def champion(settings: Settings, feature_service: str, columns: Sequence[str]) -> LoadedModel:
    """The model to serve: the registry's champion, or the last one served where the registry is out of reach.

    Raises `NoModel`, or what `bentos.model.load` raises: a champion that does not fit the code is never passed over.
    """
    registry = Registry(settings.mlflow_url, settings.model_name, settings.home / "models")
    try:
        files = registry.fetch(CHAMPION)
    except RegistryUnreachable as error:
        try:
            files = registry.last_served(CHAMPION)
        except NoModel as nothing:
            raise NoModel(f"{error} {nothing} Start MLflow, or set FRAUD_MLFLOW_URL to where it is.") from error
        logger.warning("%s Serving version %s from the cache, the last one served.", error, files.version)
    model = load(
        files,
        role=CHAMPION,
        feature_service=feature_service,
        columns=columns,
        review_threshold=settings.review_threshold,
        now=datetime.now(UTC),
    )
    registry.remember(files, CHAMPION)
    return model


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase


def _origin(folder: Path) -> Any:
    try:
        return json.loads((folder / ORIGIN_FILE).read_text())["address"]
    except FileNotFoundError:
        return None


def _move(unfinished: Path, folder: Path) -> None:
    """Put a complete folder in its place; one that another process has just put there is replaced by its equal."""
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=".old-", dir=folder.parent))
        folder.rename(old / folder.name)
        shutil.rmtree(old, ignore_errors=True)
    unfinished.rename(folder)
