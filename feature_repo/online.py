"""Windowed states on their way into Feast's online store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from feature_repo.transformations import state_field
from feature_repo.window_state import from_us, header
from feature_repo.windows import WindowSpec

OnlineRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


def online_rows(view: Any, spec: WindowSpec, states: Iterable[tuple[str, bytes]]) -> Iterator[OnlineRow]:
    """What `online_write_batch` takes, for (entity, state) pairs.

    A row's timestamp is its state's stamp, which grows with every change: Feast drops a write that is not newer.
    """
    feature = state_field(view.name)
    for entity, state in states:
        key = EntityKey(join_keys=[spec.join_key], entity_values=[Value(string_val=entity)])
        yield key, {feature: Value(bytes_val=state)}, from_us(header(spec, state).stamp), None
