"""Finished windows of an entity with a long history and many questions, as in a training set: a merchant's, mostly.

What a row costs is the events of the longest exact window and a few numbers for each older block of the far edges'
step, instead of every event of the longest window. A code counts where it occurs last before the question: that event's
next one lies at or behind it, whatever the window's far edge is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.window_jit import jit
from feature_repo.window_kernels import NEVER, finish_slices, write_window
from feature_repo.window_layout import Layout
from feature_repo.window_sums import PARTS, clear, take, take_all
from feature_repo.window_tiles import folded, parts_of

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

BUSY_ROWS = 64
"""Rows of an entity from which on blocks are worth making."""

EVENTS_PER_ROW = 64
"""With so many times `BUSY_ROWS` events."""


@dataclass(frozen=True)
class Blocks:
    """A history of one entity in blocks that no far edge divides; block b begins at event `firsts[b]`.

    `begins` are the blocks' instants, `known` when the last event of each became known, `parts` (columns, `PARTS`,
    blocks) their values. `following` (columns, events) is the place of the code's next event, the number of events
    where there is none, -1 for a null; `ordered` the same, ascending within each block; `preceding` the place of the
    code's event before, -1 where there is none.
    """

    begins: Ints
    firsts: Ints
    known: Ints
    parts: Floats
    following: Ints
    ordered: Ints
    preceding: Ints

    @classmethod
    def of(cls, step: int, ts: Ints, created: Ints, values: Floats, distinct: Ints) -> Blocks:
        """`created` is empty where the instants of creation don't count."""
        begins = ts - ts % step
        firsts = np.flatnonzero(np.append(True, begins[1:] != begins[:-1]))
        following = np.array([_following(codes) for codes in distinct], np.int64).reshape(distinct.shape)
        block = np.repeat(np.arange(len(firsts)), np.diff(np.append(firsts, len(ts))))
        ordered = [column[np.lexsort((column, block))] for column in following]
        preceding = np.full(distinct.shape, -1, np.int64)
        for before, after in zip(preceding, following, strict=True):
            there = np.flatnonzero((after >= 0) & (after < len(ts)))
            before[after[there]] = there
        return cls(
            begins=begins[firsts],
            firsts=np.append(firsts, len(ts)),
            known=np.maximum.reduceat(created, firsts) if len(created) else np.full(len(firsts), NEVER),
            parts=folded(parts_of(np.array(values, order="C")), firsts),
            following=following,
            ordered=np.array(ordered, np.int64).reshape(distinct.shape),
            preceding=preceding,
        )


def _following(codes: Ints) -> Ints:
    order = np.argsort(codes, kind="stable")
    after = np.append(order[1:], len(codes))
    after[np.append(codes[order[1:]] != codes[order[:-1]], True)] = len(codes)
    found = np.empty(len(codes), np.int64)
    found[order] = after
    found[codes == 0] = -1
    return found


def finish_rows(
    layout: Layout,
    ts: Ints,
    created: Ints,
    values: Floats,
    distinct: Ints,
    begins: Ints,
    ends: Ints,
    at: Ints,
    known: Ints,
    busy_rows: int = BUSY_ROWS,
    made: dict[tuple[int, int], Blocks] | None = None,
) -> tuple[Floats, Ints]:
    """Like `window_kernels.finish_slices`, and fast for entities of at least `busy_rows` rows and long histories.

    `made` keeps the blocks of this history from one call to the next.
    """
    made = {} if made is None else made
    found = np.empty((len(at), len(layout.windows), 1 + 6 * len(values) + len(distinct)))
    last = np.empty(len(at), np.int64)
    left = np.ones(len(at), np.bool_)
    long = (begins >= 0) & (ends - begins > EVENTS_PER_ROW * busy_rows) & bool(layout.tiles.any())
    for begin in np.unique(begins[long]):
        rows = np.flatnonzero(begins == begin)
        if len(rows) >= busy_rows:
            part = slice(begin, ends[rows[0]])
            there = created[part] if len(created) else created
            found[rows], last[rows], left[rows] = _busy(
                layout, ts[part], there, values[:, part], distinct[:, part], at[rows], known[rows], int(begin), made
            )
    rest = np.flatnonzero(left)
    if len(rest):
        found[rest], last[rest] = finish_slices(
            ts, created, values, distinct, begins[rest], ends[rest], at[rest], known[rest], layout.windows, layout.tiles
        )
    return found, last


