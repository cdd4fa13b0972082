"""Windowed states on their way into Feast's online store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Int32, Int64, String

from feature_repo.transformations import state_field
from feature_repo.window_state import from_us, header
from feature_repo.windows import UnsupportedAggregation, WindowSpec

OnlineRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


_KEY_FIELDS = {String: "string_val", Int64: "int64_val", Int32: "int32_val"}


def key_field(view: Any) -> str:
    """The field of Feast's value message that holds the view's join key.

    Raises `UnsupportedAggregation` for a key that is neither text nor an integer.
    """
    column = view.entity_columns[0]
    if column.dtype not in _KEY_FIELDS:
        raise UnsupportedAggregation(
            f"View '{view.name}': join key '{column.name}' is {column.dtype}; must be String, Int64 or Int32."
        )
    return _KEY_FIELDS[column.dtype]


def entity_key(view: Any, spec: WindowSpec, entity: str) -> EntityKey:
    """The key under which Feast stores and asks for an entity; the engine itself knows every entity as text."""
    value, field = Value(), key_field(view)
    setattr(value, field, entity if field == "string_val" else int(entity))
    return EntityKey(join_keys=[spec.join_key], entity_values=[value])


def online_rows(view: Any, spec: WindowSpec, states: Iterable[tuple[str, bytes]]) -> Iterator[OnlineRow]:
    """What `online_write_batch` takes, for (entity, state) pairs.

    A row's timestamp is its state's stamp, which grows with every change: Feast drops a write that is not newer.
    """
    feature = state_field(view.name)
    for entity, state in states:
        stamp = from_us(header(spec, state).stamp)
        yield entity_key(view, spec, entity), {feature: Value(bytes_val=state)}, stamp, None
