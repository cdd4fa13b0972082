"""Feast's aggregations as Bytewax steps: the engine that executes what a StreamFeatureView declares.

Redis is the state of record. A step keeps the states of its shard in memory as a cache, loads what it lacks, and merges
events into them; a merge of events that are already there changes nothing, so that a record delivered again after a
crash is counted once. Nothing here knows of cards or fraud.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from bytewax.operators import StatefulBatchLogic

from feature_repo.online import key_field
from feature_repo.online_states import OnlineStates
from feature_repo.window_batch import Stored, update_many
from feature_repo.window_state import Events
from feature_repo.windows import WindowSpec, is_windowed, spec_of_view
from stream_jobs.blocks import SHARDS, Part

CACHE_BYTES = 512 * 1024 * 1024
"""What the states that one worker keeps in memory may take, with two views; what goes is loaded again when needed."""


@dataclass(frozen=True)
class Written:
    """States of one view after a batch of parts, and what became of the parts' events.

    `states` and `stamps` are in the order of `entities`. `added` events count in a state now; `sealed` ones came too
    late to be told from a repetition, and count only if they are one; `overflowed` ones had to leave for want of room.
    """

    view: str
    entities: list[str]
    states: list[Stored]
    stamps: list[int]
    parts: list[Part]
    added: int
    overflowed: int
    sealed: int
    loaded: int = 0
    """States that were not in memory and had to come from the online store."""


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

    @cached_property
    def states(self) -> dict[str, OnlineStates]:
        """Each view's states in the online store."""
        online = self.store._get_provider().online_store
        client = online._get_client(self.store.config.online_store)
        return {
            name: OnlineStates(client, self.store.config, view, self.specs[name]) for name, view in self.views.items()
        }

    def warm_up(self) -> None:
        """Check the declarations, reach the online store, and have the kernels loaded or compiled.

        The same errors as `specs`; an online store that is away for longer than its client's patience raises too.
        """
        nothing = np.zeros(1, np.int64)
        for view, spec in self.specs.items():
            events = Events(
                nothing,
                nothing + 1,
                np.zeros((len(spec.values), 1)),
                np.zeros((len(spec.distinct), 1), np.int64),
                nothing,
            )
            once = update_many(spec, [None], np.ones(1, np.int64), events)
            update_many(spec, once.states, np.ones(1, np.int64), events)
            self.load(view, ["-"] if key_field(self.views[view]) == "string_val" else ["0"])

    def load(self, view: str, entities: Sequence[str]) -> list[Stored | None]:
        """The states that the online store has of these entities, None where it has none."""
        return list(self.states[view].read(entities))

    def write(self, view: str, entities: Sequence[str], states: Sequence[Stored], stamps: Sequence[int]) -> None:
        """Put states into the online store; the caller is the only writer of these entities."""
        self.states[view].write(entities, states, stamps)


class ShardLogic(StatefulBatchLogic[Part, Written, None]):
    """The states of one shard of one view."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._cache = _Cache()

    def on_batch(self, batch: list[Part]) -> tuple[Iterable[Written], bool]:
        """Merge a batch; the result holds each touched entity's state once, as it is after the whole batch.

        Raises `InvalidState` where the online store has bytes that the view as it is declared now cannot read: to start
        again from nothing would give wrong numbers for as long as the longest window, in silence.
        """
        view = batch[0].view
        spec = self._plan.specs[view]
        states = {entity: self._cache.get(entity) for part in batch for entity in part.entities}
        missing = [entity for entity, state in states.items() if state is None]
        if missing:
            states.update(zip(missing, self._plan.load(view, missing), strict=True))
        stamps: dict[str, int] = {}
        added = overflowed = sealed = 0
        for part in batch:
            after = update_many(spec, [states[entity] for entity in part.entities], part.counts, part.events)
            added, overflowed, sealed = added + after.added, overflowed + after.overflowed, sealed + after.sealed
            states.update(zip(part.entities, after.states, strict=True))
            stamps.update(zip(part.entities, after.stamps, strict=True))
        merged = cast("dict[str, Stored]", states)  # each is in a part, and so has a state by now
        self._cache.put(merged)
        written = Written(
            view=view,
            entities=list(merged),
            states=list(merged.values()),
            stamps=[stamps[entity] for entity in merged],
            parts=batch,
            added=added,
            overflowed=overflowed,
            sealed=sealed,
            loaded=len(missing),
        )
        return [written], self.RETAIN

    def snapshot(self) -> None:
        """Nothing: the online store has it."""
        return


class _Cache:
    """States by entity, in two generations: one that was not touched for a whole generation goes.

    A generation ends when half of what a shard may hold has been written to it.
    """

    def __init__(self) -> None:
        self._young: dict[str, Stored] = {}
        self._old: dict[str, Stored] = {}
        self._bytes = 0

    def get(self, entity: str) -> Stored | None:
        """The state, or None where the cache has none."""
        found = self._young.get(entity)
        return self._old.get(entity) if found is None else found

    def put(self, states: Mapping[str, Stored]) -> None:
        """Keep these."""
        self._young.update(states)
        self._bytes += sum(map(_size, states.values()))
        if self._bytes > CACHE_BYTES // (4 * SHARDS):
            self._old, self._young, self._bytes = self._young, {}, 0


def _size(state: Stored) -> int:
    """Bytes that a cached state takes, with what Python adds to an entry."""
    return 300 + (len(state) if isinstance(state, bytes) else len(state.state) + len(state.ledger))
