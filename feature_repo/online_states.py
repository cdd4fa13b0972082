"""Windowed states in Redis, read and written in bulk under the very keys and bytes that Feast uses.

Feast's own writer costs 70 to 90 µs a row, most of it in making and taking apart protobuf messages; a state is one
bytes value. `tests/integration/test_online_states.py` holds both writers to the same bytes. The ledger of a sealed
state lies in a field of its own under the same key, which Feast knows nothing of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from feast.infra.online_stores.helpers import _mmh3
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from feature_repo.online import key_field
from feature_repo.redis_wire import EntityKeys, UnknownLayout, Wire, command
from feature_repo.transformations import state_field
from feature_repo.window_sealed import Sealed, Stored
from feature_repo.windows import WindowSpec

_BYTES_FIELD = b"\x0a"
"""Tag of `bytes_val` in Feast's Value message: field 1, length-delimited."""

TOGETHER = 250
"""States that are sent while the next ones are put together."""


class OnlineStates:
    """The states of one windowed view. A lost connection is tried again for about ten seconds."""

    def __init__(self, client: Any, config: Any, view: Any, spec: WindowSpec) -> None:
        if Value(bytes_val=b"xy").SerializeToString() != _BYTES_FIELD + b"\x02xy":
            raise UnknownLayout("This Feast writes bytes values in another form; pin the version of the lock file.")
        self._view = view.name
        self._wire = Wire(client, patient=True)
        self._keys = EntityKeys(config, spec.join_key, key_field(view))
        self._field: bytes = _mmh3(f"{view.name}:{state_field(view.name)}")
        # What is the same in every command is put together once.
        stamp, state = (_bulk(name).replace(b"%", b"%%") for name in (f"_ts:{view.name}".encode(), self._field))
        value = b"$%d\r\n%b"
        self._set = b"*6\r\n$4\r\nHSET\r\n" + value + b"\r\n" + stamp + value + b"\r\n" + state + value + b"%b\r\n"
        self._ledger_field = f"_ledger:{view.name}".encode()

    def read(self, entities: Sequence[str]) -> list[Stored | None]:
        """What is stored of each entity, null where there is nothing; one round trip."""
        replies = self._wire.exchange(
            [command(b"HMGET", self._keys.of(entity), self._field, self._ledger_field) for entity in entities]
        )
        return [None if value is None else _stored(bytes_value(value), ledger) for value, ledger in replies]

    def write(self, entities: Sequence[str], stored: Sequence[Stored], stamps: Sequence[int]) -> None:
        """Put states in place, stamped (µs since 1970 UTC); one round trip. The caller is the entities' only writer.

        A state and its ledger become visible at once. The ledger is sent only where the store lacks it.
        """
        self._wire.stream(lambda: self._chunks(entities, stored, stamps))
        for one in stored:
            if isinstance(one, Sealed):
                one.saved = True

    def _chunks(
        self, entities: Sequence[str], stored: Sequence[Stored], stamps: Sequence[int]
    ) -> Iterator[Sequence[bytes]]:
        for begin in range(0, len(entities), TOGETHER):
            part = slice(begin, begin + TOGETHER)
            yield [self._command(*each) for each in zip(entities[part], stored[part], stamps[part], strict=True)]

    def _command(self, entity: str, one: Stored, stamp: int) -> bytes:
        state, ledger = (one, b"") if isinstance(one, bytes) else (one.state, self._ledger_of(one))
        key, size = self._keys.of(entity), _BYTES_FIELD + _varint(len(state))
        at = Timestamp(seconds=stamp // 1_000_000, nanos=stamp % 1_000_000 * 1_000).SerializeToString()
        made = self._set % (len(key), key, len(at), at, len(size) + len(state), size, state)
        return b"*8" + made[2:] + ledger if ledger else made

    def write_newer(self, entities: Sequence[str], states: Sequence[bytes], stamps: Sequence[int]) -> int:
        """Put those in place whose stamp (µs) is later than the one there, as Feast's writer does; returns how many.

        Ledgers stay as they are, for there may be another writer.
        """
        stamp_field = f"_ts:{self._view}".encode()
        replies = self._wire.exchange([command(b"HGET", self._keys.of(entity), stamp_field) for entity in entities])
        there = [None if reply is None else Timestamp.FromString(reply).ToMicroseconds() for reply in replies]
        newer = [n for n, (old, new) in enumerate(zip(there, stamps, strict=True)) if old is None or new > old]
        self.write([entities[n] for n in newer], [states[n] for n in newer], [stamps[n] for n in newer])
        return len(newer)

    def forget_others(self, entities: Iterable[str]) -> int:
        """Remove the states of all other entities; returns how many had one. Goes through every key of the Redis."""
        kept = {self._keys.of(entity) for entity in entities}
        fields = (self._field, f"_ts:{self._view}".encode(), self._ledger_field)
        removed, cursor = 0, b"0"
        while True:
            (reply,) = self._wire.exchange([command(b"SCAN", cursor, b"COUNT", b"2000", b"TYPE", b"hash")])
            cursor, found = reply
            gone = self._wire.exchange([command(b"HDEL", key, *fields) for key in found if key not in kept])
            removed += sum(count > 0 for count in gone)
            if cursor == b"0":
                return removed

    def _ledger_of(self, one: Sealed) -> bytes:
        return b"" if one.saved else _bulk(self._ledger_field) + _bulk(one.ledger)


def _bulk(part: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(part), part)


def _stored(state: bytes | None, ledger: bytes | None) -> Stored | None:
    return Sealed(state, ledger, saved=True) if state is not None and ledger else state


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
    at = 2  # the field's tag and its length, seven bits in a byte; the field is all there is
    while message[at - 1] >= 0x80:
        at += 1
    return message[at:]