def _busy(
    layout: Layout,
    ts: Ints,
    created: Ints,
    values: Floats,
    distinct: Ints,
    at: Ints,
    known: Ints,
    begin: int,
    made: dict[tuple[int, int], Blocks],
) -> tuple[Floats, Ints, npt.NDArray[np.bool_]]:
    """The rows of one entity, of which the arrays hold all events and at least one.

    The last result says which rows were not answered: those to which an event of a whole block was not known yet.
    """
    exact = max((int(w) for w, step in zip(layout.windows, layout.tiles, strict=True) if not step), default=0)
    step = int(min(step for step in layout.tiles if step))
    blocks = made.get((begin, step)) or Blocks.of(step, ts, created, values, distinct)
    made[begin, step] = blocks
    return _finish(
        ts, created, np.ascontiguousarray(values), np.ascontiguousarray(distinct), at, known,
        layout.windows, layout.tiles, exact, blocks.begins, blocks.firsts, blocks.known, blocks.parts,
        blocks.following, blocks.ordered, blocks.preceding,
    )  # fmt: skip


@jit
def _finish(
    ts: Any,
    created: Any,
    values: Any,
    distinct: Any,
    at: Any,
    known: Any,
    windows: Any,
    tiles: Any,
    exact: int,
    begins: Any,
    firsts: Any,
    block_known: Any,
    parts: Any,
    following: Any,
    ordered: Any,
    preceding: Any,
) -> tuple[Any, Any, Any]:
    rows, n_windows = at.shape[0], windows.shape[0]
    n_values, n_distinct = values.shape[0], distinct.shape[0]
    out = np.empty((rows, n_windows, 1 + 6 * n_values + n_distinct), np.float64)
    last = np.full(rows, NEVER, np.int64)
    left = np.zeros(rows, np.bool_)
    acc = np.empty((n_values + n_distinct, PARTS), np.float64)
    more = np.zeros((n_distinct, begins.shape[0]), np.int64)
    for r in range(rows):
        end = np.searchsorted(ts, at[r])
        # Whole blocks lie below the one in which the longest exact window begins.
        whole = np.searchsorted(begins, at[r] - exact, side="right") - 1
        first = firsts[max(whole, 0)]
        count = 0.0
        for k in range(n_values):
            clear(acc, k)
        for m in range(n_distinct):
            acc[n_values + m, 0] = 0.0
            more[m, : max(whole, 0)] = 0
        i, b, w = end - 1, whole - 1, 0
        while w < n_windows:
            edge = at[r] - windows[w]
            if tiles[w] > 0:
                edge -= edge % tiles[w]
            while i >= first and ts[i] >= edge:
                visible = created.shape[0] == 0 or created[i] <= known[r]
                if visible:
                    count += 1.0
                    for k in range(n_values):
                        if not np.isnan(values[k, i]):
                            take(acc, k, values[k, i])
                for m in range(n_distinct):
                    if following[m, i] < 0:
                        continue
                    after = following[m, i]
                    while after < end and created.shape[0] > 0 and created[after] > known[r]:
                        after = following[m, after]
                    if visible and after >= end:
                        acc[n_values + m, 0] += 1.0
                    before = preceding[m, i]
                    if not visible and after >= end and 0 <= before < first:
                        # Not known yet, so it is the one before that is the code's last.
                        more[m, np.searchsorted(firsts, before, side="right") - 1] += 1
                i -= 1
            while i < first and b >= 0 and begins[b] >= edge:
                if block_known[b] > known[r]:
                    left[r] = True
                    break
                count += firsts[b + 1] - firsts[b]
                for k in range(n_values):
                    take_all(acc, k, parts[k].reshape(-1), b, begins.shape[0])
                for m in range(n_distinct):
                    codes = ordered[m, firsts[b] : firsts[b + 1]]
                    acc[n_values + m, 0] += codes.shape[0] - np.searchsorted(codes, end) + more[m, b]
                b -= 1
            if left[r]:
                break
            write_window(out[r, w], count, acc, n_values, n_distinct)
            w += 1
        i = end - 1
        while last[r] == NEVER and i >= 0:
            if created.shape[0] == 0 or created[i] <= known[r]:
                last[r] = ts[i]
            i -= 1
    return out, last, left
