"""The gate: the one path from payments to answers, whichever lane they came in by.

An answer exists only when its decision is on record, and one batch uses one line-up of models from beginning to end.
Everything happens on the worker's event loop: between its two round trips, to the features and to the log, a batch is
computed in one go.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from bentos.answers import ModelCard, Rejected
from bentos.batcher import Batcher, Waiting, Waits
from bentos.decisions import DecisionLog, Entry, Mark
from bentos.errors import INVALID_INPUT, already_decided
from bentos.intake import Item, Limits, check_instant, check_size, rejected
from bentos.judging import Judge
from bentos.lineup import Lineup
from bentos.online import OnlineFeatures
from bentos.payments import Asked, asked
from bentos.scoring import Scored, answer
from bentos.tally import Tally
from bentos.traced import Trail
from feature_repo.schema import InvalidTransaction, Transaction
from feature_repo.window_state import to_us
from monitoring.decision_log import encode
from monitoring.metrics import metrics
from monitoring.tracing import Traces

MARGIN = timedelta(days=1)
"""How much longer than its payment may be sent again a claim is kept: clocks differ."""


class Decider(Protocol):
    """What a lane needs of the gate. `started` is `time.perf_counter()` when the request was complete."""

    @property
    def limits(self) -> Limits: ...

    def card(self) -> ModelCard: ...

    def offer(self, waiting: Waits) -> None:
        """Decide one payment, which gets the JSON of its `Answer`, or `Refused` (409) or `Unavailable` in its place.

        Raises `InvalidTransaction` for its instant.
        """
        ...

    async def predict(self, asked: Asked, started: float) -> bytes:
        """As `offer`, for who awaits the answer: the JSON of the `Answer`; raises what `offer` gives in its place."""
        ...

    async def predict_batch(self, items: Sequence[Item], started: float) -> bytes:
        """Decide the payments among the items, keep the rejections: the JSON of a `BatchAnswer`."""
        ...


class Gate:
    """The `Decider` of the service; for one event loop."""

    def __init__(
        self,
        judge: Judge,
        lineup: Callable[[], Lineup],
        card: Callable[[], ModelCard],
        online: OnlineFeatures,
        log: DecisionLog,
        limits: Limits,
        now: Callable[[], datetime],
        shadow: Callable[[Sequence[Scored]], None] = lambda scored: None,
        traces: Traces | None = None,
    ) -> None:
        self.limits, self.card = limits, card
        self._judge, self._lineup, self._online, self._log = judge, lineup, online, log
        self._now, self._shadow = now, shadow
        self._traces = traces
        self._batcher, self._tally = Batcher(self._decide), Tally()
        keep = None if limits.max_age is None else limits.max_age + limits.max_future + MARGIN
        self._keep_us = None if keep is None else keep // timedelta(microseconds=1)

    async def ready(self) -> bool:
        """Whether a payment sent now could be decided and put on record."""
        decided = self._lineup().fallback is not None or await self._online.alive()
        return decided and await self._log.alive()

    def warm_up(self) -> None:
        """Decide a payment that nobody sent, of a card that nobody has, for no record: everything compiles."""
        now = self._now()
        nobody = asked(Transaction(transaction_id="-", timestamp=now, card_id="-", merchant_id="-", amount=1.0))
        question = self._online.reader.ask([nobody])
        nothing = self._online.reader.answer(question, self._online.reader.nothing(question))
        for one in self._judge.judge(self._lineup(), [nobody], nothing):
            if isinstance(one, Scored):
                answer(one, now.isoformat(), 0.0)

    def offer(self, waiting: Waits) -> None:
        """See `Decider`."""
        check_instant(waiting.asked, to_us(self._now()), self.limits)
        self._batcher.add([waiting])

    async def predict(self, asked: Asked, started: float) -> bytes:
        """See `Decider`."""
        waiting = Waiting(asked, started, asyncio.get_running_loop())
        self.offer(waiting)
        return await waiting.done

    async def predict_batch(self, items: Sequence[Item], started: float) -> bytes:
        """See `Decider`."""
        check_size(items, self.limits)
        loop, now = asyncio.get_running_loop(), to_us(self._now())
        places: list[Waiting | Rejected] = []
        for item in items:
            checked = self._on_time(item, now)
            places.append(checked if isinstance(checked, Rejected) else Waiting(checked, started, loop))
        waiting = [place for place in places if isinstance(place, Waiting)]
        metrics.errors.labels(error_type=INVALID_INPUT).inc(len(places) - len(waiting))
        self._batcher.add(waiting)
        return b'{"results":[%b]}' % b",".join([await _result(place) for place in places])

    async def close(self) -> None:
        """Finish what is under way."""
        await self._batcher.drain()
        self._tally.close()
        if self._traces is not None:
            await asyncio.to_thread(self._traces.close)
        self._online.close()
        self._log.close()

    def _on_time(self, item: Item, now: int) -> Item:
        if isinstance(item, Asked):
            try:
                check_instant(item, now, self.limits)
            except InvalidTransaction as error:
                return rejected(item.payment.transaction_id, error)
        return item

    async def _decide(self, batch: Sequence[Waits]) -> None:
        """Read, score, put on record, answer."""
        if self._traces is None:
            await self._work(batch, None)
            return
        trail = Trail(self._traces, batch)
        try:
            await self._work(batch, trail)
        finally:
            trail.end()

    async def _work(self, batch: Sequence[Waits], trail: Trail | None) -> None:
        decided: list[tuple[Waits, Scored]] = []
        lineup = self._lineup()
        groups = await self._online.read([waiting.asked for waiting in batch])
        if trail is not None:
            trail.mark()
        for places, rows in groups:
            group = [batch[place] for place in places] if len(places) != len(batch) else batch
            judged = self._judge.judge(lineup, [each.asked for each in group], rows)
            for waiting, one in zip(group, judged, strict=True):
                if isinstance(one, Scored):
                    decided.append((waiting, one))
                else:
                    waiting.fail(one)
        if trail is not None:
            trail.mark()
        if decided:
            await self._record(decided, trail)

    async def _record(self, decided: Sequence[tuple[Waits, Scored]], trail: Trail | None) -> None:
        at = self._now().isoformat().replace("+00:00", "Z")
        over = time.perf_counter()
        latencies = [over - waiting.started for waiting, _ in decided]
        entries = [
            self._entry(one, answer(one, at, round(latency * 1e3, 3)))
            for (_, one), latency in zip(decided, latencies, strict=True)
        ]
        if trail is not None:
            entries = [trail.named(*of, entry) for of, entry in zip(decided, entries, strict=True)]
        made: list[tuple[Scored, float]] = []
        outcomes = await self._log.append(entries)
        if trail is not None:
            trail.mark()
        for (waiting, one), entry, outcome, latency in zip(decided, entries, outcomes, latencies, strict=True):
            if outcome is Mark.RECORDED:
                made.append((one, latency))
                waiting.answer(entry.answer)
            elif outcome is Mark.CONFLICT or not outcome:
                metrics.decision_conflicts.inc()
                waiting.fail(already_decided(entry.transaction_id))
            else:
                metrics.decisions_repeated.inc()
                waiting.answer(outcome)
        if made:
            self._tally.take([one for one, _ in made], [latency for _, latency in made])
            self._shadow([one for one, _ in made])

    def _entry(self, one: Scored, told: bytes) -> Entry:
        asked = one.asked
        expires = 0 if self._keep_us is None else (asked.at + self._keep_us) // 1_000
        fields = encode(asked.request(), one.vector, told, one.model.contract.feature_service)
        return Entry(asked.payment.transaction_id, asked.digest(), expires, *fields)


async def _result(place: Waiting | Rejected) -> bytes:
    """A payment's answer or error as its place in a batch."""
    if isinstance(place, Waiting):
        try:
            return await place.done
        except Exception as error:
            place = rejected(place.asked.payment.transaction_id, error)
    return place.model_dump_json().encode()
