"""The version that serves as champion, with what training laid beside its graph: contract, reference rows, promises.

Read over MLflow's REST interface, so that a job needs neither MLflow's client nor training's code.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pandas as pd
import yaml
from pydantic import ValidationError

from feature_repo.contract import EVIDENCE_FILE, LABEL, METADATA_KEY, REFERENCE_FILE, SCORE, ModelContract
from feature_repo.settings import Settings

ALIAS = "champion"
MLMODEL_FILE = "MLmodel"

DECISION = "decision"
"""The column of a reference that says what follows of its scores."""

API = "/api/2.0"
TIMEOUT_SECONDS = 30.0


class NoChampion(LookupError):
    """There is no champion, or not what a job needs of it."""


@dataclass(frozen=True)
class Champion:
    """One version; `file` gives the bytes of one of its files, None where it has none of that name."""

    name: str
    version: str
    file: Callable[[str], bytes | None]

    def __str__(self) -> str:
        return f"Model '{self.name}' version {self.version}"

    @cached_property
    def contract(self) -> ModelContract:
        """What it promises the service; raises `NoChampion`."""
        try:
            return ModelContract.model_validate(yaml.safe_load(self._needed(MLMODEL_FILE))["metadata"][METADATA_KEY])
        except (yaml.YAMLError, KeyError, TypeError, ValidationError) as error:
            raise NoChampion(f"{self} holds no contract: {error}") from None

    @cached_property
    def reference(self) -> pd.DataFrame:
        """Rows that it was trained on: its columns, `SCORE`, `DECISION` by its own thresholds, `LABEL`.

        The last three are there as far as training wrote them. Raises `NoChampion`.
        """
        frame = pd.read_parquet(io.BytesIO(self._needed(REFERENCE_FILE)))
        missing = [name for name in self.contract.columns if name not in frame]
        if missing:
            raise NoChampion(f"{self}: {REFERENCE_FILE} lacks {', '.join(missing)}. Register it through training.")
        if SCORE in frame:
            frame[DECISION] = [self.contract.decide(score)[0] for score in frame[SCORE].to_numpy(np.float64)]
        return frame[[name for name in (*self.contract.columns, SCORE, DECISION, LABEL) if name in frame]]

    @cached_property
    def evidence(self) -> dict[str, Any]:
        """What it was judged by in training, as JSON; empty where training left nothing."""
        found = self.file(EVIDENCE_FILE)
        try:
            document = json.loads(found) if found is not None else {}
        except ValueError as error:
            raise NoChampion(f"{self}: {EVIDENCE_FILE} is no JSON: {error}.") from None
        return document if isinstance(document, dict) else {}

    def _needed(self, name: str) -> bytes:
        found = self.file(name)
        if found is None:
            raise NoChampion(f"{self} has no {name}. Register it through training (`python -m training.train`).")
        return found


def champion(current: Settings, transport: httpx.BaseTransport | None = None) -> Champion:
    """The version behind the alias `champion`; raises `NoChampion`, also where MLflow does not answer."""
    url, name = current.mlflow_url.rstrip("/"), current.model_name

    def ask(endpoint: str, **params: str) -> httpx.Response:
        try:
            with httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS, transport=transport) as client:
                answer = client.get(API + endpoint, params=params)
        except httpx.HTTPError as error:
            told = error or type(error).__name__
            raise NoChampion(f"MLflow at {url} does not answer: {told}. Start it, or set FRAUD_MLFLOW_URL.") from error
        if answer.is_error:
            raise NoChampion(
                f"MLflow at {url} answers {answer.status_code} for the {ALIAS} of '{name}': {answer.text[:200]} "
                "Train a model (`make up`), or set FRAUD_MODEL_NAME."
            )
        return answer

    version = str(ask("/mlflow/registered-models/alias", name=name, alias=ALIAS).json()["model_version"]["version"])
    address = ask("/mlflow/model-versions/get-download-uri", name=name, version=version).json()["artifact_uri"]
    parts = urlsplit(address)
    if parts.scheme != "mlflow-artifacts":
        raise NoChampion(f"Model '{name}': its artifacts are at {address}; must be served by MLflow itself.")
    folder, place = parts.path.strip("/"), "/mlflow-artifacts/artifacts"
    there = {one["path"] for one in ask(place, path=folder).json().get("files", ())}

    def file(wanted: str) -> bytes | None:
        return ask(f"{place}/{folder}/{wanted}").content if wanted in there else None

    return Champion(name, version, file)
