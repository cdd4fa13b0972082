"""A table of events sorted for the window maths: training sets and rebuilds of the online store read history here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import sources
from feature_repo.pipeline import ahead
from feature_repo.window_batch import Stored, stamp_of, update_many
from feature_repo.window_busy import Blocks
from feature_repo.window_kernels import NEVER
from feature_repo.window_state import MAX_EVENTS, Events, Floats, Ints, Slices, code, update
from feature_repo.windows import WindowSpec

PART = 65_536
"""Events from which states are made at a time."""


@dataclass(frozen=True)
class Rebuilt:
    """States made from history, with the stamps (µs) with which to store them."""

    entities: list[str]
    states: list[Stored]
    stamps: list[int]


@dataclass(frozen=True)
class History:
    """Events of one windowed view, ordered by (entity, time); entity e owns [bounds[e], bounds[e + 1])."""

    spec: WindowSpec
    entities: pa.Array
    bounds: Ints
    ts: Ints
    created: Ints
    values: Floats
    distinct: Ints
    ids: pa.Array
    blocks: dict[tuple[int, int], Blocks] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, spec: WindowSpec, table: pa.Table, timestamp: str, created: str | None) -> History:
        """Sort a table that has the spec's columns. An entity's event counts once, by its id: as it came first.

        `created` names the instants at which rows became known, or is None where they don't matter; then the order of
        the rows is that of arrival.
        """
        keys = _dictionary(table[spec.join_key])
        codes = keys.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        ts = _us(table[timestamp])
        known = _us(table[created]) if created else np.empty(0, np.int64)
        arrival = np.lexsort((known,)) if created else np.arange(len(ts))
        once = arrival[_first_of_each(table[spec.event_id], codes, arrival)]
        order = once[np.lexsort((ts[once], codes[once]))]
        _order_ties(order, codes, ts, table[spec.event_id])
        codes = codes[order]
        sorted_table = table.take(pa.array(order))
        values = np.empty((len(spec.values), len(order)), np.float64)
        for k, column in enumerate(spec.values):
            values[k] = pc.cast(sorted_table[column], pa.float64()).to_numpy()
        distinct = np.empty((len(spec.distinct), len(order)), np.int64)
        for m, column in enumerate(spec.distinct):
            distinct[m] = _codes(sorted_table[column])
        bounds = np.searchsorted(codes, np.arange(len(keys.dictionary) + 1))
        return cls(
            spec=spec,
            entities=keys.dictionary,
            bounds=bounds.astype(np.int64),
            ts=ts[order],
            created=known[order] if created else known,
            values=values,
            distinct=distinct,
            ids=pc.cast(sorted_table[spec.event_id], pa.string()),
        )

    def slices(self, entities: pa.ChunkedArray | pa.Array, known: Ints) -> Slices:
        """The rows of a question: each its entity's whole history, of which the kernel reads what its window needs."""
        places = pc.index_in(entities, value_set=self.entities)
        found = pc.fill_null(places, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        begins = np.where(found >= 0, self.bounds[found], -1)
        ends = np.where(found >= 0, self.bounds[found + 1], -1)
        return Slices(self.ts, self.created, self.values, self.distinct, begins, ends, known, self.blocks)

    def states(self, until: int, known: int | None = None, changed_since: int | None = None) -> dict[str, bytes]:
        """Each entity's state as of `until` (exclusive), from events known by `known`: what a stream job would hold.

        With `changed_since`, only of entities that had an event, or came to know of one, at or after it. None is
        sealed: Feast, which is to write them, has no place for a ledger.
        """
        parts = self.rebuilt(until, known, changed_since, sealing=False)
        pairs = (pair for part in parts for pair in zip(part.entities, part.states, strict=True))
        return {name: state for name, state in pairs if isinstance(state, bytes)}

    def rebuilt(
        self, until: int, known: int | None = None, changed_since: int | None = None, *, sealing: bool = True
    ) -> Iterator[Rebuilt]:
        """What `states` gives, part after part, each of some `PART` events.

        With `sealing` a state is sealed where that pays: for a writer that has a place for ledgers (`OnlineStates`).
        """
        cuts = np.unique(np.searchsorted(self.bounds, np.arange(0, len(self.ts) + PART, PART)))
        cuts = np.unique(np.append(cuts, (0, len(self.entities))))

        def make(ends: tuple[int, int]) -> Rebuilt:
            return self._rebuilt(*ends, until, known, changed_since, sealing)

        ends = [(int(a), int(b)) for a, b in pairwise(cuts[cuts <= len(self.entities)])]
        return (part for part in ahead(make, ends) if part.entities)

    def _rebuilt(
        self, first: int, last: int, until: int, known: int | None, changed_since: int | None, sealing: bool
    ) -> Rebuilt:
        begin, end = self.bounds[first], self.bounds[last]
        there = self.ts[begin:end] < until
        if known is not None and len(self.created):
            there &= self.created[begin:end] <= known
        owner = np.repeat(np.arange(last - first), np.diff(self.bounds[first : last + 1]))[there]
        rows = begin + np.flatnonzero(there)
        if not len(rows):
            return Rebuilt([], [], [])
        begins = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))
        ends = np.append(begins[1:], len(rows))
        counts = ends - begins
        latest = self.ts[rows[ends - 1]]
        # `retention` makes older events invisible but for their instant, so most of a long history need not be hashed.
        keep = self.ts[rows] >= np.repeat(latest - self.spec.retention, counts)
        keep[:-1] |= keep[1:] & (owner[1:] == owner[:-1])
        if changed_since is not None:
            seen = np.maximum.reduceat(self.created[rows], begins) if len(self.created) else latest
            keep &= np.repeat(np.maximum(latest, seen) >= changed_since, counts)
        rows, owner = rows[keep], owner[keep]
        found, counts = np.unique(owner, return_counts=True)
        names = self.entities.take(pa.array(found + first)).to_pylist()
        return Rebuilt(names, *_states(self.spec, counts, self._events(rows), sealing))

    def _events(self, rows: npt.NDArray[np.int64]) -> Events:
        return Events(
            ts=self.ts[rows],
            ids=np.fromiter(map(code, self.ids.take(pa.array(rows)).to_pylist()), np.int64, len(rows)),
            values=np.ascontiguousarray(self.values[:, rows]),
            distinct=np.ascontiguousarray(self.distinct[:, rows]),
            ingest=self.created[rows] if len(self.created) else self.ts[rows],
        )


