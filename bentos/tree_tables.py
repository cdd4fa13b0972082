"""Tables of a forest's contributions, so that a row costs a few look-ups per tree.

A group is a small part of a tree: its lowest levels below one node, and the tests that lead there. What its leaves
contribute depends on the outcome of those tests alone, so every outcome is worked out when the model is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bentos.tree_kernels import look_up, look_up_many, tabulate
from bentos.trees import Ints, Trees

DEEPEST = 8
"""Trees deeper than this have no tables: a table's size doubles with each level, twice."""

MANY = 6
"""Rows from which on they are looked up together: a fifth of the time for twenty of them, more for fewer than this."""

LARGEST = 8_000_000
"""Entries (float32) of all tables of a model together."""


@dataclass(frozen=True)
class Tables:
    """For group g: tests `starts[g]` to `starts[g + 1]`, columns `fields[g]` to `fields[g + 1]`, table at `places[g]`.

    Bit i of a row's pattern tells whether it passes the group's i-th test; a pattern's entries stand side by side.
    """

    tested: npt.NDArray[np.uint32]
    threshold: npt.NDArray[np.float32]
    unknown_passes: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.uint32]
    columns: npt.NDArray[np.uint32]
    fields: npt.NDArray[np.uint32]
    places: npt.NDArray[np.uint32]
    table: npt.NDArray[np.float32]

    def contributions(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """float64 (rows, columns) of float32 vectors of that shape."""
        out = np.zeros(vectors.shape)
        look = look_up if len(vectors) < MANY else look_up_many
        look(
            np.ascontiguousarray(vectors), self.tested, self.threshold, self.unknown_passes, self.starts, self.columns,
            self.fields, self.places, self.table, out,
        )  # fmt: skip
        return out


def tables(trees: Trees, width: int) -> Tables | None:
    """The tables of `trees` over `width` columns; None where they would be too large."""
    deepest = int(trees.depth.max(initial=0))
    if deepest > DEEPEST:
        return None
    for bits in (max(deepest + 1, 5), deepest):  # one test more joins two neighbours, and halves the look-ups
        groups = _groups(trees, bits)
        tests, columns = [nodes for _, nodes in groups], [np.unique(trees.column[nodes]) for _, nodes in groups]
        sizes = [len(own) << len(nodes) for nodes, own in zip(tests, columns, strict=True)]
        if sum(sizes) <= LARGEST:
            tops = np.array([top for top, _ in groups], np.int64)
            return _filled(trees, width, tops, tests, columns, sizes)
    return None


def _groups(trees: Trees, bits: int) -> list[tuple[int, Ints]]:
    """The topmost nodes whose ancestors and descendants have at most `bits` tests together, with those tests."""
    inner = (trees.column >= 0).astype(np.int64)
    before = np.concatenate([[0], np.cumsum(inner)])
    fits = trees.depth + before[trees.end] - before[:-1] <= bits
    tops = np.flatnonzero(fits & ((trees.parent < 0) | ~fits[trees.parent]))
    found = []
    for top in tops.tolist():
        path, node = [], int(trees.parent[top])
        while node >= 0:
            path.append(node)
            node = int(trees.parent[node])
        below = top + np.flatnonzero(inner[top : trees.end[top]])
        if len(path) or len(below):
            found.append((top, np.concatenate([path[::-1], below]).astype(np.int32)))
    return found


def _filled(
    trees: Trees, width: int, tops: npt.NDArray[np.int64], tests: list[Ints], columns: list[Ints], sizes: list[int]
) -> Tables:
    nodes = np.concatenate([*tests, np.empty(0, np.int32)]).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum([len(group) for group in tests])]).astype(np.uint32)
    fields = np.concatenate([[0], np.cumsum([len(own) for own in columns])]).astype(np.uint32)
    ends = np.cumsum(sizes)
    made = Tables(
        tested=trees.column[nodes].astype(np.uint32),
        threshold=trees.threshold[nodes],
        unknown_passes=trees.unknown_passes[nodes],
        starts=starts,
        columns=np.concatenate([*columns, np.empty(0, np.int32)]).astype(np.uint32),
        fields=fields,
        places=(ends - sizes).astype(np.uint32),
        table=np.zeros(int(sum(sizes)), np.float32),
    )
    grown = (trees.column, trees.value, trees.share, trees.parent, trees.end)
    as_int = (each.astype(np.int64) for each in (starts, nodes, fields, made.columns, made.places))
    tabulate(tops, *as_int, grown, made.table, width)
    return made
