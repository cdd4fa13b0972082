"""The trees of a model's ONNX graph, with how many training rows passed each node.

Nodes stand in preorder, a node's passing child right behind it, tree after tree; every test is "x < threshold", where
an unknown x (NaN) goes the way that the graph gives it. A graph that does not fit is `NotExplainable`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bentos.tree_kernels import preorder

Ints = npt.NDArray[np.int32]
Reals = npt.NDArray[np.float64]

COVER_TOLERANCE = 1e-3
"""Share by which the covers of two children may miss their parent's: float32 sums over many rows."""

Output = Literal["log-odds", "probability"]
_OUTPUTS: dict[bytes, Output] = {b"LOGISTIC": "log-odds", b"NONE": "probability"}


class NotExplainable(ValueError):
    """A graph whose scores cannot be attributed to columns; the model may serve all the same."""


@dataclass(frozen=True)
class Trees:
    """Every node of every tree. A leaf has column -1 and a value; `end` is one past a node's last descendant."""

    column: Ints
    threshold: npt.NDArray[np.float32]
    unknown_passes: npt.NDArray[np.uint8]
    value: Reals
    share: Reals
    """Of the rows that reached the parent, those that went on to this node; 1 at a root."""
    parent: Ints
    depth: Ints
    end: Ints
    base: float
    """Added to what the trees sum up to."""
    output: Output
    """What that sum is: `log-odds` or `probability`."""

    @property
    def mean(self) -> float:
        """The output averaged over the training rows, as the covers say it."""
        reached = np.ones(len(self.share))
        for level in range(1, int(self.depth.max(initial=0)) + 1):
            there = self.depth == level
            reached[there] = reached[self.parent[there]] * self.share[there]
        leaves = self.column < 0
        return self.base + float((reached[leaves] * self.value[leaves]).sum())


def read(node: Any, columns: int, unknown_as: npt.NDArray[np.float32] | None = None) -> Trees:
    """The trees of a `TreeEnsembleClassifier` with two classes; `unknown_as` is what an imputer ahead of it puts in.

    Raises `NotExplainable`.
    """
    from onnx.helper import get_attribute_value

    given = {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
    _require_form(given, columns)
    ids = _ids(given["nodes_treeids"], given["nodes_nodeids"])
    by_id = np.argsort(ids, kind="stable")
    inner = np.array([mode != b"LEAF" for mode in given["nodes_modes"]])
    yes, no = (_children(ids, by_id, inner, given, f"nodes_{way}nodeids") for way in ("true", "false"))
    order, parent, depth, end = _preorder(inner, yes, no, given["nodes_treeids"])
    column = np.where(inner, given["nodes_featureids"], -1).astype(np.int32)[order]
    threshold = _below(given)[order]
    unknown = np.array(given.get("nodes_missing_value_tracks_true") or np.zeros(len(ids)), np.uint8)[order]
    if unknown_as is not None:
        unknown = (unknown_as[np.maximum(column, 0)] < threshold).astype(np.uint8)
    value = np.zeros(len(ids))
    leaves = _rows(ids, by_id, given["class_treeids"], given["class_nodeids"])
    np.add.at(value, leaves, np.array(given["class_weights"], np.float64))
    return Trees(
        column=column,
        threshold=threshold,
        unknown_passes=unknown,
        value=value[order],
        share=_shares(np.array(given["nodes_hitrates"], np.float64)[order], column, parent, end),
        parent=parent,
        depth=depth,
        end=end,
        base=float(sum(given.get("base_values", []))),
        output=_OUTPUTS[given.get("post_transform", b"NONE")],
    )


def _require_form(given: dict[str, Any], columns: int) -> None:
    modes = set(given["nodes_modes"]) - {b"LEAF", b"BRANCH_LT", b"BRANCH_LEQ"}
    if modes:
        raise NotExplainable(f"The graph's trees have tests {sorted(modes)}; must be BRANCH_LT or BRANCH_LEQ.")
    if given.get("post_transform", b"NONE") not in _OUTPUTS:
        raise NotExplainable(f"The graph's trees end in {given['post_transform']!r}; must be LOGISTIC or NONE.")
    if len(set(given["class_ids"])) != 1 or len(given.get("base_values", [])) > 1:
        raise NotExplainable("The graph's trees weigh several classes apart; must weigh fraud alone.")
    if max(given["nodes_featureids"]) >= columns:
        raise NotExplainable(f"The graph tests column {max(given['nodes_featureids'])}; the model has {columns}.")
    if len(given.get("nodes_hitrates", [])) != len(given["nodes_nodeids"]):
        raise NotExplainable(
            "The graph's trees have no covers (nodes_hitrates), without which no contribution is known. "
            "Register the model anew through training."
        )


def _ids(trees: Any, nodes: Any) -> npt.NDArray[np.int64]:
    return np.asarray(trees, np.int64) << 32 | np.asarray(nodes, np.int64)


def _rows(ids: npt.NDArray[np.int64], by_id: npt.NDArray[np.intp], trees: Any, nodes: Any) -> Ints:
    wanted = _ids(trees, nodes)
    found = by_id[np.minimum(np.searchsorted(ids, wanted, sorter=by_id), len(ids) - 1)]
    if not (ids[found] == wanted).all():
        raise NotExplainable("The graph's trees name a node that is not there.")
    return found.astype(np.int32)


def _children(ids: Any, by_id: Any, inner: Any, given: dict[str, Any], way: str) -> Ints:
    found = np.zeros(len(ids), np.int32)
    found[inner] = _rows(ids, by_id, np.asarray(given["nodes_treeids"])[inner], np.asarray(given[way])[inner])
    return found


def _preorder(inner: Any, yes: Ints, no: Ints, trees: Any) -> tuple[Ints, Ints, Ints, Ints]:
    reached = np.zeros(len(inner), bool)
    reached[yes[inner]] = reached[no[inner]] = True
    order, parent, depth, end = (np.empty(len(inner), np.int32) for _ in range(4))
    roots = np.flatnonzero(~reached).astype(np.int32)
    visited = preorder(roots, inner, yes, no, order, parent, depth, end)
    if visited != len(inner) or len(roots) != len(set(trees)):
        raise NotExplainable("The graph's trees are no trees: a node has two parents, or a tree two roots.")
    return order, parent, depth, end


def _below(given: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Thresholds of "x < threshold": for float32, x <= t is x < the next number above t."""
    threshold = np.array(given["nodes_values"], np.float32)
    inclusive = np.array([mode == b"BRANCH_LEQ" for mode in given["nodes_modes"]])
    with np.errstate(over="ignore"):  # above the largest number there is infinity, and all finite ones are below it
        above = np.nextafter(threshold, np.float32(np.inf))
    return np.where(inclusive, above, threshold).astype(np.float32)


def _shares(cover: Reals, column: Ints, parent: Ints, end: Ints) -> Reals:
    inner = np.flatnonzero(column >= 0)
    children = cover[inner + 1] + cover[end[inner + 1]]
    if (cover[inner] <= 0).any() or (abs(children - cover[inner]) > COVER_TOLERANCE * cover[inner]).any():
        raise NotExplainable(
            "The graph's covers (nodes_hitrates) are not those of its trees: two children's must make up their "
            "parent's. Register the model anew through training."
        )
    return np.where(parent >= 0, cover / cover[parent], 1.0)