def _states(spec: WindowSpec, counts: Ints, events: Events, sealing: bool) -> tuple[list[Stored], list[int]]:
    none = [None] * len(counts)
    if sealing or counts.max(initial=0) <= MAX_EVENTS:
        done = update_many(spec, none, counts, events, **({} if sealing else {"seal_above": MAX_EVENTS}))
        return done.states, done.stamps
    ends = np.cumsum(counts)
    parts = [slice(a, b) for a, b in zip(ends - counts, ends, strict=True)]
    states: list[Stored] = [update(spec, None, events.where(part)).state for part in parts]
    return states, [stamp_of(spec, state) for state in states]


def _us(column: Any) -> Ints:
    return sources.instants(column).to_numpy().astype(np.int64, copy=False)


def _dictionary(column: pa.ChunkedArray) -> pa.DictionaryArray:
    encoded = pc.dictionary_encode(pc.cast(column, pa.string())).combine_chunks()
    return encoded if isinstance(encoded, pa.DictionaryArray) else encoded.chunk(0)


def _codes(column: pa.ChunkedArray) -> Ints:
    """The codes of a column's texts: the same as a stream job gives them, so that a state from history may be kept."""
    encoded = _dictionary(column)
    table = np.array([*(code(text) for text in encoded.dictionary.to_pylist()), 0], np.int64)
    indices = pc.fill_null(encoded.indices, len(table) - 1)
    return table[indices.to_numpy(zero_copy_only=False)]


def _order_ties(order: npt.NDArray[np.int64], entities: Ints, ts: Ints, ids: pa.ChunkedArray) -> None:
    """Put an entity's events of one instant into the order in which a state has them: by the code of their id."""
    tied = np.flatnonzero((np.diff(entities[order]) == 0) & (np.diff(ts[order]) == 0))
    if not len(tied):
        return
    places = np.union1d(tied, tied + 1)
    rows = order[places]
    order[places] = rows[np.lexsort((_codes(ids.take(pa.array(rows))), ts[rows], entities[rows]))]


def _first_of_each(ids: pa.ChunkedArray, entities: Ints, order: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which places of `order` hold an entity's id for the first time."""
    encoded = _dictionary(ids)
    places = encoded.indices.to_numpy(zero_copy_only=False)[order]
    first = np.full(len(encoded.dictionary), NEVER)
    # Written from the back, the smallest place is what remains.
    first[places[::-1]] = np.arange(len(places))[::-1]
    found = np.asarray(first[places] == np.arange(len(places)))
    owner = entities[order]
    rivals = np.flatnonzero(~found & (owner != owner[first[places]]))  # an id that several entities use; they are few
    if len(rivals):
        seen: set[tuple[int, int]] = set()
        for place in rivals:
            pair = (int(places[place]), int(owner[place]))
            found[place] = pair not in seen
            seen.add(pair)
    return found
