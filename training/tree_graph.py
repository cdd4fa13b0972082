"""Trees as an ONNX graph, split by split as the library that grew them tests them.

A library keeps its thresholds in float64 and compares float32 values with them; ONNX keeps float32. Each threshold is
therefore rounded down to float32: for a float32 x, "x <= t" is the same question before and after. A converter that
rounds to the nearest sends some rows the other way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.contract import ONNX_INPUT, ONNX_OUTPUT

OPSETS = {"": 18, "ai.onnx.ml": 3}
LABEL = "label"


@dataclass(frozen=True)
class Tree:
    """One tree, a node per place, the root first. A leaf has column -1; the test is x <= threshold, then `yes`.

    `value` counts at leaves, `cover` is how much of the training data passed a node.
    """

    column: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float64]
    unknown_yes: npt.NDArray[np.bool_]
    yes: npt.NDArray[np.int64]
    no: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    cover: npt.NDArray[np.float64]


def is_grown_apart(classifier: Any) -> bool:
    """Whether its graph is made here: of histogram gradient boosting and LightGBM."""
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import HistGradientBoostingClassifier

    return isinstance(classifier, (HistGradientBoostingClassifier, LGBMClassifier))


def graph_of(classifier: Any, n_columns: int) -> Any:
    """The ONNX model of a fitted classifier of either kind: a sum of trees in log-odds, through the logistic."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    if isinstance(classifier, HistGradientBoostingClassifier):
        trees = [_of_histogram(stage[0].nodes) for stage in classifier._predictors]
        return ensemble(trees, float(classifier._baseline_prediction[0, 0]), n_columns)
    booster = classifier.booster_
    dumped = booster.dump_model(num_iteration=booster.best_iteration)["tree_info"]
    return ensemble([_of_lightgbm(each["tree_structure"]) for each in dumped], 0.0, n_columns)


def _of_histogram(nodes: Any) -> Tree:
    if nodes["is_categorical"].any():
        raise ValueError("The model has categorical splits; must have been fitted on numbers alone.")
    inner = nodes["is_leaf"] == 0
    return Tree(
        column=np.where(inner, nodes["feature_idx"], -1),
        threshold=nodes["num_threshold"].astype(np.float64),
        unknown_yes=nodes["missing_go_to_left"].astype(bool),
        yes=nodes["left"].astype(np.int64),
        no=nodes["right"].astype(np.int64),
        value=nodes["value"].astype(np.float64),
        cover=nodes["count"].astype(np.float64),
    )


def _of_lightgbm(root: dict[str, Any]) -> Tree:
    rows: list[tuple[int, float, bool, int, int, float, float]] = []

    def add(node: dict[str, Any]) -> int:
        place = len(rows)
        if "split_feature" not in node:
            # A tree that found no split says nothing of how many rows it saw.
            rows.append((-1, 0.0, False, 0, 0, node["leaf_value"], float(node.get("leaf_count", 1))))
            return place
        if node["decision_type"] != "<=":
            raise ValueError(f"The model tests '{node['decision_type']}'; must have been fitted on numbers alone.")
        # Without an unknown value in training LightGBM takes one for 0.
        taken_for_zero = node["missing_type"] != "NaN"
        unknown = node["threshold"] >= 0 if taken_for_zero else node["default_left"]
        rows.append((node["split_feature"], node["threshold"], bool(unknown), 0, 0, 0.0, float(node["internal_count"])))
        yes, no = add(node["left_child"]), add(node["right_child"])
        rows[place] = (*rows[place][:3], yes, no, *rows[place][5:])
        return place

    add(root)
    return Tree(*(np.array(column) for column in zip(*rows, strict=True)))


def ensemble(trees: list[Tree], base: float, n_columns: int) -> Any:
    """An ONNX model of trees that add up, with `base`, to the log-odds of fraud."""
    from onnx import TensorProto, helper

    node = helper.make_node(
        "TreeEnsembleClassifier", [ONNX_INPUT], [LABEL, ONNX_OUTPUT], name="trees", domain="ai.onnx.ml",
        post_transform="LOGISTIC", classlabels_int64s=[0, 1], base_values=[base], **dict(_attributes(trees)),
    )  # fmt: skip
    inputs = [helper.make_tensor_value_info(ONNX_INPUT, TensorProto.FLOAT, [None, n_columns])]
    outputs = [
        helper.make_tensor_value_info(LABEL, TensorProto.INT64, [None]),
        helper.make_tensor_value_info(ONNX_OUTPUT, TensorProto.FLOAT, [None, 2]),
    ]
    made = helper.make_model(
        helper.make_graph([node], "trees", inputs, outputs),
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in OPSETS.items()],
    )
    made.ir_version = 8
    return made


def _attributes(trees: list[Tree]) -> Iterator[tuple[str, list[Any]]]:
    sizes = [len(tree.column) for tree in trees]
    numbers = np.concatenate([np.arange(size) for size in sizes])
    of_tree = np.repeat(np.arange(len(trees)), sizes)
    together = {name: np.concatenate([getattr(tree, name) for tree in trees]) for name in Tree.__dataclass_fields__}
    inner = together["column"] >= 0
    yield "nodes_treeids", of_tree.tolist()
    yield "nodes_nodeids", numbers.tolist()
    yield "nodes_modes", np.where(inner, "BRANCH_LEQ", "LEAF").tolist()
    yield "nodes_featureids", np.where(inner, together["column"], 0).tolist()
    yield "nodes_values", np.where(inner, rounded_down(together["threshold"]), 0).tolist()
    yield "nodes_missing_value_tracks_true", (together["unknown_yes"] & inner).astype(int).tolist()
    yield "nodes_truenodeids", np.where(inner, together["yes"], 0).tolist()
    yield "nodes_falsenodeids", np.where(inner, together["no"], 0).tolist()
    yield "nodes_hitrates", together["cover"].tolist()
    yield "class_treeids", of_tree[~inner].tolist()
    yield "class_nodeids", numbers[~inner].tolist()
    yield "class_ids", [0] * int((~inner).sum())
    yield "class_weights", together["value"][~inner].tolist()


def rounded_down(thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The largest float32 that is not above each threshold."""
    with np.errstate(over="ignore"):
        near = thresholds.astype(np.float32)
    return np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float32)
