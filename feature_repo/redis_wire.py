"""Feast's online store at the level of Redis itself: its keys from a template, and many commands in one round trip.

Feast plans each call anew and packs each key through protobuf; here what doesn't change between entities is made once,
by Feast, and checked against Feast.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from feast.infra.online_stores.helpers import _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from redis._parsers.hiredis import NOT_ENOUGH_DATA, _HiredisParser
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

_INTEGERS = {"int64_val": struct.Struct("<q"), "int32_val": struct.Struct("<i")}


class UnknownLayout(RuntimeError):
    """This Feast writes keys or values in another form than the templates assume."""


class EntityKeys:
    """The Redis keys of the entities of one join key, which is in `field` of Feast's value message.

    An entity is known by its text also where the key is an integer.
    """

    def __init__(self, config: Any, join_key: str, field: str = "string_val") -> None:
        self._config, self._join_key, self._field = config, join_key, field
        self._integer = _INTEGERS.get(field)
        sample, *others = ("19088743", "0", "-5") if self._integer else ("a sample name", "", "other", "ünï")
        self._head, found, self._tail = self._by_feast(sample).rpartition(self._sized(sample))
        for name in others:
            if not found or self._by_feast(name) != self.of(name):
                raise UnknownLayout("This Feast makes Redis keys in another form; pin the version of the lock file.")

    def of(self, entity: str) -> bytes:
        """The key under which Feast keeps an entity's features."""
        return b"".join((self._head, self._sized(entity), self._tail))

    def _sized(self, entity: str) -> bytes:
        name = entity.encode() if self._integer is None else self._integer.pack(int(entity))
        return struct.pack("<I", len(name)) + name

    def _by_feast(self, entity: str) -> bytes:
        value = Value()
        setattr(value, self._field, entity if self._integer is None else int(entity))
        key = EntityKey(join_keys=[self._join_key], entity_values=[value])
        made: bytes = _redis_key(self._config.project, key, self._config.entity_key_serialization_version)
        return made


def command(*parts: bytes) -> bytes:
    """One command in Redis's protocol."""
    pieces = [b"*%d\r\n" % len(parts)]
    for part in parts:
        pieces.append(b"$%d\r\n" % len(part))
        pieces.append(part)
        pieces.append(b"\r\n")
    return b"".join(pieces)


class Wire:
    """Commands to one Redis and their replies. Safe for several threads: each call takes a connection for itself.

    With `patient`, a lost connection is tried again for about ten seconds, so what is sent must be safe to repeat.
    """

    def __init__(self, client: Any, *, patient: bool) -> None:
        self._pool = client.connection_pool
        backoff = ExponentialBackoff(cap=2, base=0.05)
        self._retry = Retry(backoff, 10 if patient else 0, (RedisConnectionError, RedisTimeoutError))

    def exchange(self, commands: Sequence[bytes]) -> list[Any]:
        """Send all, then read all replies, in order; raises the first error among them."""
        return self.stream(lambda: [commands]) if commands else []

    def stream(self, chunks: Callable[[], Iterable[Sequence[bytes]]]) -> list[Any]:
        """Like `exchange` for commands whose replies are short: Redis works on a chunk while the next one is made."""
        connection = self._pool.get_connection()
        try:

            def once() -> list[Any]:
                sent = 0
                for commands in chunks():
                    connection.send_packed_command([b"".join(commands)])
                    sent += len(commands)
                return _replies(connection, sent)

            replies: list[Any] = self._retry.call_with_retry(once, lambda _: connection.disconnect())
        except BaseException:  # replies left unread would be taken for those of the next commands
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)
        return replies


def _replies(connection: Any, count: int) -> list[Any]:
    """The next replies; raises the first error among them.

    redis-py's own reading costs more for each than Redis took, so only the first goes through it; hiredis gives the
    others. Without hiredis all go through it.
    """
    if not count:
        return []
    found = [connection.read_response(disable_decoding=True)]
    parser = connection._parser
    if not isinstance(parser, _HiredisParser):
        return found + [connection.read_response(disable_decoding=True) for _ in range(count - 1)]
    while len(found) < count:
        reply = parser._reader.gets(False)
        if reply is NOT_ENOUGH_DATA:
            parser.read_from_socket()
        elif isinstance(reply, Exception):
            raise reply
        else:
            found.append(reply)
    return found
