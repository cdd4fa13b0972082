"""A calibration curve inside an ONNX graph, behind the model and at next to no cost for a row.

A straight curve goes into the leaves' weights (or the linear model's coefficients): the graph stays as large as it was.
A bent one is a handful of operators on one number per row, and is written into the graph's metadata besides, for the
service's explanations: what they attribute is the margin ahead of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from feature_repo.contract import CALIBRATION_KEY, ONNX_OUTPUT
from training.calibrate import Curve
from training.explained import TREES
from training.tree_graph import OPSETS

LINEAR = "LinearClassifier"
PREFIX = "calibrated_"


class NoMargin(ValueError):
    """A graph in which nothing gives the margin that a curve is to be put behind."""


def put_behind(proto: Any, curve: Curve) -> None:
    """Change the graph so that it gives the calibrated probabilities; raises `NoMargin`."""
    found = [node for node in proto.graph.node if node.op_type in (TREES, LINEAR)]
    if len(found) != 1 or found[0].output[1] != ONNX_OUTPUT:
        raise NoMargin(f"The graph has {len(found)} of {TREES} and {LINEAR}; must have one, which gives its output.")
    if curve.knots:
        _bend(proto, found[0], curve)
    elif found[0].op_type == TREES:
        _scale_trees(found[0], curve)
    else:
        _scale_linear(found[0], curve)


def _set(node: Any, **values: Any) -> None:
    from onnx import helper

    kept = [attribute for attribute in node.attribute if attribute.name not in values]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in values.items())])


def _floats(node: Any, name: str) -> Any:
    (found,) = [attribute.floats for attribute in node.attribute if attribute.name == name] or [[]]
    return np.array(found, np.float64)


def _scale_trees(node: Any, curve: Curve) -> None:
    weights, base = _floats(node, "class_weights"), float(_floats(node, "base_values").sum())
    _set(
        node,
        class_weights=(weights * curve.slope).tolist(),
        base_values=[base * curve.slope + curve.intercept],
        post_transform="LOGISTIC",
    )


def _scale_linear(node: Any, curve: Curve) -> None:
    toward = np.array([-1.0, 1.0])  # the class of genuine payments has the same numbers, negated
    _set(
        node,
        coefficients=(_floats(node, "coefficients") * curve.slope).tolist(),
        intercepts=(_floats(node, "intercepts") * curve.slope + toward * curve.intercept).tolist(),
    )


def _bend(proto: Any, node: Any, curve: Curve) -> None:
    """Let the node give its margin, and put the curve's operators where its probabilities went."""
    from onnx import helper, numpy_helper

    graph = proto.graph
    ends = next(attribute.s for attribute in node.attribute if attribute.name == "post_transform")
    margin = "log-odds" if ends == b"LOGISTIC" else "probability"
    _set(node, post_transform="NONE")
    node.output[1] = f"{PREFIX}margins"
    if not any(opset.domain == "" for opset in proto.opset_import):  # a graph of trees alone needs no plain operators
        proto.opset_import.append(helper.make_opsetid("", OPSETS[""]))
    constants = {
        "sides": np.array([[-0.5, 0.5]], np.float32),
        "fraud": np.array([1], np.int64),
        "axis": np.array(1, np.int64),
        "last": np.array([len(curve.knots) - 1], np.int64),
        "slope": np.array([curve.slope], np.float32),
        "intercept": np.array([curve.intercept], np.float32),
        "knots": np.array([curve.knots], np.float32),
        "bends": np.array([curve.bends], np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(value, PREFIX + name) for name, value in constants.items())

    def operator(kind: str, *given: str, out: str, **attributes: Any) -> None:
        names = [PREFIX + name for name in given]
        named = out if out == ONNX_OUTPUT else PREFIX + out
        graph.node.append(helper.make_node(kind, names, [named], name=PREFIX + out, **attributes))

    operator("Gather", "margins", "fraud", out="margin", axis=1)
    operator("Sub", "margin", "knots", out="beyond")
    operator("Relu", "beyond", out="over")
    operator("Mul", "over", "bends", out="bent")
    # One after the other: ReduceSum adds a row up in an order that depends on where in memory it lies.
    operator("CumSum", "bent", "axis", out="summed")
    operator("Gather", "summed", "last", out="added", axis=1)
    operator("Mul", "margin", "slope", out="sloped")
    operator("Add", "sloped", "intercept", out="line")
    operator("Add", "line", "added", out="log_odds")
    operator("Mul", "log_odds", "sides", out="both")
    operator("Softmax", "both", out=ONNX_OUTPUT, axis=1)
    entry = proto.metadata_props.add()
    entry.key, entry.value = CALIBRATION_KEY, json.dumps({"margin": margin} | asdict(curve))
