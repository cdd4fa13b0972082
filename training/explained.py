"""What an exported graph must hold so that the service can attribute its scores to columns.

Trees carry their covers (how much of the training data passed each node) in `nodes_hitrates`, the place ONNX has for
them; a linear model carries each column's effect in the graph's metadata. Neither changes a score.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.contract import EFFECTS_KEY

TREES = "TreeEnsembleClassifier"


class CoverMismatch(ValueError):
    """The graph's trees are not the model's trees, node by node."""


def explain(
    proto: Any, model: Any, vectors: npt.NDArray[np.float32] | None, line: tuple[float, float] = (0.0, 1.0)
) -> None:
    """Write into the graph what its reasons need; `vectors` are those the model was fitted on.

    `line` is the intercept and the slope of a straight calibration, which a linear model's effects take part in. A kind
    of model that has no explanation here stays as it is.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    last = model[-1] if hasattr(model, "steps") else model
    if hasattr(last, "get_booster"):
        _write_covers(proto, list(_booster_covers(last.get_booster())))
    elif isinstance(last, RandomForestClassifier):
        _write_covers(proto, [tree.tree_.weighted_n_node_samples for tree in last.estimators_])
    elif isinstance(last, LogisticRegression) and hasattr(model, "steps") and vectors is not None:
        entry = proto.metadata_props.add()
        entry.key, entry.value = EFFECTS_KEY, json.dumps(_effects(model, vectors, line))


def _booster_covers(booster: Any) -> Iterator[npt.NDArray[np.float64]]:
    """Each tree's sums of Hessians in preorder, the order in which the converter numbers the nodes."""
    for dumped in booster.get_dump(with_stats=True, dump_format="json"):
        covers: list[float] = []
        waiting = [json.loads(dumped)]
        while waiting:
            node = waiting.pop()
            covers.append(node["cover"])
            waiting += reversed(node.get("children", []))
        yield np.array(covers)


def _write_covers(proto: Any, covers: list[Any]) -> None:
    from onnx import helper

    (node,) = [node for node in proto.graph.node if node.op_type == TREES]
    given = {attribute.name: attribute for attribute in node.attribute}
    trees, numbers = (np.array(given[f"nodes_{name}"].ints) for name in ("treeids", "nodeids"))
    kept = covers[: int(trees.max()) + 1]  # early stopping leaves the last trees out of the graph
    sizes = [len(cover) for cover in kept]
    if not np.array_equal(np.bincount(trees), sizes):
        raise CoverMismatch(f"The graph has {np.bincount(trees)} nodes, tree by tree; the model has {sizes}.")
    flat = np.concatenate([kept[tree][[number]] for tree, number in zip(trees, numbers, strict=True)])
    if "nodes_hitrates" in given:
        node.attribute.remove(given["nodes_hitrates"])
    node.attribute.append(helper.make_attribute("nodes_hitrates", flat.astype(np.float32).tolist()))


def _effects(model: Any, vectors: npt.NDArray[np.float32], line: tuple[float, float]) -> dict[str, Any]:
    """What each value of each column adds to the log-odds, against the mean over `vectors`."""
    prepare, classifier = model[0], model[-1]
    intercept, scale = line
    weights = classifier.coef_[0].astype(float) * scale
    (_, numbers, plain), (_, codes, coded) = prepare.transformers_
    imputer, scaler = numbers["impute"], numbers["scale"]
    number_weights, code_weights = np.split(weights, [len(plain)])
    base = float(classifier.intercept_[0]) * scale + intercept
    written = []
    ends = np.cumsum([len(each) for each in codes["encode"].categories_])[:-1]
    per_column = zip(coded, codes["encode"].categories_, np.split(code_weights, ends), strict=True)
    for column, values, of_values in per_column:
        unknown = float(codes["impute"].fill_value)
        filled = np.nan_to_num(vectors[:, column].astype(float), nan=unknown)
        mean = float(sum(weight * (filled == value).mean() for value, weight in zip(values, of_values, strict=True)))
        base += mean
        effects = {
            "values": values.tolist(),
            "effects": (of_values - mean).tolist(),
            "otherwise": -mean,
            "unknown": unknown,
        }
        written.append({"column": int(column)} | effects)
    return {
        "base": base,
        "numbers": {
            "column": [int(column) for column in plain],
            "unknown": imputer.statistics_.astype(float).tolist(),
            "mean": scaler.mean_.tolist(),
            "slope": (number_weights / scaler.scale_).tolist(),
        },
        "codes": written,
    }
