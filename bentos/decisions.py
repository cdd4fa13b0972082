"""Decisions on their way into the log: appended before their answers leave, each payment once.

An append is one call of a script in Redis for a whole batch, so that a decision and the claim to its payment stand or
fall together. A payment that was decided before is told so and appended to nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from hashlib import sha1
from typing import Any, NamedTuple, Protocol

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from bentos.errors import Unavailable
from bentos.wire import Wire, alive
from feature_repo.settings import Settings
from monitoring.decision_claim import DIGEST
from monitoring.decision_log import FIELDS, LoggedDecision, claim_key, decode


class Entry(NamedTuple):
    """A decision to be put on record; `expires_ms` is when its payment is too old to be sent again, 0 for never.

    `trace` is the `traceparent` of its trace; empty where it is not traced.
    """

    transaction_id: str
    digest: bytes
    expires_ms: int
    request: bytes
    vector: bytes
    answer: bytes
    service: bytes
    trace: bytes = b""


class Mark(Enum):
    """What became of an entry, where it is not that another answer stands in its place."""

    RECORDED = "recorded"
    CONFLICT = "conflict"
    """Another payment was decided under the same identifier."""


Outcome = Mark | bytes
"""A `Mark`, or the answer that the payment was given before."""


class DecisionLog(Protocol):
    """Where decisions go on record."""

    async def append(self, entries: Sequence[Entry]) -> list[Outcome]:
        """Put decisions on record; when it returns they are. Raises `Unavailable` where they are not, or may not be."""
        ...

    async def find(self, transaction_id: str) -> LoggedDecision | None:
        """The decision on a payment; raises `Unavailable`."""
        ...

    async def alive(self) -> bool:
        """Whether a decision could be put on record now."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


# KEYS: the stream, then a claim for each entry. ARGV: for each entry its digest, when its claim expires (ms, 0: never)
# the fields' values, and its trace or nothing. Gives for each 1 (recorded), 0 (conflict) or the earlier answer.
SCRIPT = b"""
local given = {}
for i = 2, #KEYS do
  local a = (i - 2) * 7
  local claim = redis.call('GET', KEYS[i])
  if claim then
    if string.sub(claim, 1, 16) == ARGV[a + 1] then
      local id = string.sub(claim, 17)
      local found = redis.call('XRANGE', KEYS[1], id, id)
      given[i - 1] = found[1] and found[1][2][6] or ''
    else
      given[i - 1] = 0
    end
  else
    local id
    if ARGV[a + 7] == '' then
      id = redis.call('XADD', KEYS[1], '*', 'request', ARGV[a + 3], 'vector', ARGV[a + 4], 'answer', ARGV[a + 5],
        'service', ARGV[a + 6])
    else
      id = redis.call('XADD', KEYS[1], '*', 'request', ARGV[a + 3], 'vector', ARGV[a + 4], 'answer', ARGV[a + 5],
        'service', ARGV[a + 6], 'trace', ARGV[a + 7])
    end
    if ARGV[a + 2] == '0' then
      redis.call('SET', KEYS[i], ARGV[a + 1] .. id)
    else
      redis.call('SET', KEYS[i], ARGV[a + 1] .. id, 'PXAT', ARGV[a + 2])
    end
    given[i - 1] = 1
  end
end
return given
"""
_SHA = sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()
_MARKS = {1: Mark.RECORDED, 0: Mark.CONFLICT}


class RedisDecisionLog:
    """The log in a Redis Stream; for one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._stream = settings.decisions_stream
        self._timeout = settings.log_timeout
        self._wire = Wire(settings.redis_url, settings.log_timeout)

    async def append(self, entries: Sequence[Entry]) -> list[Outcome]:
        """See `DecisionLog`."""
        try:
            found = await self._call(entries)
        except RedisError as error:
            raise Unavailable("decision_log", error) from error
        return [_MARKS[one] if isinstance(one, int) else one for one in found]

    async def find(self, transaction_id: str) -> LoggedDecision | None:
        """See `DecisionLog`."""
        try:
            claim = await self._ask(b"GET", claim_key(self._stream, transaction_id).encode())
            return None if claim is None else await in_stream(self._ask, self._stream, claim[DIGEST:])
        except RedisError as error:
            raise Unavailable("decision_log", error) from error

    async def alive(self) -> bool:
        """See `DecisionLog`."""
        return await alive(self._wire, self._timeout)

    def close(self) -> None:
        """See `DecisionLog`."""
        self._wire.close()

    async def _call(self, entries: Sequence[Entry]) -> list[Any]:
        keys = [self._stream.encode()] + [claim_key(self._stream, one.transaction_id).encode() for one in entries]
        arguments: list[bytes] = []
        for one in entries:
            arguments += (
                one.digest, b"%d" % one.expires_ms, one.request, one.vector, one.answer, one.service, one.trace
            )  # fmt: skip
        rest = (b"%d" % len(keys), *keys, *arguments)
        try:
            given: list[Any] = await self._ask(b"EVALSHA", _SHA, *rest)
        except ResponseError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
            given = await self._ask(b"EVAL", SCRIPT, *rest)
        return given

    async def _ask(self, *parts: bytes) -> Any:
        return await self._wire.ask(*parts, timeout=self._timeout)


async def in_stream(ask: Callable[..., Awaitable[Any]], stream: str, entry: bytes) -> LoggedDecision | None:
    """The entry of a Redis Stream with this identifier; `ask` gives the reply to one command."""
    page = await ask(b"XRANGE", stream.encode(), entry, entry)
    if not page:
        return None
    identifier, flat = page[0]
    return decode(identifier.decode(), dict(zip(flat[::2], flat[1::2], strict=True)))


class Conflicts:
    """Keeps decisions on payments that were decided otherwise meanwhile, in a stream of their own. Blocking."""

    def __init__(self, settings: Settings) -> None:
        self._url, self._stream = settings.redis_url, f"{settings.decisions_stream}.conflicts"

    def __call__(self, entry: Entry) -> None:
        """Put one aside; raises what redis-py raises."""
        values: dict[Any, Any] = dict(zip(FIELDS, entry[3 : 3 + len(FIELDS)], strict=True))
        with Redis.from_url(self._url) as client:
            client.xadd(self._stream, values)


if FIELDS[2] != b"answer":
    raise TypeError("The script reads the answer from the third field of an entry.")
