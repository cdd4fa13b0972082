"""The decision log in Kafka: claimed in Redis, confirmed by every in-sync replica, then answered.

A payment is claimed with its whole decision before that is sent. So a service that dies in between leaves what it would
have sent: whoever gets the payment again sends that, and answers that. A decision may lie in the topic twice for it;
the table `decisions` has it once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaException
from redis.exceptions import RedisError

from bentos.decisions import Entry, Mark, Outcome, in_stream
from bentos.errors import Unavailable
from bentos.kafka_sender import Sender
from bentos.wire import Wire, alive
from feature_repo.settings import Settings
from monitoring.decision_claim import CONFIRMED, DIGEST, WAITING, KafkaClaim, claim, read_claim
from monitoring.decision_log import LoggedDecision, claim_key
from monitoring.decision_message import Message, key, logged, pack, unpack

# KEYS: the claims. ARGV: for each when it expires (ms, 0: never) and what it is. Gives for each the one that was there.
_CLAIM = b"""
local given = {}
for i = 1, #KEYS do
  given[i] = redis.call('GET', KEYS[i])
  if not given[i] then
    if ARGV[2 * i - 1] == '0' then
      redis.call('SET', KEYS[i], ARGV[2 * i])
    else
      redis.call('SET', KEYS[i], ARGV[2 * i], 'PXAT', ARGV[2 * i - 1])
    end
  end
end
return given
"""
# KEYS: the claims. ARGV: for each how it begins while it waits.
_CONFIRM = b"""
for i = 1, #KEYS do
  local found = redis.call('GETRANGE', KEYS[i], 0, %d)
  if found == ARGV[i] then redis.call('SETRANGE', KEYS[i], %d, '%s') end
end
""" % (DIGEST, DIGEST, CONFIRMED)


class KafkaDecisionLog:
    """A `DecisionLog`; for one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._stream = settings.decisions_stream
        self._timeout = settings.log_timeout
        self._wire = Wire(settings.redis_url, settings.log_timeout)
        self._sender = Sender(settings, settings.decisions_stream, settings.log_timeout)
        self._confirming: set[asyncio.Task[None]] = set()

    async def append(self, entries: Sequence[Entry]) -> list[Outcome]:
        """See `DecisionLog`."""
        try:
            bodies = [
                pack(Message(one.request, one.vector, one.answer, one.service.decode(), one.trace.decode()))
                for one in entries
            ]
            claims = await self._claim(entries, bodies)
            unsent: dict[str, tuple[bytes, bytes]] = {}  # by payment: its digest and its message
            outcomes: list[Outcome] = []
            for entry, body, found in zip(entries, bodies, claims, strict=True):
                said = KafkaClaim(entry.digest, False, body) if found is None else read_claim(found)
                if found is not None and found[:DIGEST] != entry.digest:
                    outcomes.append(Mark.CONFLICT)
                    continue
                if isinstance(said, str):
                    outcomes.append(await self._answer_in_stream(said))
                    continue
                outcomes.append(Mark.RECORDED if found is None else unpack(said.body).answer)
                if not said.confirmed:
                    unsent.setdefault(entry.transaction_id, (entry.digest, said.body))
            await self._send(unsent)
        except (RedisError, KafkaException, BufferError, TimeoutError) as error:
            raise Unavailable("decision_log", error) from error
        return outcomes

    async def find(self, transaction_id: str) -> LoggedDecision | None:
        """See `DecisionLog`."""
        try:
            found = await self._ask(b"GET", claim_key(self._stream, transaction_id).encode())
            if found is None:
                return None
            said = read_claim(found)
            if isinstance(said, KafkaClaim):
                return logged("claim", said.body)
            return await in_stream(self._ask, self._stream, said.encode())
        except RedisError as error:
            raise Unavailable("decision_log", error) from error

    async def alive(self) -> bool:
        """See `DecisionLog`: both Redis and a broker that has the topic answer."""
        return await alive(self._wire, self._timeout) and await self._sender.alive()

    def close(self) -> None:
        """See `DecisionLog`."""
        self._sender.close()
        self._wire.close()

    async def _claim(self, entries: Sequence[Entry], bodies: Sequence[bytes]) -> list[bytes | None]:
        keys = [claim_key(self._stream, one.transaction_id).encode() for one in entries]
        values = zip(entries, bodies, strict=True)
        rest = [part for one, body in values for part in (b"%d" % one.expires_ms, claim(one.digest, body))]
        found: list[bytes | None] = await self._ask(b"EVAL", _CLAIM, b"%d" % len(keys), *keys, *rest)
        return found

    async def _send(self, unsent: dict[str, tuple[bytes, bytes]]) -> None:
        if not unsent:
            return
        await self._sender.send([(key(unpack(body).request), body) for _, body in unsent.values()])
        # Nobody need wait for this: a claim that is not marked is sent once more, and found in the table already.
        task = asyncio.get_running_loop().create_task(self._confirm(unsent))
        self._confirming.add(task)
        task.add_done_callback(self._confirming.discard)

    async def _confirm(self, sent: dict[str, tuple[bytes, bytes]]) -> None:
        keys = [claim_key(self._stream, identifier).encode() for identifier in sent]
        with contextlib.suppress(RedisError):
            await self._ask(
                b"EVAL", _CONFIRM, b"%d" % len(keys), *keys, *(digest + WAITING for digest, _ in sent.values())
            )

    async def _answer_in_stream(self, entry: str) -> bytes:
        """The answer of a decision that was logged while Redis was the log."""
        found = await in_stream(self._ask, self._stream, entry.encode())
        return b"" if found is None else found.answer

    async def _ask(self, *parts: bytes) -> Any:
        return await self._wire.ask(*parts, timeout=self._timeout)
