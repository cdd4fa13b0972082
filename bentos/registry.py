"""The model registry as the service sees it: aliases and tags in MLflow, versions fetched over REST, kept in a cache.

A version is in the cache whole or not at all, and the last one that was served can be found without MLflow.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from bentos.model import MLMODEL_FILE, ModelFiles
from feature_repo.contract import ONNX_FILE
from feature_repo.parity_sample import PARITY_FILE

API = "/api/2.0"
FILES = (MLMODEL_FILE, ONNX_FILE, PARITY_FILE)
"""What is fetched of a version. One that lacks some of them is refused when it is loaded, not here."""

ORIGIN_FILE = "origin.json"
"""Beside the model: the artifact address it came from. Every registry counts versions from 1; an address is unique."""
TIMEOUT_SECONDS = 10.0


class RegistryUnreachable(ConnectionError):
    """MLflow doesn't answer, or answers with an error of its own."""


class NoModel(LookupError):
    """There is nothing to serve."""

    reason = "absent"


@dataclass(frozen=True)
class Registered:
    """A registered model as MLflow has it now: the version behind each alias, and its tags."""

    aliases: Mapping[str, str]
    tags: Mapping[str, str]


class Registry:
    """One registered model in one MLflow server, and its cache folder."""

    def __init__(self, url: str, name: str, cache: Path, transport: httpx.BaseTransport | None = None) -> None:
        self.name = name
        self._url = url.rstrip("/")
        self._cache = cache / name
        # Polls are seconds apart: a connection kept open would only be one that a restarted server has forgotten.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.Client(base_url=self._url, timeout=TIMEOUT_SECONDS, limits=limits, transport=transport)

    def registered(self) -> Registered:
        """The model's aliases and tags, in one request; raises as `fetch` does."""
        found = self._ask("/mlflow/registered-models/get", {"name": self.name})["registered_model"]
        return Registered(
            aliases={one["alias"]: str(one["version"]) for one in found.get("aliases", ())},
            tags={one["key"]: one.get("value", "") for one in found.get("tags", ())},
        )

    def fetch(self, alias: str) -> ModelFiles:
        """The version behind an alias, downloaded unless it is in the cache.

        Raises `RegistryUnreachable`, or `NoModel` where the registry answers that there is no such alias.
        """
        asked = {"name": self.name, "alias": alias}
        return self.version(self._ask("/mlflow/registered-models/alias", asked)["model_version"]["version"])

    def version(self, version: str) -> ModelFiles:
        """A version's files, downloaded unless they are in the cache; raises as `fetch` does."""
        asked = {"name": self.name, "version": version}
        address = self._ask("/mlflow/model-versions/get-download-uri", asked)["artifact_uri"]
        folder = self._cache / version
        if _origin(folder) != address or not all((folder / file).exists() for file in FILES):
            self._download(address, folder)
        return ModelFiles(self.name, version, folder, "registry")

    def close(self) -> None:
        """End the connections."""
        self._client.close()

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

    def _ask(self, path: str, params: dict[str, str]) -> Any:
        try:
            return self._get(path, params).json()
        except ValueError as error:
            raise RegistryUnreachable(f"What answers at {self._url} is no MLflow: {path} gives no JSON.") from error

    def _get(self, path: str, params: dict[str, str] | None = None) -> httpx.Response:
        try:
            response = self._client.get(API + path, params=params)
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

    def _download(self, address: str, folder: Path) -> None:
        parts = urlsplit(address)
        if parts.scheme != "mlflow-artifacts":
            raise NoModel(
                f"Model '{self.name}': its artifacts are at {address}; must be served by MLflow itself "
                "(`mlflow server --serve-artifacts`, an address of the form mlflow-artifacts:/...)."
            )
        self._cache.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=self._cache))
        try:
            artifacts, path = "/mlflow-artifacts/artifacts", parts.path.rstrip("/")
            # Asked for a file that isn't there, MLflow answers as if it were out of order itself.
            there = {one["path"] for one in self._ask(artifacts, {"path": path.lstrip("/")}).get("files", ())}
            for file in (file for file in FILES if file in there):
                (unfinished / file).write_bytes(self._get(f"{artifacts}{path}/{file}").content)
            (unfinished / ORIGIN_FILE).write_text(json.dumps({"address": address}))
            _move(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


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


def _holds(folder: Path, other: Path) -> bool:
    return _origin(folder) == _origin(other) and all((folder / file.name).exists() for file in other.iterdir())


def _move(unfinished: Path, folder: Path) -> None:
    """Put a complete folder in its place; one that another process has just put there is its equal."""
    if folder.exists():
        if _holds(folder, unfinished):  # another worker is reading it by now: it must not be without it for a moment
            return
        old = Path(tempfile.mkdtemp(prefix=".old-", dir=folder.parent))
        with contextlib.suppress(FileNotFoundError):
            folder.rename(old / folder.name)
        shutil.rmtree(old, ignore_errors=True)
    try:
        unfinished.rename(folder)
    except OSError:
        if _origin(folder) != _origin(unfinished):
            raise
