"""The online read, planned once: a feature service compiled to the Redis keys that Feast writes.

`ask` gives the commands for any number of payments, one round trip for all of them; `answer` makes features of the
replies, each on-demand view once for all rows. What comes out is what `get_online_features` gives, which
`tests/integration/test_compiled_reader.py` holds it to.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from feast.infra.online_stores.helpers import _mmh3
from feast.protos.feast.types.Value_pb2 import Value
from redis.exceptions import RedisError

from bentos.errors import Unavailable
from bentos.features import (
    AGES,
    FeatureRows,
    feature_service,
    online_store,
    stored_view,
    windowed_views,
)
from bentos.payments import Asked
from feature_repo.context import AT
from feature_repo.online_states import bytes_value
from feature_repo.redis_wire import EntityKeys, Wire, command
from feature_repo.schema import category_or_other
from feature_repo.settings import Settings
from feature_repo.transformations import VECTORISED_TAG, state_field
from feature_repo.vector import FEATURE_SERVICE, columns, to_vector
from feature_repo.window_state import States

_DOUBLE = Value(double_val=1.0).SerializeToString()[:1]
_TEXT = Value(string_val="x").SerializeToString()[:1]
_double = struct.Struct("<d").unpack_from


class NotCompilable(ValueError):
    """A feature service that this reader cannot plan."""


@dataclass(frozen=True)
class Question:
    """What to ask Redis for a batch of payments, and which reply is whose: `rows[lookup][payment]`."""

    payments: Sequence[Asked]
    commands: list[bytes]
    counts: list[int]
    rows: list[list[int]]

    def replies_of(self, payment: int, replies: Sequence[Sequence[bytes | None]]) -> list[Sequence[bytes | None]]:
        """The replies that one payment is about, as if it had been asked alone."""
        found, begin = [], 0
        for rows, count in zip(self.rows, self.counts, strict=True):
            found.append(replies[begin + rows[payment]])
            begin += count
        return found


class CompiledReader:
    """A `FeatureReader`. Safe to call from several threads; `ask` and `answer` do no I/O."""

    def __init__(self, settings: Settings, service: str = FEATURE_SERVICE) -> None:
        store = online_store(settings)
        found = feature_service(store, settings, service)
        self.feature_service: str = found.name
        self.columns = columns(found)
        names = [projection.name for projection in found.feature_view_projections]
        self._transformations = [_transformation(store, name) for name in names]
        self._lookups = _lookups(store, names)
        self._windowed = {state_field(view): spec for view, spec in windowed_views(store, found).items()}
        config = store.config
        self._wire = Wire(store._get_provider().online_store._get_client(config.online_store), patient=False)

    def ask(self, payments: Sequence[Asked]) -> Question:
        """One command for each different entity of the payments."""
        commands: list[bytes] = []
        counts, rows = [], []
        for look in self._lookups:
            places: dict[str, int] = {}
            rows.append([places.setdefault(getattr(one.payment, look.join_key), len(places)) for one in payments])
            commands += [look.command(entity) for entity in places]
            counts.append(len(places))
        return Question(payments, commands, counts, rows)

    def answer(self, question: Question, replies: Sequence[Sequence[bytes | None]]) -> FeatureRows:
        """The features of a batch from the replies to its question."""
        payments = question.payments
        inputs: dict[str, Any] = {}
        begin = 0
        for look, count, rows in zip(self._lookups, question.counts, question.rows, strict=True):
            found = replies[begin : begin + count]
            begin += count
            for place, (name, short) in enumerate(look.names.items()):
                stored = [reply[place] for reply in found]
                spec = self._windowed.get(short)
                inputs[name] = inputs[short] = (
                    _column(stored, rows) if spec is None else States(spec, [_value(one) for one in stored], rows)
                )
        at = np.array([one.at for one in payments], np.int64)
        incomplete = np.zeros(len(payments), np.bool_)
        for name, spec in self._windowed.items():
            incomplete |= inputs[name].incomplete(spec, at)
        _describe(inputs, payments)
        inputs[AT] = at
        features: dict[str, Any] = {}
        for transform in self._transformations:
            features |= transform(inputs)
        return FeatureRows(
            to_vector(features, self.columns), _ages(features, len(payments)), tuple(incomplete.tolist())
        )

    def nothing(self, question: Question) -> list[list[None]]:
        """The replies of a store that knows none of the entities."""
        pairs = zip(self._lookups, question.counts, strict=True)
        return [[None] * len(look.fields) for look, count in pairs for _ in range(count)]

    def read(self, payments: Sequence[Asked]) -> FeatureRows:
        """See `FeatureReader`."""
        question = self.ask(payments)
        try:
            replies = self._wire.exchange(question.commands) if question.commands else []
        except RedisError as error:
            raise Unavailable("feature_store", error) from error
        return self.answer(question, replies)


def _describe(inputs: dict[str, Any], payments: Sequence[Asked]) -> None:
    """The fields of the request source."""
    inputs["amount"] = np.array([one.payment.amount for one in payments], np.float64)
    inputs["merchant_category"] = [category_or_other(one.payment.merchant_category) for one in payments]
    inputs["country"] = [one.payment.country for one in payments]
    inputs["channel"] = [one.payment.channel for one in payments]


def _ages(features: dict[str, Any], rows: int) -> tuple[float | None, ...]:
    """Each payment's youngest age that is known."""
    known = [np.asarray(features[name], np.float64) for name in AGES if name in features]
    if not known:
        return (None,) * rows
    least = known[0] if len(known) == 1 else np.fmin(known[0], known[1])
    return tuple(None if age != age else age for age in least.tolist())


