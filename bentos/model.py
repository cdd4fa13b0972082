"""A model in memory, checked: it can be fed by this code, and it gives the scores that training saw it give.

No pickle is read: the model is an ONNX graph, its contract a YAML mapping, its evidence JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import ValidationError

from bentos import evidence
from bentos.answers import ModelCard, Role, Source, Thresholds
from bentos.evidence import InvalidModel
from feature_repo.contract import METADATA_KEY, ONNX_FILE, ONNX_INPUT, ONNX_OUTPUT, ContractMismatch, ModelContract

MLMODEL_FILE = "MLmodel"


class InvalidScore(ArithmeticError):
    """A model gave something that is no probability; nothing may be decided on it."""


@dataclass(frozen=True)
class ModelFiles:
    """A registered version on disk; `folder` holds MLmodel and the graph."""

    name: str
    version: str
    folder: Path
    source: Source


@dataclass(frozen=True)
class LoadedModel:
    """One version of a registered model, ready to score. Immutable: a newer version is another object."""

    name: str
    version: str
    role: Role
    contract: ModelContract
    session: Any
    source: Source
    loaded_at: datetime
    folder: Path | None = None
    """Where its files lie; None for one that was made by hand."""

    def score(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Fraud probabilities, shape (n,), of vectors of shape (n, columns); raises `InvalidScore`."""
        (output,) = self.session.run([ONNX_OUTPUT], {ONNX_INPUT: vectors})
        if output.shape != (len(vectors), 2):
            raise InvalidScore(
                f"Model '{self.name}' version {self.version}: output '{ONNX_OUTPUT}' has shape {output.shape} for "
                f"{len(vectors)} rows; must be ({len(vectors)}, 2)."
            )
        probabilities = output[:, 1].astype(np.float64)
        if not ((probabilities >= 0.0) & (probabilities <= 1.0)).all():  # false for NaN, which would be approved
            raise InvalidScore(f"Model '{self.name}' version {self.version}: gave a score outside 0 to 1 or NaN.")
        return probabilities

    def card(self) -> ModelCard:
        """What the service tells of the model."""
        contract = self.contract
        return ModelCard(
            name=self.name,
            version=self.version,
            role=self.role,
            algorithm=contract.algorithm,
            feature_service=contract.feature_service,
            columns=contract.columns,
            thresholds=Thresholds(review_from=contract.review_from, decline_from=contract.decline_from),
            trained_until=contract.trained_until,
            loaded_at=self.loaded_at,
            source=self.source,
        )


def load(
    files: ModelFiles,
    *,
    role: Role,
    feature_service: str,
    columns: Sequence[str],
    review_threshold: float | None,
    now: datetime,
) -> LoadedModel:
    """Read, check and warm up a version.

    Raises `ContractMismatch` where code and model disagree, naming what differs; `InvalidModel` for other faults.
    """
    contract = read_contract(files)
    try:
        contract.require(feature_service, columns)
        contract = with_review_threshold(contract, review_threshold)
    except ContractMismatch as error:
        raise ContractMismatch(f"Model '{files.name}' version {files.version} is refused. {error}") from None
    model = LoadedModel(files.name, files.version, role, contract, _session(files), files.source, now, files.folder)
    evidence.require(f"Model '{model.name}' version {model.version}", model.score, contract.columns, files.folder)
    return model


def read_contract(files: ModelFiles) -> ModelContract:
    """The contract in the version's MLmodel; raises `InvalidModel`."""
    try:
        # The parser in C is as safe and ten times as quick: this runs beside a service that is answering.
        document = yaml.load((files.folder / MLMODEL_FILE).read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (FileNotFoundError, yaml.YAMLError) as error:
        raise InvalidModel(
            f"Model '{files.name}' version {files.version}: its {MLMODEL_FILE} cannot be read: {error}"
        ) from None
    metadata = (document.get("metadata") if isinstance(document, dict) else None) or {}
    if METADATA_KEY not in metadata:
        raise InvalidModel(
            f"Model '{files.name}' version {files.version}: its {MLMODEL_FILE} has no metadata '{METADATA_KEY}'; "
            "it must hold the model's contract. Register it through training."
        )
    try:
        return ModelContract.model_validate(metadata[METADATA_KEY])
    except ValidationError as error:
        raise InvalidModel(f"Model '{files.name}' version {files.version}: its contract is invalid: {error}") from None


def with_review_threshold(contract: ModelContract, threshold: float | None) -> ModelContract:
    """The contract with `review_from` replaced; None keeps the model's own. It must not exceed `decline_from`."""
    review = contract.review_from if threshold is None else threshold
    if not 0.0 <= review <= contract.decline_from:
        raise ContractMismatch(
            f"The review threshold is {review}; must lie between 0 and the decline threshold {contract.decline_from}."
        )
    return contract.model_copy(update={"review_from": review})


def _session(files: ModelFiles) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # rows are few: a second thread costs more than it brings
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    path = files.folder / ONNX_FILE
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise InvalidModel(
            f"Model '{files.name}' version {files.version}: {ONNX_FILE} cannot be loaded: {error}"
        ) from None
    inputs, outputs = [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]
    if inputs != [ONNX_INPUT] or ONNX_OUTPUT not in outputs:
        raise InvalidModel(
            f"Model '{files.name}' version {files.version}: its graph takes {inputs} and gives {outputs}; must take "
            f"'{ONNX_INPUT}' alone and give '{ONNX_OUTPUT}'."
        )
    return session
