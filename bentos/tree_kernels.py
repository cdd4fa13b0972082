"""The inner loops of exact Tree SHAP: contributions of a sum of trees, path-dependent.

A leaf is reached by the columns on its path alone, and what it gives to each depends only on which of them the row
satisfies (Lundberg 2018, arXiv:1802.03888; the tables are Yang's Fast TreeSHAP v2, arXiv:2109.09847). A row's result
is added up in the same order whatever rows stand beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.kernels import compiler

jit = compiler(Path(__file__).resolve().parent, "tree_kernels")


@jit
def preorder(roots: Any, inner: Any, yes: Any, no: Any, order: Any, parent: Any, depth: Any, end: Any) -> int:
    """Number the nodes in preorder, `yes` first: fills the last four, gives how many nodes it met, -1 for no tree."""
    size = len(inner)
    waiting, above, level = np.empty(size + 2, np.int32), np.empty(size + 2, np.int32), np.empty(size + 2, np.int32)
    met = 0
    for root in roots:
        waiting[0], above[0], level[0], left = root, -1, 0, 1
        while left:
            left -= 1
            node = waiting[left]
            if met == size:
                return -1
            order[met], parent[met], depth[met], end[met] = node, above[left], level[left], met + 1
            if inner[node]:
                deeper = level[left] + 1
                waiting[left], above[left], level[left] = no[node], met, deeper
                waiting[left + 1], above[left + 1], level[left + 1] = yes[node], met, deeper
                left += 2
                if left > size:
                    return -1
            met += 1
    for node in range(met - 1, -1, -1):
        if parent[node] >= 0:
            end[parent[node]] = max(end[parent[node]], end[node])
    return met


@jit
def shapley_weights(most: int) -> Any:
    """[k, t]: t! (k - 1 - t)! / k!, the weight of a coalition of t among k players, up to `most` players."""
    weights = np.zeros((most + 1, most + 1))
    for k in range(1, most + 1):
        weights[k, 0] = 1.0 / k
        for t in range(1, k):
            weights[k, t] = weights[k, t - 1] * t / (k - t)
    return weights


@jit
def add_leaf(
    leaf: int, column: Any, parent: Any, share: Any, value: float, passed: Any, weights: Any, scratch: Any, into: Any
) -> None:
    """Add what one leaf contributes to `into` (by column), where `passed` tells the outcome of its ancestors' tests.

    The leaf's game is a product over its path's columns: 1 or 0 where a column is known to lead there or not, its
    share of the training rows where it isn't known. The coalitions of a product are the coefficients of a polynomial.
    """
    seen, rest, held, grown = scratch[0], scratch[1], scratch[2], scratch[3]
    k, node = 0, leaf
    while parent[node] >= 0:
        above = parent[node]
        satisfied = passed[above] == (node == above + 1)
        place = 0
        while place < k and seen[place] != column[above]:
            place += 1
        if place == k:
            seen[k], rest[k], held[k] = column[above], 1.0, 1.0
            k += 1
        rest[place] *= share[node]
        if not satisfied:
            held[place] = 0.0
        node = above
    n, missed = 0, value
    grown[0] = 1.0
    for j in range(k):
        if held[j] == 0.0:
            missed *= rest[j]
            continue
        grown[n + 1] = 1.0
        for t in range(n, 0, -1):
            grown[t] = grown[t] * rest[j] + grown[t - 1]
        grown[0] *= rest[j]
        n += 1
    lost = 0.0
    for t in range(min(n + 1, k)):
        lost += weights[k, t] * grown[t]
    for j in range(k):
        if held[j] == 0.0:
            into[int(seen[j])] -= missed * lost
            continue
        quotient = grown[n]  # of the polynomial by (z + rest[j]), from its highest coefficient down
        gained = weights[k, n - 1] * quotient
        for t in range(n - 2, -1, -1):
            quotient = grown[t + 1] - rest[j] * quotient
            gained += weights[k, t] * quotient
        into[int(seen[j])] += missed * (1.0 - rest[j]) * gained


@jit
def walk(rows: Any, column: Any, threshold: Any, unknown: Any, value: Any, share: Any, parent: Any, out: Any) -> None:
    """Contributions leaf by leaf, O(leaves × depth²) a row; `out` is float64 (rows, columns)."""
    deepest = 65
    weights, scratch = shapley_weights(deepest), np.empty((4, deepest + 1))
    passed = np.zeros(len(column), np.bool_)
    for row in range(len(rows)):
        for node in range(len(column)):
            if column[node] >= 0:
                x = rows[row, column[node]]
                passed[node] = x < threshold[node] or (np.isnan(x) and unknown[node] == 1)
        for node in range(len(column)):
            if column[node] < 0:
                add_leaf(node, column, parent, share, value[node], passed, weights, scratch, out[row])


@jit
def tabulate(
    tops: Any, starts: Any, nodes: Any, fields: Any, columns: Any, places: Any, trees: Any, table: Any, width: int
) -> None:
    """Fill the tables: for group g and each pattern of its tests, what its leaves give to each of its columns.

    `nodes[starts[g]:starts[g + 1]]` are its tests, `columns[fields[g]:fields[g + 1]]` its columns; its table begins at
    `places[g]`.
    """
    column, value, share, parent, end = trees
    weights, scratch = shapley_weights(64), np.empty((4, 65))
    passed = np.zeros(len(column), np.bool_)
    into = np.zeros(width)
    for g in range(len(tops)):
        bits, own = starts[g + 1] - starts[g], fields[g + 1] - fields[g]
        for pattern in range(1 << bits):
            for bit in range(bits):
                passed[nodes[starts[g] + bit]] = pattern >> bit & 1
            for leaf in range(tops[g], end[tops[g]]):
                if column[leaf] < 0:
                    add_leaf(leaf, column, parent, share, value[leaf], passed, weights, scratch, into)
            for i in range(own):
                place = columns[fields[g] + i]
                table[places[g] + pattern * own + i] = into[place]
                into[place] = 0.0


@jit
def look_up(
    rows: Any, tested: Any, threshold: Any, unknown: Any, starts: Any, columns: Any, fields: Any, places: Any,
    table: Any, out: Any,
) -> None:  # fmt: skip
    """Contributions by the tables, a few look-ups per tree; `rows` is float32, `out` float64, both (rows, columns)."""
    one = np.uint32(1)  # an index that may be negative costs a comparison
    for row in range(len(rows)):
        x, into = rows[row], out[row]
        test, field = np.uint32(0), np.uint32(0)
        for g in range(len(places)):
            pattern, bit, last = np.uint32(0), one, starts[g + 1]
            while test < last:
                value = x[tested[test]]
                pattern |= bit * np.uint32((value < threshold[test]) | ((value != value) & (unknown[test] == 1)))
                bit <<= one
                test += one
            last = fields[g + 1]
            entry = places[g] + pattern * (last - field)
            while field < last:
                into[columns[field]] += table[entry]
                entry += one
                field += one


@jit
def look_up_many(
    rows: Any, tested: Any, threshold: Any, unknown: Any, starts: Any, columns: Any, fields: Any, places: Any,
    table: Any, out: Any,
) -> None:  # fmt: skip
    """As `look_up`, to the bit, for many rows: group by group, so that a table stays in the cache for all of them.

    Its inner loops are over rows, of which the processor takes several at a time.
    """
    n, width = rows.shape
    one = np.uint32(1)
    x, into = np.empty((width, n), np.float32), np.zeros((width, n))
    for row in range(n):
        for column in range(width):
            x[column, row] = rows[row, column]
    pattern = np.empty(n, np.uint32)
    for g in range(len(places)):
        pattern[:] = 0
        for test in range(starts[g], starts[g + 1]):
            values, limit, bit = x[tested[test]], threshold[test], one << np.uint32(test - starts[g])
            if unknown[test] == 1:
                for row in range(n):
                    pattern[row] |= np.uint32(0) if values[row] >= limit else bit
            else:
                for row in range(n):
                    pattern[row] |= bit if values[row] < limit else np.uint32(0)
        own = np.uint32(fields[g + 1] - fields[g])
        for field in range(own):
            begin, sums = places[g] + np.uint32(field), into[columns[fields[g] + field]]
            for row in range(n):
                sums[row] += table[begin + pattern[row] * own]
    for row in range(n):
        for column in range(width):
            out[row, column] = into[column, row]
