"""A fitted model as ONNX, and the proof that it is the same model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from feature_repo.contract import ONNX_INPUT, ONNX_OUTPUT
from training.calibrate import Calibrated
from training.calibration_graph import put_behind
from training.explained import explain
from training.imbalance import without_sampler
from training.tree_graph import OPSETS, graph_of, is_grown_apart

TOLERANCE = 1e-4
"""Largest difference of a probability that float32 may make."""


class ParityError(ValueError):
    """The exported graph does not give the model's own scores."""


@dataclass(frozen=True)
class Parity:
    """The exported graph against the model on `rows` rows; `flips` are decisions that came out differently."""

    rows: int
    largest_difference: float
    flips: int


def to_onnx(model: Any, n_columns: int, fitted_on: npt.NDArray[np.float32] | None = None) -> bytes:
    """The graph: float32 (rows, columns) `features` in, float32 (rows, 2) `probabilities` out.

    `model` is a fitted candidate, or one that is calibrated; what it resampled with stays behind. The graph holds what
    its reasons are made from; a linear model's need the vectors that it was fitted on.
    """
    curve = model.curve if isinstance(model, Calibrated) else None
    bare = without_sampler(model.model if isinstance(model, Calibrated) else model)
    graph = _converted(bare, n_columns)
    names = [output.name for output in graph.graph.output]
    if names[-1] != ONNX_OUTPUT:
        raise ParityError(f"The graph's outputs are {names}; its last must be '{ONNX_OUTPUT}'.")
    straight = curve is not None and not curve.knots
    explain(graph, bare, fitted_on, (curve.intercept, curve.slope) if curve and straight else (0.0, 1.0))
    if curve is not None:
        put_behind(graph, curve)
    return bytes(graph.SerializeToString())


def _converted(model: Any, n_columns: int) -> Any:
    if is_grown_apart(model):
        return graph_of(model, n_columns)
    if hasattr(model, "get_booster"):
        from onnxmltools import convert_xgboost
        from onnxmltools.convert.common.data_types import FloatTensorType

        return convert_xgboost(model, initial_types=[(ONNX_INPUT, FloatTensorType([None, n_columns]))])
    from skl2onnx import to_onnx as convert
    from skl2onnx.common.data_types import FloatTensorType

    return convert(
        model,
        initial_types=[(ONNX_INPUT, FloatTensorType([None, n_columns]))],
        options={id(model): {"zipmap": False}},
        target_opset=OPSETS,
    )


def onnx_scores(graph: bytes, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Fraud probabilities of the exported graph."""
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    probabilities = session.run([ONNX_OUTPUT], {ONNX_INPUT: vectors})[0]
    return np.asarray(probabilities[:, 1], np.float64)


def check_parity(
    graph: bytes, vectors: npt.NDArray[np.float32], expected: npt.NDArray[np.float64], cuts: tuple[float, float]
) -> Parity:
    """Compare every row; raises `ParityError` where a probability is too far off or a decision at `cuts` differs."""
    scores = onnx_scores(graph, vectors)
    difference = np.abs(scores - expected)
    flips = int(sum(((scores >= cut) != (expected >= cut)).sum() for cut in cuts))
    worst = float(difference.max(initial=0.0))
    if not np.isfinite(worst) or worst > TOLERANCE or flips:
        raise ParityError(
            f"The ONNX graph differs from the model by up to {worst:.2e} (at most {TOLERANCE} is allowed) and decides "
            f"{flips} of {len(scores)} rows differently (0 are allowed). Don't register it."
        )
    return Parity(len(scores), worst, flips)
