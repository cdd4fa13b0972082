"""The features of a batch within their budget, or the word that there are none: a payment never waits for Redis.

Raises nothing of Redis's: what cannot be read is left out, counted, and its payments are decided without it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from google.protobuf.message import DecodeError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bentos.breaker import Breaker
from bentos.compiled import CompiledReader, Question
from bentos.features import FeatureRows
from bentos.payments import Asked
from bentos.wire import Wire, alive
from feature_repo.redis_wire import command
from feature_repo.settings import Settings
from feature_repo.window_layout import InvalidState
from monitoring.metrics import metrics

Group = tuple[list[int], FeatureRows | None]
"""Places in the batch and their features; None where they could not be read."""

UNREADABLE = (InvalidState, DecodeError)
"""What stored bytes amount to that are no state, or no value of Feast's at all."""

OPENING_SECONDS = 1.0
"""For the first connection, which is made before the first payment."""


class OnlineFeatures:
    """The online store over one connection; for one event loop."""

    def __init__(self, reader: CompiledReader, settings: Settings) -> None:
        self.reader = reader
        self._wire = Wire(settings.redis_url, settings.feature_timeout)
        self._budget = settings.feature_budget
        self._timeout = settings.feature_timeout
        self._breaker = Breaker(time.monotonic)
        self._open_told = False
        self._progress = command(b"HVALS", settings.progress_key.encode())
        limit = settings.features_stale_after
        self._stale_ms = None if limit is None else limit.total_seconds() * 1e3

    async def open(self) -> bool:
        """Connect; whether Redis answers."""
        return await alive(self._wire, OPENING_SECONDS)

    async def alive(self) -> bool:
        """Whether Redis answers now."""
        return await alive(self._wire, self._timeout)

    async def read(self, payments: Sequence[Asked]) -> list[Group]:
        """The features of every payment, in as few groups as may be."""
        everything = list(range(len(payments)))
        if not self._breaker.closed():
            metrics.features_unavailable.labels(cause="open").inc()
            return [(everything, None)]
        question = self.reader.ask(payments)
        commands = question.commands if self._stale_ms is None else [*question.commands, self._progress]
        began = time.perf_counter()
        try:
            replies = await self._wire.exchange(commands, self._budget)
        except RedisError as error:
            self._breaker.failed()
            self._tell_breaker()
            cause = "timeout" if isinstance(error, RedisTimeoutError) else "error"
            metrics.features_unavailable.labels(cause=cause).inc()
            return [(everything, None)]
        self._breaker.succeeded()
        self._tell_breaker()
        stale = self._stale_ms is not None and self._is_stale(replies.pop())
        try:
            return [(everything, replace(self.reader.answer(question, replies), stale=stale))]
        except UNREADABLE:
            return self._one_by_one(question, replies, stale)
        finally:
            metrics.feature_latency.observe(time.perf_counter() - began)

    def _tell_breaker(self) -> None:
        if self._breaker.open != self._open_told:
            self._open_told = self._breaker.open
            metrics.breaker_open.set(self._open_told)

    def _is_stale(self, up_to: Sequence[bytes]) -> bool:
        """Whether the stream's last word on one of its partitions is too old; false where it never said a word."""
        return bool(up_to) and time.time() * 1e3 - min(map(int, up_to)) > (self._stale_ms or 0.0)

    def close(self) -> None:
        """Give the connection back."""
        self._wire.close()

    def _one_by_one(self, question: Question, replies: Sequence[Sequence[bytes | None]], stale: bool) -> list[Group]:
        """One entity's stored bytes are no state: only its payments go without."""
        groups: list[Group] = []
        for place, payment in enumerate(question.payments):
            alone = self.reader.ask([payment])
            try:
                rows = self.reader.answer(alone, question.replies_of(place, replies))
                groups.append(([place], replace(rows, stale=stale)))
            except UNREADABLE:
                metrics.features_unavailable.labels(cause="unreadable").inc()
                groups.append(([place], None))
        return groups