class _Lookup:
    """The features of all views that share a join key: one HMGET for each entity."""

    def __init__(self, keys: EntityKeys, join_key: str) -> None:
        self.keys, self.join_key = keys, join_key
        self.names: dict[str, str] = {}
        self.fields: list[bytes] = []
        self._head, self._tail = b"", b""

    def seal(self) -> None:
        """Make what does not change between commands."""
        whole = command(b"HMGET", b"", *self.fields)
        self._head, self._tail = whole.split(b"$0\r\n\r\n", 1)

    def command(self, entity: str) -> bytes:
        """The command for one entity."""
        key = self.keys.of(entity)
        return b"%b$%d\r\n%b\r\n%b" % (self._head, len(key), key, self._tail)


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
                    look.names[column] = feature.name
                    look.fields.append(_mmh3(f"{view.name}:{feature.name}"))
    for look in found.values():
        look.seal()
    return list(found.values())


def _transformation(store: Any, name: str) -> Any:
    view = store.get_on_demand_feature_view(name)
    if view.tags.get(VECTORISED_TAG) != "true":
        raise NotCompilable(f"View '{name}': the compiled reader runs transformations tagged {VECTORISED_TAG}=true.")
    return view.feature_transformation.udf


_PACKED = np.dtype([("tag", "u1"), ("value", "<f8")])
_NULL = Value(double_val=np.nan).SerializeToString()
FEW = 8
"""Values that are read one by one sooner than as an array."""


def _column(stored: Sequence[bytes | None], rows: Sequence[int]) -> Any:
    """The column whose row r has the stored value `rows[r]`: an array where all of them are numbers or nothing."""
    first = next((one for one in stored if one), b"") if len(stored) >= FEW else b""
    if first[:1] == _DOUBLE:
        data = b"".join([_NULL if one is None else one for one in stored])
        if len(data) == len(stored) * _PACKED.itemsize:
            packed = np.frombuffer(data, _PACKED)
            if (packed["tag"] == _DOUBLE[0]).all():
                return packed["value"][np.asarray(rows)]
    values = [_value(one) for one in stored]
    return [values[row] for row in rows]


def _value(message: bytes | None) -> Any:
    """What Feast reads from a stored value; null where nothing is stored, or null is."""
    if message is None:
        return None
    state = bytes_value(message)
    if state is not None:
        return state
    if message[:1] == _DOUBLE:
        return _double(message, 1)[0]
    if message[:1] == _TEXT and message[1] < 0x80:
        return message[2:].decode()
    value = Value.FromString(message)
    kind = value.WhichOneof("val")
    return None if kind is None else getattr(value, kind)
