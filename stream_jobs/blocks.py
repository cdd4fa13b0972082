"""Events by the block: what a source gives at once travels through the job as columns, not one by one.

An event of its own costs a Python object, a step and a message at every stage; a column costs them once.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import mmh3
import numpy as np

from feature_repo.window_state import Events, Floats, Ints
from feature_repo.windows import WindowSpec

SHARDS = 8
"""Shards of each view: the unit that moves between workers."""

_PROCESS = os.urandom(8).hex()
_numbers = itertools.count()


@dataclass(frozen=True)
class Block:
    """Valid events, one array element each, in the order of their delivery.

    `fields` has a column of Python values for each name, null as None; `ts` are the events' instants, `ingested_at`
    when they were first had, `appended_at` when the transport took them in (µs since 1970 UTC).
    """

    name: str
    partition: str
    fields: Mapping[str, Sequence[Any]]
    ts: Ints
    ingested_at: Ints
    appended_at: Ints


@dataclass(frozen=True)
class Part:
    """What a block has for one shard of one view: `counts[e]` events of each of `entities`, one after the other."""

    block: str
    partition: str
    view: str
    entities: list[str]
    counts: Ints
    events: Events
    appended_at: Ints


def block_name() -> str:
    """A name that no other block has, in this process or in another."""
    return f"{_PROCESS}-{next(_numbers)}"


def codes(column: Iterable[Any]) -> Ints:
    """`window_state.code` of every value's text; an integer or a truth value is as its text, as history has it."""
    hash64 = mmh3.hash64
    return np.fromiter(
        (0 if value is None else hash64(value if type(value) is str else text(value))[0] or 1 for value in column),
        np.int64,
    )


def text(value: Any) -> str:
    """The text that stands for a value, the same as history's."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def columns(spec: WindowSpec) -> tuple[str, ...]:
    """Every field of a block that the view reads."""
    return tuple(dict.fromkeys((spec.join_key, spec.event_id, *spec.columns)))


class _Coded:
    """A block's columns as the kernels take them, each made once for however many views."""

    def __init__(self, block: Block) -> None:
        self._block = block
        self._codes: dict[str, Ints] = {}
        self._floats: dict[str, Floats] = {}

    def codes(self, column: str) -> Ints:
        if column not in self._codes:
            self._codes[column] = codes(self._block.fields[column])
        return self._codes[column]

    def floats(self, column: str) -> Floats:
        if column not in self._floats:
            self._floats[column] = np.array(self._block.fields[column], np.float64)  # None is NaN
        return self._floats[column]


def fan_out(specs: Mapping[str, WindowSpec], block: Block) -> Iterator[tuple[str, Part]]:
    """Each event once for each view, under its entity: `(shard, part)`. An entity is always in the same shard."""
    coded = _Coded(block)
    for view, spec in specs.items():
        keys = block.fields[spec.join_key]
        places: dict[Any, int] = {}
        place = np.fromiter((places.setdefault(key, len(places)) for key in keys), np.int64, len(keys))
        names = [key if type(key) is str else text(key) for key in places]
        shards = codes(names) & (SHARDS - 1)
        # Events by shard, within it by entity, within that as they came.
        order = np.argsort(shards[place] * len(names) + place, kind="stable")
        counts = np.bincount(place, minlength=len(names))
        values = np.empty((len(spec.values), len(keys)), np.float64)
        for k, column in enumerate(spec.values):
            values[k] = coded.floats(column)
        distinct = np.empty((len(spec.distinct), len(keys)), np.int64)
        for m, column in enumerate(spec.distinct):
            distinct[m] = coded.codes(column)
        ids = coded.codes(spec.event_id)
        entities = np.argsort(shards, kind="stable")
        begins = np.searchsorted(shards[entities], np.arange(SHARDS + 1))
        ends = np.concatenate(([0], np.cumsum(counts[entities])))[begins]
        for shard, ((a, b), (first, last)) in enumerate(zip(pairwise(begins), pairwise(ends), strict=True)):
            if a == b:
                continue
            rows, mine = order[first:last], entities[a:b]
            yield (
                f"{view}/{shard}",
                Part(
                    block=block.name,
                    partition=block.partition,
                    view=view,
                    entities=[names[e] for e in mine],
                    counts=counts[mine],
                    events=Events(
                        ts=block.ts[rows],
                        ids=ids[rows],
                        values=np.ascontiguousarray(values[:, rows]),
                        distinct=np.ascontiguousarray(distinct[:, rows]),
                        ingest=block.ingested_at[rows],
                    ),
                    appended_at=block.appended_at[rows],
                ),
            )
