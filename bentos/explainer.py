"""From a model's ONNX graph to what each column contributed to a score; exact, and without the library that fitted it.

Contributions and `base` add up to the model's output: log-odds, or the probability itself for a forest that averages.
Where a calibration stands behind it, they add up to what it is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bentos.calibration import OPERATORS, Calibration
from bentos.effects import Effects
from bentos.tree_kernels import walk
from bentos.tree_tables import Tables, tables
from bentos.trees import NotExplainable, Output, Trees, read
from feature_repo.contract import CALIBRATION_KEY, EFFECTS_KEY, ONNX_INPUT

TREES = "TreeEnsembleClassifier"

TOLERANCE = 1e-4
"""Largest difference between a score and the probability that its contributions add up to."""

Vectors = npt.NDArray[np.float32]
Contributions = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Walk:
    """Trees too deep for tables, leaf by leaf: exact too, but milliseconds a row."""

    trees: Trees

    def contributions(self, vectors: Vectors) -> Contributions:
        """float64 (rows, columns) of float32 vectors of that shape."""
        of, out = self.trees, np.zeros(vectors.shape)
        rows = np.ascontiguousarray(vectors)
        walk(rows, of.column, of.threshold, of.unknown_passes, of.value, of.share, of.parent, out)
        return out


@dataclass(frozen=True)
class Explainer:
    """Attributes the scores of one model to its columns. Immutable, and safe to use from several threads."""

    columns: tuple[str, ...]
    base: float
    """The output with nothing known of a payment: its mean over the training data."""
    output: Output
    quick: bool
    """Whether it costs microseconds a row: cheap enough for each answer. Otherwise explain on demand."""
    method: Tables | Walk | Effects
    calibration: Calibration | None = None

    @classmethod
    def of(cls, graph: bytes, columns: Sequence[str]) -> Explainer:
        """The explainer of a graph whose input has these columns; raises `NotExplainable`."""
        from google.protobuf.message import DecodeError
        from onnx import load_model_from_string

        try:
            proto = load_model_from_string(graph)
        except DecodeError as error:
            raise NotExplainable(f"The graph is no ONNX model: {error}.") from None
        stated = {entry.key: entry.value for entry in proto.metadata_props}
        nodes, calibration = list(proto.graph.node), None
        if CALIBRATION_KEY in stated:
            calibration = Calibration.read(stated[CALIBRATION_KEY], [node.op_type for node in nodes])
            nodes = nodes[: -len(OPERATORS)]
        if EFFECTS_KEY in stated:
            linear = Effects.read(stated[EFFECTS_KEY], len(columns))
            return cls(tuple(columns), linear.base, "log-odds", True, linear, calibration)
        trees = _trees(nodes, len(columns))
        output = calibration.margin if calibration else trees.output
        looked_up = tables(trees, len(columns))
        method = looked_up or Walk(trees)
        explainer = cls(tuple(columns), trees.mean, output, looked_up is not None, method, calibration)
        explainer.contributions(
            np.full((1, len(columns)), np.nan, np.float32)
        )  # compiles what a first row would wait for
        return explainer

    def contributions(self, vectors: Vectors) -> Contributions:
        """What each column contributed, float64 (rows, columns), of float32 vectors of that shape.

        A row's contributions are the same to the last bit whichever rows it came with.
        """
        return self.method.contributions(vectors)

    def probabilities(self, contributions: Contributions) -> npt.NDArray[np.float64]:
        """The fraud probabilities that contributions add up to."""
        total = contributions.sum(axis=1) + self.base
        if self.calibration is not None:
            return self.calibration.probabilities(total)
        return total if self.output == "probability" else 1.0 / (1.0 + np.exp(-total))

    def check(self, vectors: Vectors, scores: npt.NDArray[np.float64]) -> None:
        """Raise `NotExplainable` unless the contributions add up to the scores that the graph gives these vectors."""
        worst = float(np.abs(self.probabilities(self.contributions(vectors)) - scores).max(initial=0.0))
        if not worst <= TOLERANCE:
            raise NotExplainable(
                f"The contributions miss the graph's own scores by up to {worst:.2e} (at most {TOLERANCE} is allowed). "
                "Register the model anew through training."
            )


def _trees(nodes: list[Any], columns: int) -> Trees:
    kinds = [node.op_type for node in nodes]
    if kinds not in ([TREES], ["Imputer", TREES]) or nodes[0].input[0] != ONNX_INPUT:
        raise NotExplainable(
            f"The graph is made of {', '.join(dict.fromkeys(kinds)) or 'nothing'}; only trees (with an imputer or "
            f"without) and graphs with the metadata '{EFFECTS_KEY}' can be explained."
        )
    if len(nodes) == 1:
        return read(nodes[0], columns)
    given = {attribute.name: attribute for attribute in nodes[0].attribute}
    filled = np.array(given["imputed_value_floats"].floats, np.float32)
    if nodes[1].input[0] != nodes[0].output[0] or not np.isnan(given["replaced_value_float"].f):
        raise NotExplainable("The graph's imputer must replace NaN, and feed the trees.")
    return read(nodes[1], columns, np.broadcast_to(filled, columns))
