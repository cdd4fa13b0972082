"""A registered version as its files, read without a pickle: the contract, the ONNX graph, the evidence beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pandas as pd
import yaml
from pydantic import ValidationError

from feature_repo import parity_sample
from feature_repo.contract import METADATA_KEY, ONNX_FILE, ONNX_INPUT, ONNX_OUTPUT, ModelContract
from feature_repo.parity_sample import PARITY_FILE, ParitySample
from training.evidence import EVIDENCE_FILE, REFERENCE_FILE
from training.verdicts import MissingEvidence

Vectors = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]

MLMODEL_FILE = "MLmodel"


class BrokenVersion(ValueError):
    """Files that are no model of this platform, or a graph that cannot score what it promises to."""


@dataclass(frozen=True)
class Graph:
    """One registered version, below `folder`."""

    name: str
    version: str
    folder: Path

    def __str__(self) -> str:
        return f"version {self.version} of '{self.name}'"

    @cached_property
    def contract(self) -> ModelContract:
        """What the version promises; raises `BrokenVersion`."""
        try:
            document = yaml.safe_load((self.folder / MLMODEL_FILE).read_bytes())
            return ModelContract.model_validate(document["metadata"][METADATA_KEY])
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValidationError) as error:
            raise BrokenVersion(f"{MLMODEL_FILE} holds no contract: {type(error).__name__}: {error}") from None

    @cached_property
    def session(self) -> Any:
        """The graph, on one thread as in the service; raises `BrokenVersion`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            made = onnxruntime.InferenceSession(
                str(self.folder / ONNX_FILE), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise BrokenVersion(f"{ONNX_FILE} cannot be loaded: {error}") from None
        inputs, outputs = [one.name for one in made.get_inputs()], [one.name for one in made.get_outputs()]
        if inputs != [ONNX_INPUT] or ONNX_OUTPUT not in outputs:
            raise BrokenVersion(f"the graph takes {inputs} and gives {outputs}; not '{ONNX_INPUT}', '{ONNX_OUTPUT}'")
        return made

    def score(self, vectors: Vectors) -> Scores:
        """What the graph gives for fraud, (rows,), whatever it is; raises `BrokenVersion` where it gives nothing."""
        try:
            (given,) = self.session.run([ONNX_OUTPUT], {ONNX_INPUT: vectors})
        except BrokenVersion:
            raise
        except Exception as error:  # a graph may fail in any way
            raise BrokenVersion(f"the graph fails on {len(vectors)} rows: {error}") from None
        if given.shape != (len(vectors), 2):
            raise BrokenVersion(f"the graph gives {given.shape} for {len(vectors)} rows; not ({len(vectors)}, 2)")
        return np.asarray(given[:, 1], np.float64)

    @cached_property
    def sample(self) -> ParitySample:
        """Its parity sample; raises `MissingEvidence`."""
        try:
            found = parity_sample.loads((self.folder / PARITY_FILE).read_bytes())
        except FileNotFoundError:
            raise MissingEvidence(f"no {PARITY_FILE} lies beside the graph") from None
        except parity_sample.InvalidSample as error:
            raise MissingEvidence(str(error)) from None
        if found.columns != self.contract.columns:
            raise MissingEvidence(f"{PARITY_FILE} is of other columns than the contract's")
        return found

    @cached_property
    def reference(self) -> pd.DataFrame:
        """A sample of the vectors that it was trained on, with their labels; raises `MissingEvidence`."""
        path = self.folder / REFERENCE_FILE
        if not path.exists():
            raise MissingEvidence(f"no {REFERENCE_FILE} of what it was trained on lies beside the graph")
        found = pd.read_parquet(path)
        lacking = [name for name in (*self.contract.columns, "is_fraud") if name not in found]
        if lacking or found.empty:
            raise MissingEvidence(f"{REFERENCE_FILE} has {len(found)} rows and lacks {lacking or 'no column'}")
        return found

    @cached_property
    def chosen_by(self) -> Mapping[str, float]:
        """The metrics that it was chosen by in training; raises `MissingEvidence`."""
        try:
            found = json.loads((self.folder / EVIDENCE_FILE).read_bytes())["earlier_fold"]
            return {name: float(value) for name, value in found.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise MissingEvidence(
                f"{EVIDENCE_FILE} does not say what the version was chosen by: {type(error).__name__}: {error}"
            ) from None


def chosen(vectors: Vectors, columns: Sequence[str], wanted: Sequence[str]) -> Vectors:
    """The vectors' columns in another order, or some of them; raises `MissingEvidence` naming what is not there."""
    if tuple(columns) == tuple(wanted):
        return vectors
    lacking = [name for name in wanted if name not in columns]
    if lacking:
        raise MissingEvidence(f"the window's vectors lack {', '.join(lacking)}")
    return np.ascontiguousarray(vectors[:, [list(columns).index(name) for name in wanted]])
