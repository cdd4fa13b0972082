"""The online read, planned once: a feature service compiled to the Redis keys that Feast writes.

One round trip for all payments of a call, then each on-demand view once for all of them. What comes out is what
`get_online_features` gives, which `tests/integration/test_compiled_reader.py` holds it to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from feast.infra.online_stores.helpers import _mmh3
from feast.protos.feast.types.Value_pb2 import Value
from redis.exceptions import RedisError

from bentos.errors import Unavailable
from bentos.features import (
    AGES,
    FeatureRows,
    any_incomplete,
    entity_row,
    feature_service,
    online_store,
    stored_view,
    windowed_views,
    youngest,
)
from feature_repo.context import AT
from feature_repo.online_states import bytes_value
from feature_repo.redis_wire import EntityKeys, Wire, command
from feature_repo.schema import Transaction
from feature_repo.settings import Settings
from feature_repo.transformations import VECTORISED_TAG, state_field
from feature_repo.vector import columns, to_vector


class NotCompilable(ValueError):
    """A feature service that this reader cannot plan."""


class CompiledReader:
    """A `FeatureReader`. Safe to call from several threads."""

    def __init__(self, settings: Settings) -> None:
        store = online_store(settings)
        service = feature_service(store, settings)
        self.feature_service: str = service.name
        self.columns = columns(service)
        names = [projection.name for projection in service.feature_view_projections]
        self._transformations = [_transformation(store, name) for name in names]
        self._lookups = _lookups(store, names)
        self._windowed = [(state_field(view), spec) for view, spec in windowed_views(store, service).items()]
        config = store.config
        self._wire = Wire(store._get_provider().online_store._get_client(config.online_store), patient=False)

    def read(self, transactions: Sequence[Transaction]) -> FeatureRows:
        """See `FeatureReader`."""
        rows = [entity_row(transaction) for transaction in transactions]
        try:
            inputs = self._stored(rows)
        except RedisError as error:
            raise Unavailable("feature_store", error) from error
        at = [row[AT] for row in rows]
        incomplete = any_incomplete([(spec, inputs[name]) for name, spec in self._windowed], at)
        for name in rows[0]:
            inputs[name] = [row[name] for row in rows]
        inputs[AT] = np.array(at, np.int64)
        features: dict[str, Any] = {}
        for transform in self._transformations:
            features |= transform(inputs)
        known = [features[name] for name in AGES if name in features]
        ages = np.stack(known, axis=1) if known else np.full((len(rows), 1), np.nan)
        return FeatureRows(
            to_vector(features, self.columns),
            tuple(youngest([None if age != age else age for age in row]) for row in ages.tolist()),
            incomplete,
        )

    def _stored(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The stored features of every row, as columns under their view's name and their own."""
        commands = [
            command(b"HMGET", look.keys.of(row[look.join_key]), *look.fields) for look in self._lookups for row in rows
        ]
        replies = iter(self._wire.exchange(commands))
        inputs: dict[str, Any] = {}
        for look in self._lookups:
            found = [next(replies) for _ in rows]
            for place, name in enumerate(look.names):
                column = [_value(reply[place]) for reply in found]
                inputs[name] = inputs[name.split("__", 1)[1]] = column
        return inputs


class _Lookup:
    """The features of all views that share a join key: one HMGET for each entity."""

    def __init__(self, keys: EntityKeys, join_key: str) -> None:
        self.keys, self.join_key = keys, join_key
        self.names: list[str] = []
        self.fields: list[bytes] = []


def _lookups(store: Any, names: Sequence[str]) -> list[_Lookup]:
    found: dict[str, _Lookup] = {}
    for name in names:
        for projection in store.get_on_demand_feature_view(name).source_feature_view_projections.values():
            view = stored_view(store, projection.name)
            if len(view.entity_columns) != 1 or view.ttl:
                raise NotCompilable(f"View '{view.name}': the compiled reader takes one text join key and no ttl.")
            key = view.entity_columns[0].name
            look = found.setdefault(key, _Lookup(EntityKeys(store.config, key), key))
            for feature in projection.features:
                column = f"{view.name}__{feature.name}"
                if column not in look.names:
                    look.names.append(column)
                    look.fields.append(_mmh3(f"{view.name}:{feature.name}"))
    return list(found.values())


def _transformation(store: Any, name: str) -> Any:
    view = store.get_on_demand_feature_view(name)
    if view.tags.get(VECTORISED_TAG) != "true":
        raise NotCompilable(f"View '{name}': the compiled reader runs transformations tagged {VECTORISED_TAG}=true.")
    return view.feature_transformation.udf


def _value(message: bytes | None) -> Any:
    """What Feast reads from a stored value; null where nothing is stored, or null is."""
    if message is None:
        return None
    state = bytes_value(message)
    if state is not None:
        return state
    value = Value.FromString(message)
    kind = value.WhichOneof("val")
    return None if kind is None else getattr(value, kind)
