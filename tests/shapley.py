"""The oracle of the explanations: Shapley values by their definition, over every coalition of columns.

A tree is a leaf's value (a float) or a `Split`; it knows nothing of the code it judges. The value of a coalition is the
tree's mean over the training rows of which only the coalition's columns are known (Lundberg 2018, algorithm 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import factorial, isnan
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Leaf:
    value: float
    cover: float


@dataclass(frozen=True)
class Split:
    """Passes where x < threshold (x <= threshold if `inclusive`); an unknown x passes if `unknown_passes`."""

    column: int
    threshold: float
    inclusive: bool
    unknown_passes: bool
    yes: Any
    no: Any

    @property
    def cover(self) -> float:
        return float(self.yes.cover + self.no.cover)

    def side(self, row: npt.NDArray[np.float32]) -> Any:
        x, edge = float(row[self.column]), float(np.float32(self.threshold))
        passes = self.unknown_passes if isnan(x) else x <= edge if self.inclusive else x < edge
        return self.yes if passes else self.no


def expected(tree: Any, row: npt.NDArray[np.float32], known: frozenset[int]) -> float:
    """The tree's value where only the `known` columns of the row are."""
    if isinstance(tree, Leaf):
        return tree.value
    if tree.column in known:
        return expected(tree.side(row), row, known)
    both = (side.cover * expected(side, row, known) for side in (tree.yes, tree.no))
    return sum(both) / tree.cover


def columns_of(tree: Any) -> set[int]:
    return set() if isinstance(tree, Leaf) else {tree.column} | columns_of(tree.yes) | columns_of(tree.no)


def shapley(tree: Any, row: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """What each column of the row contributes to the tree's value."""
    players = sorted(columns_of(tree))
    out = np.zeros(len(row))
    worth = {
        frozenset(some): expected(tree, row, frozenset(some))
        for size in range(len(players) + 1)
        for some in combinations(players, size)
    }
    for player in players:
        for without, value in worth.items():
            if player not in without:
                orders = factorial(len(without)) * factorial(len(players) - len(without) - 1)
                out[player] += orders / factorial(len(players)) * (worth[without | {player}] - value)
    return out


def grow(rng: np.random.Generator, columns: int, depth: int, cover: float = 4096.0) -> Any:
    """A random tree: columns repeat on its paths, thresholds hit values that rows have, covers are whole numbers."""
    if depth == 0 or cover < 2 or rng.random() < 0.1:
        return Leaf(float(np.float32(rng.normal())), cover)
    passed = float(rng.integers(1, cover))
    return Split(
        column=int(rng.integers(columns)),
        threshold=float(rng.integers(-2, 3)),
        inclusive=bool(rng.random() < 0.5),
        unknown_passes=bool(rng.random() < 0.5),
        yes=grow(rng, columns, depth - 1, passed),
        no=grow(rng, columns, depth - 1, cover - passed),
    )


def rows(rng: np.random.Generator, count: int, columns: int) -> npt.NDArray[np.float32]:
    """Vectors that often lie on a threshold, a fifth of them unknown."""
    drawn = rng.integers(-2, 3, (count, columns)).astype(np.float32)
    drawn[rng.random(drawn.shape) < 0.3] += np.float32(0.5)
    drawn[rng.random(drawn.shape) < 0.2] = np.nan
    return drawn


def attributes(trees: list[Any], rng: np.random.Generator) -> dict[str, list[Any]]:
    """The trees as attributes of a `TreeEnsembleClassifier`, their nodes in random order and with random numbers."""
    nodes: list[dict[str, Any]] = []
    weights: list[tuple[int, int, float]] = []

    def add(tree: Any, of: int, free: list[int]) -> int:
        number = free.pop()
        split = isinstance(tree, Split)
        nodes.append(
            {
                "treeids": of,
                "nodeids": number,
                "featureids": tree.column if split else 0,
                "values": tree.threshold if split else 0.0,
                "modes": ("BRANCH_LEQ" if tree.inclusive else "BRANCH_LT") if split else "LEAF",
                "missing_value_tracks_true": int(split and tree.unknown_passes),
                "hitrates": tree.cover,
                "truenodeids": add(tree.yes, of, free) if split else 0,
                "falsenodeids": add(tree.no, of, free) if split else 0,
            }
        )
        if not split:
            weights.append((of, number, tree.value))
        return number

    for of, tree in enumerate(trees):
        add(tree, of, rng.permutation(2_000).tolist())
    shuffled = [nodes[i] for i in rng.permutation(len(nodes))]
    made = {f"nodes_{key}": [node[key] for node in shuffled] for key in nodes[0]}
    for place, key in enumerate(("treeids", "nodeids", "weights")):
        made[f"class_{key}"] = [weight[place] for weight in weights]
    return made | {"class_ids": [0] * len(weights), "classlabels_int64s": [0, 1]}
