"""Where the sink takes decisions from: the Redis Stream or the Kafka topic that the service appends to.

A batch that was given is given again after a crash or a failure, until it is told to be done.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Protocol

import numpy as np

from feature_repo.settings import Settings
from monitoring.decision_chain import Anchor, carried_key
from monitoring.decision_log import LoggedDecision, decode
from stream_jobs.entries import Entries
from stream_jobs.kafka_decisions import KafkaDecisions


class DecisionSource(Protocol):
    """One consumer of the decision log, for one thread."""

    def take(self, wait: float) -> list[LoggedDecision]:
        """The next batch; waits up to so many seconds for one."""

    def done(self, anchor: Anchor) -> None:
        """The last batch is carried, and the table ended with `anchor` then."""

    def again(self) -> None:
        """The last batch was not carried: it is given once more."""

    def lag(self) -> int:
        """Decisions in the log that are not carried."""

    def tidy(self, now: datetime) -> int:
        """Take out of the log what nobody needs there any more; how many entries that were."""

    def close(self) -> None:
        """End connections."""


# KEYS: the stream, what the sink says of itself. ARGV: group, row number, row hash, entries. How many entries of the
# stream are carried is counted with the acknowledgement itself, so that the lag is exact and costs no look at them.
_DONE = """
local count = redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 4))
redis.call('HINCRBY', KEYS[2], 'kept', count)
if tonumber(ARGV[2]) >= tonumber(redis.call('HGET', KEYS[2], 'seq') or '0') then
  redis.call('HSET', KEYS[2], 'seq', ARGV[2], 'hash', ARGV[3])
end
"""
# ARGV: the oldest identifier that stays.
_TRIM = """
local count = redis.call('XTRIM', KEYS[1], 'MINID', '~', ARGV[1])
if count > 0 then redis.call('HINCRBY', KEYS[2], 'kept', -count) end
return count
"""


class RedisDecisions:
    """The log in a Redis Stream."""

    def __init__(self, current: Settings) -> None:
        self._entries = Entries(current.redis_url, current.decisions_stream, current.decisions_group)
        client = self._entries.client
        self._stream, self._group = current.decisions_stream, current.decisions_group
        self._keys = [current.decisions_stream, carried_key(current.decisions_stream)]
        self._finish, self._trim = client.register_script(_DONE), client.register_script(_TRIM)
        self._window = None if current.max_age is None else current.max_age + current.max_future

    def take(self, wait: float) -> list[LoggedDecision]:
        """See `DecisionSource`."""
        return [_decision(entry, fields) for entry, fields in self._entries.take(wait)]

    def done(self, anchor: Anchor) -> None:
        """See `DecisionSource`."""
        if self._entries.given:
            self._finish(self._keys, [self._group, anchor.seq, anchor.hash, *self._entries.given])

    def again(self) -> None:
        """See `DecisionSource`."""
        self._entries.again()

    def lag(self) -> int:
        """See `DecisionSource`."""
        client = self._entries.client
        kept: Any = client.hget(self._keys[1], "kept")
        held: Any = client.xlen(self._stream)
        return max(int(held) - int(kept or 0), 0)

    def tidy(self, now: datetime) -> int:
        """Entries stay until they are in Postgres and their payment is too old to be sent again.

        Where payments of any age are taken (`max_age` null) that never comes, and nothing goes.
        """
        if self._window is None:
            return 0
        old = int((now - self._window - timedelta(seconds=1)).timestamp() * 1_000), 0
        limit = min(old, self._carried())
        gone = 0
        while limit > (0, 0) and (count := int(self._trim(self._keys, [f"{limit[0]}-{limit[1]}"]))):
            gone += count  # Redis takes out some 10,000 at a time, so that nobody else waits long
        return gone

    def close(self) -> None:
        """See `DecisionSource`."""
        self._entries.close()

    def _carried(self) -> tuple[int, int]:
        """The oldest entry that is not carried, or where the group has read to."""
        client = self._entries.client
        pending: Any = client.xpending(self._stream, self._group)
        groups: Any = client.xinfo_groups(self._stream)
        [given] = [one["last-delivered-id"] for one in groups if one["name"].decode() == self._group]
        milliseconds, _, number = (pending["min"] or given).decode().partition("-")
        return int(milliseconds), int(number)


def _decision(entry: str, fields: dict[bytes, bytes]) -> LoggedDecision:
    try:
        return decode(entry, fields)
    except (KeyError, ValueError):  # the table puts aside what has no answer
        return LoggedDecision(entry, repr(fields).encode(), np.empty(0, np.float32), b"", "")


class Conflicts:
    """Decisions that the service found decided otherwise when it emptied its journal; they are in Redis always."""

    def __init__(self, current: Settings) -> None:
        self._entries = Entries(current.redis_url, f"{current.decisions_stream}.conflicts", current.decisions_group)

    def take(self) -> list[LoggedDecision]:
        """The next batch, which may be empty."""
        return [_decision(entry, fields) for entry, fields in self._entries.take(0.001)]

    def done(self) -> None:
        """The last batch is carried."""
        self._entries.done()

    def again(self) -> None:
        """The last batch was not carried."""
        self._entries.again()

    def close(self) -> None:
        """End the connection."""
        self._entries.close()


def source(current: Settings) -> DecisionSource:
    """The log that the settings name."""
    return KafkaDecisions(current) if current.decision_log == "kafka" else RedisDecisions(current)
