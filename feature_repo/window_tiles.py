"""The sealed part of a large state: events older than any exact window's edge, as sums over tiles of time.

An event's tile is the coarsest of `TILES` at whose steps alone a window's far edge can still fall, whatever the windows
are, as long as questions lie no further than `STATE_SLACK` behind the latest event. So finished windows don't depend on
whether, or when, a state was sealed. Sealed events have no identity any more: one that comes again, or for the first
time but below the seal, changes nothing and is to be counted by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.window_jit import jit
from feature_repo.window_kernels import HEADER, NEVER
from feature_repo.window_ledger import Ledger
from feature_repo.window_sums import PARTS, clear, take, take_all
from feature_repo.windows import EXACT_UP_TO, STATE_SLACK, TILES, tile

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

FINEST = tile(EXACT_UP_TO + 1)


@dataclass(frozen=True)
class Tiles:
    """Tiles in the order of time: where each begins, its last event's instant, its events, the parts of its values.

    `values` has the shape (columns, `PARTS`, tiles), `codes` (columns, tiles): how many codes have their last sealed
    event in the tile. Every sealed event lies below `seal`, every other one does not.
    """

    seal: int
    begins: Ints
    lasts: Ints
    counts: Ints
    values: Floats
    codes: Ints

    @classmethod
    def empty(cls, n_values: int, n_distinct: int) -> Tiles:
        """Nothing sealed."""
        none = np.empty(0, np.int64)
        return cls(NEVER, none, none, none, np.empty((n_values, PARTS, 0)), np.empty((n_distinct, 0), np.int64))

    @classmethod
    def of(cls, words: Ints, n_values: int, n_distinct: int) -> Tiles:
        """The inverse of `words`."""
        n = int(words[1])
        columns = words[2:].reshape(-1, n) if n else words[2:].reshape(3 + PARTS * n_values + n_distinct, 0)
        end = 3 + PARTS * n_values
        values = columns[3:end].view(np.float64).reshape(n_values, PARTS, n)
        return cls(int(words[0]), columns[0], columns[1], columns[2], values, columns[end:])

    def words(self) -> Ints:
        """The form in which a state holds them."""
        n = len(self.begins)
        values = np.ascontiguousarray(self.values).view(np.int64).reshape(-1, n) if n else np.empty((0, 0), np.int64)
        head = np.array([self.seal, n], np.int64)
        return np.concatenate((head, self.begins, self.lasts, self.counts, values.ravel(), self.codes.ravel()))

    def since(self, edge: int) -> Tiles:
        """Without the tiles whose events are all older than `edge`."""
        first = int(np.searchsorted(self.lasts, edge))
        if not first:
            return self
        return Tiles(
            self.seal,
            self.begins[first:],
            self.lasts[first:],
            self.counts[first:],
            self.values[:, :, first:],
            self.codes[:, first:],
        )


def seal_at(latest: int) -> int:
    """The instant below which no exact window can reach, once an event at `latest` is known."""
    edge = latest - EXACT_UP_TO - STATE_SLACK
    return edge - edge % FINEST


def seal(tiles: Tiles, ledger: Ledger, ts: Ints, values: Floats, distinct: Ints, latest: int, retention: int) -> Any:
    """Tiles and ledger with more events, all those below `seal_at(latest)`; both are given back."""
    edge, oldest = seal_at(latest), latest - retention
    ledger = ledger.after(edge, ts, distinct, oldest)
    tiles = tiles.since(oldest)
    begins = _tile_begins(np.concatenate((tiles.begins, ts)), latest)
    firsts = np.flatnonzero(np.append(True, begins[1:] != begins[:-1])[: len(begins)])
    begins = begins[firsts]
    parts = np.concatenate((tiles.values, parts_of(values)), axis=2)
    codes = [
        np.bincount(np.searchsorted(begins, last, "right")[last >= begins[0]] - 1, minlength=len(begins))
        for last in ledger.lasts
    ]
    return Tiles(
        seal=edge,
        begins=begins,
        lasts=np.maximum.reduceat(np.concatenate((tiles.lasts, ts)), firsts),
        counts=np.add.reduceat(np.concatenate((tiles.counts, np.ones(len(ts), np.int64))), firsts),
        values=folded(parts, firsts),
        codes=np.array(codes, np.int64).reshape(len(codes), len(begins)),
    ), ledger


def _tile_begins(instants: Ints, latest: int) -> Ints:
    begins = instants - instants % FINEST
    for step in TILES[TILES.index(FINEST) + 1 :]:
        coarse = instants - instants % step
        # A window with finer edges is shorter than 60 steps, and no rounding of its edge goes past a coarser step.
        begins = np.where(coarse + step <= latest - STATE_SLACK - 60 * step, coarse, begins)
    return begins


@jit
def parts_of(values: Any) -> Any:
    """The parts that each of the values (columns, events) has alone: (columns, `PARTS`, events)."""
    out = np.empty((values.shape[0], PARTS, values.shape[1]), np.float64)
    acc = np.empty((1, PARTS), np.float64)
    for k in range(values.shape[0]):
        for e in range(values.shape[1]):
            clear(acc, 0)
            if not np.isnan(values[k, e]):
                take(acc, 0, values[k, e])
            out[k, :, e] = acc[0]
    return out


@jit
def folded(parts: Any, firsts: Any) -> Any:
    """The parts (columns, `PARTS`, runs) of each run of the rows of `parts` that begins at `firsts`."""
    groups, rows = firsts.shape[0], parts.shape[2]
    out = np.empty((parts.shape[0], PARTS, groups), np.float64)
    acc = np.empty((1, PARTS), np.float64)
    for k in range(parts.shape[0]):
        for g in range(groups):
            clear(acc, 0)
            for row in range(firsts[g], firsts[g + 1] if g + 1 < groups else rows):
                take_all(acc, 0, parts[k].reshape(-1), row, rows)
            out[k, :, g] = acc[0]
    return out


def split(words: Ints, width: int) -> tuple[Ints, Ints]:
    """A sealed state's words without its tiles, and those of the tiles; `width` is the words of one event."""
    end = HEADER + width * int(words[1])
    return words[:end], words[end:]
