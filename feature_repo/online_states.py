"""Windowed states in Redis, read and written in bulk under the very keys and bytes that Feast uses.

Feast's own writer costs 70 to 90 µs a row, most of it in making and taking apart protobuf messages; a state is one
bytes value. `tests/integration/test_online_states.py` holds both writers to the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from feast.infra.online_stores.helpers import _mmh3
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from feature_repo.redis_wire import EntityKeys, UnknownLayout, Wire, command
from feature_repo.transformations import state_field
from feature_repo.windows import WindowSpec

_BYTES_FIELD = b"\x0a"
"""Tag of `bytes_val` in Feast's Value message: field 1, length-delimited."""


class OnlineStates:
    """The states of one windowed view. A lost connection is tried again for about ten seconds."""

    def __init__(self, client: Any, config: Any, view: Any, spec: WindowSpec) -> None:
        if Value(bytes_val=b"xy").SerializeToString() != _BYTES_FIELD + b"\x02xy":
            raise UnknownLayout("This Feast writes bytes values in another form; pin the version of the lock file.")
        self._wire = Wire(client, patient=True)
        self._keys = EntityKeys(config, spec.join_key)
        self._field: bytes = _mmh3(f"{view.name}:{state_field(view.name)}")
        self._stamp_field = f"_ts:{view.name}".encode()

    def read(self, entities: Sequence[str]) -> list[bytes | None]:
        """Each entity's state, null where there is none; one round trip."""
        replies = self._wire.exchange([command(b"HGET", self._keys.of(entity), self._field) for entity in entities])
        return [None if reply is None else bytes_value(reply) for reply in replies]

    def write(self, entities: Sequence[str], states: Sequence[bytes], stamps: Sequence[int]) -> None:
        """Put states in place, stamped (µs since 1970 UTC); one round trip. The caller is the entities' only writer."""
        commands = []
        for entity, state, stamp in zip(entities, states, stamps, strict=True):
            at = Timestamp(seconds=stamp // 1_000_000, nanos=stamp % 1_000_000 * 1_000).SerializeToString()
            value = b"".join((_BYTES_FIELD, _varint(len(state)), state))
            commands.append(command(b"HSET", self._keys.of(entity), self._stamp_field, at, self._field, value))
        self._wire.exchange(commands)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def bytes_value(message: bytes) -> bytes | None:
    """The bytes of Feast's Value message; null for one that holds something else."""
    if message[:1] != _BYTES_FIELD:
        return None
    size = shift = 0
    at = 1
    while True:
        byte = message[at]
        size |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:
            break
    return message[at : at + size]
