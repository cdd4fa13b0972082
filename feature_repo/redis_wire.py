"""Feast's online store at the level of Redis itself: its keys from a template, and many commands in one round trip.

Feast plans each call anew and packs each key through protobuf; here what doesn't change between entities is made once,
by Feast, and checked against Feast.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from feast.infra.online_stores.helpers import _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

_SAMPLE = "a sample name"


class UnknownLayout(RuntimeError):
    """This Feast writes keys or values in another form than the templates assume."""


class EntityKeys:
    """The Redis keys of the entities of one text join key."""

    def __init__(self, config: Any, join_key: str) -> None:
        self._config, self._join_key = config, join_key
        middle = _sized(_SAMPLE)
        self._head, found, self._tail = self._by_feast(_SAMPLE).rpartition(middle)
        for name in ("", "other", "ünï"):
            if not found or self._by_feast(name) != self.of(name):
                raise UnknownLayout("This Feast makes Redis keys in another form; pin the version of the lock file.")

    def of(self, entity: str) -> bytes:
        """The key under which Feast keeps an entity's features."""
        return b"".join((self._head, _sized(entity), self._tail))

    def _by_feast(self, entity: str) -> bytes:
        key = EntityKey(join_keys=[self._join_key], entity_values=[Value(string_val=entity)])
        made: bytes = _redis_key(self._config.project, key, self._config.entity_key_serialization_version)
        return made


def _sized(entity: str) -> bytes:
    name = entity.encode()
    return struct.pack("<I", len(name)) + name


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
        if not commands:
            return []
        packed = [b"".join(commands)]
        connection = self._pool.get_connection()
        try:

            def once() -> list[Any]:
                connection.send_packed_command(packed)
                return [connection.read_response(disable_decoding=True) for _ in commands]

            replies: list[Any] = self._retry.call_with_retry(once, lambda _: connection.disconnect())
        except BaseException:  # replies left unread would be taken for those of the next commands
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)
        return replies
