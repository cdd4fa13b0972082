"""Feast's aggregations as Bytewax steps: the engine that executes what a StreamFeatureView declares.

Redis is the state of record. A step keeps the states of its shard in memory as a cache, loads what it lacks, and merges
events into them; a merge of events that are already there changes nothing, so that a record delivered again after a
crash is counted once. Nothing here knows of cards or fraud.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from bytewax.operators import StatefulBatchLogic

from feature_repo.online import entity_key, key_field, online_rows
from feature_repo.transformations import state_field
from feature_repo.window_state import Events, code, update
from feature_repo.windows import WindowSpec, is_windowed, spec_of_view
from stream_jobs.transports.base import Record

SHARDS = 8
"""Shards of each view: the unit that moves between workers."""

CACHED_STATES = 200_000
"""States a shard keeps in memory; the longest unused go first, and are loaded again when needed."""


@dataclass(frozen=True, slots=True)
class Event:
    """A valid event: its record, its fields, its time and the time it was first had (µs since 1970 UTC)."""

    record: Record
    fields: Mapping[str, Any]
    ts: int
    ingested_at: int


@dataclass(frozen=True)
class Written:
    """States of one view after a batch, and the records they account for."""

    view: str
    states: dict[str, bytes]
    records: list[Record]
    added: int
    overflowed: int


class Plan:
    """The windowed views that one stream feeds, as the Feast registry has them; read when first asked for."""

    def __init__(self, open_store: Callable[[], Any], stream: str) -> None:
        self._open_store = open_store
        self._stream = stream

    @cached_property
    def store(self) -> Any:
        """The Feast store."""
        return self._open_store()

    @cached_property
    def views(self) -> dict[str, Any]:
        """The views by name; raises if the stream feeds none or one declares what the engine cannot execute."""
        found = {
            view.name: view
            for view in self.store.list_stream_feature_views()
            if is_windowed(view) and view.stream_source is not None and view.stream_source.name == self._stream
        }
        if not found:
            raise LookupError(
                f"Stream source '{self._stream}' feeds no view with aggregations. Run `feast apply` first."
            )
        return found

    @cached_property
    def specs(self) -> dict[str, WindowSpec]:
        """What each view computes; the same errors as `views`, so that to ask for it is to check the declaration."""
        for view in self.views.values():
            key_field(view)
        return {name: spec_of_view(view) for name, view in self.views.items()}

    def load(self, view: str, entities: Sequence[str]) -> dict[str, bytes]:
        """The states that the online store has of these entities."""
        spec = self.specs[view]
        keys = [entity_key(self.views[view], spec, name) for name in entities]
        feature = state_field(view)
        store = self.store._get_provider().online_store
        rows = store.online_read(self.store.config, self.views[view], keys, [feature])
        return {
            name: values[feature].bytes_val
            for name, (_, values) in zip(entities, rows, strict=True)
            if values and values[feature].HasField("bytes_val")
        }

    def write(self, view: str, states: Mapping[str, bytes]) -> None:
        """Put states into the online store."""
        rows = list(online_rows(self.views[view], self.specs[view], states.items()))
        provider = self.store._get_provider()
        provider.online_store.online_write_batch(self.store.config, self.views[view], rows, None)


def fan_out(plan: Plan, events: Iterable[Event]) -> Iterable[tuple[str, tuple[str, str, Event]]]:
    """Each event once for each view: `(shard, (view, entity, event))`."""
    for event in events:
        for name, spec in plan.specs.items():
            entity = str(event.fields[spec.join_key])
            yield f"{name}/{zlib.crc32(entity.encode()) % SHARDS}", (name, entity, event)


class ShardLogic(StatefulBatchLogic[tuple[str, str, Event], Written, None]):
    """The states of one shard of one view."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._cache: OrderedDict[str, bytes] = OrderedDict()

    def on_batch(self, batch: list[tuple[str, str, Event]]) -> tuple[Iterable[Written], bool]:
        """Merge a batch; the result holds each touched entity's state once, as it is after the whole batch.

        Raises `InvalidState` where the online store has bytes that the view as it is declared now cannot read: to start
        again from nothing would give wrong numbers for as long as the longest window, in silence.
        """
        view = batch[0][0]
        spec = self._plan.specs[view]
        by_entity: defaultdict[str, list[Event]] = defaultdict(list)
        for _, entity, event in batch:
            by_entity[entity].append(event)
        missing = [entity for entity in by_entity if entity not in self._cache]
        if missing:
            self._cache.update(self._plan.load(view, missing))
        states: dict[str, bytes] = {}
        added = overflowed = 0
        for entity, events in by_entity.items():
            merged = update(spec, self._cache.get(entity), as_events(spec, events))
            added, overflowed = added + merged.added, overflowed + merged.overflowed
            states[entity] = self._cache[entity] = merged.state
            self._cache.move_to_end(entity)
        while len(self._cache) > CACHED_STATES:
            self._cache.popitem(last=False)
        return [Written(view, states, [event.record for _, _, event in batch], added, overflowed)], self.RETAIN

    def snapshot(self) -> None:
        """Nothing: the online store has it."""
        return


def as_events(spec: WindowSpec, events: Sequence[Event]) -> Events:
    """Columns of one entity's events; a null number is NaN, a null text has code 0, and an integer is as its text."""
    n = len(events)
    values = np.empty((len(spec.values), n), np.float64)
    for k, column in enumerate(spec.values):
        values[k] = [np.nan if (x := event.fields[column]) is None else x for event in events]
    distinct = np.empty((len(spec.distinct), n), np.int64)
    for m, column in enumerate(spec.distinct):
        distinct[m] = [code(_text(event.fields[column])) for event in events]
    return Events(
        ts=np.array([event.ts for event in events], np.int64),
        ids=np.array([code(_text(event.fields[spec.event_id])) for event in events], np.int64),
        values=values,
        distinct=distinct,
        ingest=np.array([event.ingested_at for event in events], np.int64),
    )


def _text(value: Any) -> str | None:
    """The text that stands for a value, the same as history's; null stays null."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)
