"""The events that the windowed features of a time range are made of, as batches in a fixed order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import sources
from feature_repo.sources import Root
from feature_repo.window_state import Ints, from_us
from feature_repo.windows import WindowSpec

HELD = 262_144
"""Last events, of entities, that are held before they go on."""


def read_events(source: Any, root: Root, spec: WindowSpec, since: int, until: int) -> pa.Table:
    """What `scan_events` gives, as a table."""
    return pa.Table.from_batches(scan_events(source, root, spec, since, until))


def scan_events(source: Any, root: Root, spec: WindowSpec, since: int, until: int) -> Iterator[pa.RecordBatch]:
    """Events of [since, until), and before them of each entity the last one: `seconds_since_last` reaches that far.

    The questions begin at `since` + the spec's retention. An older event that became known later than that is there
    too: to some questions it is the last one, to others the one before it is. So may be others that change nothing.
    At least one batch, perhaps empty, says what the columns are.
    """
    created = source.created_timestamp_column
    columns = [spec.join_key, spec.event_id, *spec.columns, source.timestamp_field, *([created] if created else [])]
    stored = {name: sources.stored_name(source, name) for name in columns}
    names = list(stored.values())
    if not all(feature.window for feature in spec.features):
        with sources.scan(source, root, names, None, from_us(since)) as older:
            found = (_named(batch, stored, spec.join_key) for batch in older)
            yield from _last(found, spec.join_key, source.timestamp_field, created, since + spec.retention)
    with sources.scan(source, root, names, from_us(since), from_us(until)) as recent:
        none = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in recent.schema], schema=recent.schema)
        yield _named(none, stored, spec.join_key)
        for batch in recent:
            yield _named(batch, stored, spec.join_key)


def _named(batch: pa.RecordBatch, stored: dict[str, str], key: str) -> pa.RecordBatch:
    events = pa.RecordBatch.from_arrays([batch[column] for column in stored.values()], names=list(stored))
    keys = events[key]
    return events.filter(pc.is_valid(keys)) if keys.null_count else events  # an event without a key is nobody's


def _last(
    batches: Iterable[pa.RecordBatch], key: str, stamp: str, created: str, known: int
) -> Iterator[pa.RecordBatch]:
    """Of each entity the last event that was created before `known` (any, without `created`), and all created since.

    An entity's last event so far comes more than once where there are many entities.
    """
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held += _last_of_each(pa.Table.from_batches([batch]), key, stamp, created, known).to_batches()
        if sum(len(one) for one in held) > HELD:
            held = _last_of_each(pa.Table.from_batches(held), key, stamp, created, known).to_batches()
            if sum(len(one) for one in held) > HELD // 2:
                yield from held
                held = []
    if held:
        yield from _last_of_each(pa.Table.from_batches(held), key, stamp, created, known).to_batches()


def _last_of_each(events: pa.Table, key: str, stamp: str, created: str, known: int) -> pa.Table:
    encoded = pc.dictionary_encode(events[key].combine_chunks())
    entities = encoded.indices.to_numpy(zero_copy_only=False)
    late = _us(events[created]) >= known if created else np.zeros(len(events), np.bool_)
    early = np.flatnonzero(~late)
    order = early[np.lexsort((_us(events[stamp])[early], entities[early]))]
    owner = entities[order]
    last = order[np.append(owner[1:] != owner[:-1], True)] if len(order) else order
    return events.take(pa.array(np.sort(np.concatenate((last, np.flatnonzero(late))))))


def _us(column: Any) -> Ints:
    return pc.fill_null(sources.instants(column), 0).to_numpy().astype(np.int64, copy=False)
