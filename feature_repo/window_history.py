"""A table of events sorted for the window maths: training sets and rebuilds of the online store read history here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.window_batch import Stored, update_many
from feature_repo.window_kernels import NEVER
from feature_repo.window_state import Events, Floats, Ints, Slices, code, update
from feature_repo.windows import WindowSpec


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
        return Slices(self.ts, self.created, self.values, self.distinct, begins, ends, known)

    def states(self, until: int, known: int | None = None, changed_since: int | None = None) -> dict[str, bytes]:
        """Each entity's state as of `until` (exclusive), from events known by `known`: what a stream job would hold.

        With `changed_since`, only of entities that had an event, or came to know of one, at or after it. None is
        sealed: Feast, which is to write them, has no place for a ledger.
        """
        return {
            name: update(self.spec, None, events).state for name, events in self._latest(until, known, changed_since)
        }

    def stored(self, until: int, known: int | None = None) -> dict[str, Stored]:
        """Like `states`, sealed where that pays, for a writer that has a place for ledgers (`OnlineStates`)."""
        return {
            name: update_many(self.spec, [None], np.array([len(events.ts)]), events).states[0]
            for name, events in self._latest(until, known, None)
        }

    def _latest(self, until: int, known: int | None, changed_since: int | None) -> Iterator[tuple[str, Events]]:
        names = self.entities.to_pylist()
        for e, name in enumerate(names):
            begin = int(self.bounds[e])
            end = begin + int(np.searchsorted(self.ts[begin : self.bounds[e + 1]], until))
            keep = np.arange(begin, end)
            if known is not None and len(self.created):
                keep = keep[self.created[begin:end] <= known]
            if not len(keep):
                continue
            latest = self.ts[keep[-1]] if not len(self.created) else max(self.ts[keep[-1]], self.created[keep].max())
            if changed_since is None or latest >= changed_since:
                yield name, self._events(keep)

    def _events(self, rows: npt.NDArray[np.int64]) -> Events:
        # `retention` makes older events invisible but for their instant, so most of a long history need not be hashed.
        recent = rows[self.ts[rows] >= self.ts[rows[-1]] - self.spec.retention]
        if len(recent) < len(rows):
            recent = np.concatenate((rows[len(rows) - len(recent) - 1 : len(rows) - len(recent)], recent))
        ids = np.fromiter((code(i) for i in self.ids.take(pa.array(recent)).to_pylist()), np.int64, len(recent))
        ingest = self.created[recent] if len(self.created) else self.ts[recent]
        return Events(
            ts=self.ts[recent],
            ids=ids,
            values=np.ascontiguousarray(self.values[:, recent]),
            distinct=np.ascontiguousarray(self.distinct[:, recent]),
            ingest=ingest,
        )


def _us(column: Any) -> Ints:
    stamps = pc.cast(pc.cast(column, pa.timestamp("us", tz="UTC")), pa.int64())
    return stamps.to_numpy().astype(np.int64, copy=False)


def _dictionary(column: pa.ChunkedArray) -> pa.DictionaryArray:
    encoded = pc.dictionary_encode(pc.cast(column, pa.string())).combine_chunks()
    return encoded if isinstance(encoded, pa.DictionaryArray) else encoded.chunk(0)


def _codes(column: pa.ChunkedArray) -> Ints:
    """The codes of a column's texts: the same as a stream job gives them, so that a state from history may be kept."""
    encoded = _dictionary(column)
    table = np.array([*(code(text) for text in encoded.dictionary.to_pylist()), 0], np.int64)
    indices = pc.fill_null(encoded.indices, len(table) - 1)
    return table[indices.to_numpy(zero_copy_only=False)]


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
