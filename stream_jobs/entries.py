"""Entries of a Redis Stream, with all their fields, for the one job that carries them on.

What was given and not acknowledged comes again before anything new, in the batches it was given in: a batch is at most
`BATCH` entries, and the next is given only when it is acknowledged or given up.
"""

from __future__ import annotations

from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from stream_jobs.transports.redis_streams import CONSUMER, connect

BATCH = 2_000

Entry = tuple[str, dict[bytes, bytes]]
"""An identifier and the fields."""


class Entries:
    """One group's view of one stream. Raises `redis.RedisError`; call `again` after one, or after any failure."""

    def __init__(self, url: str, stream: str, group: str) -> None:
        self._client = connect(url)
        self._stream, self._group = stream, group
        self._given: list[str] = []
        self._replaying, self._joined = True, False

    @property
    def client(self) -> Redis:
        """The connection, for what else a carrier keeps beside the stream."""
        return self._client

    @property
    def given(self) -> list[str]:
        """Identifiers of the last batch, also of entries that were deleted before they were given."""
        return self._given

    def take(self, wait: float) -> list[Entry]:
        """The next batch; waits up to so many seconds for one."""
        if self._replaying:
            found = self._read("0", None)
            self._replaying = bool(found)
            if found:
                return self._batch(found)
        return self._batch(self._read(">", max(int(wait * 1_000), 1)))

    def again(self) -> None:
        """Give the last batch once more: it was not carried."""
        self._replaying, self._joined = True, False

    def done(self) -> None:
        """The last batch is carried: forget it."""
        if self._given:
            self._client.xack(self._stream, self._group, *self._given)

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _batch(self, found: list[Any]) -> list[Entry]:
        self._given = [entry.decode() for entry, _ in found]
        return [(entry.decode(), fields) for entry, fields in found if fields]

    def _read(self, after: str, wait: int | None) -> list[Any]:
        if not self._joined:
            self._join()
        found: Any = self._client.xreadgroup(self._group, CONSUMER, {self._stream: after}, count=BATCH, block=wait)
        return found[0][1] if found else []

    def _join(self) -> None:
        try:
            self._client.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._joined = True
