"""The gate: the one path from transactions to answers, whichever lane they came in by.

An answer exists only when its decision is on record, and one call uses one model from beginning to end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Protocol

from bentos.answers import Answer, BatchAnswer, ModelCard, Rejected
from bentos.decisions import DecisionLog
from bentos.errors import INVALID_INPUT
from bentos.features import FeatureReader, is_unknown_category
from bentos.intake import Item, Limits, check_instant, check_size, rejected
from bentos.model import LoadedModel
from bentos.scoring import Scored, answer, score
from feature_repo.schema import InvalidTransaction, Transaction
from monitoring.metrics import metrics, record_amounts

THREADS = 4
"""Requests that wait for Redis at once, per worker process."""


class Decider(Protocol):
    """What a lane needs of the gate. `started` is `time.perf_counter()` when the request was complete."""

    @property
    def limits(self) -> Limits: ...

    def card(self) -> ModelCard: ...

    async def predict(self, transaction: Transaction, started: float) -> Answer:
        """Decide one payment. Raises `InvalidTransaction` for its instant, `Unavailable`, `InvalidScore`."""
        ...

    async def predict_batch(self, items: Sequence[Item], started: float) -> BatchAnswer:
        """Decide the payments among the items, keep the rejections. Raises what `predict` does, less the first."""
        ...


class Gate:
    """The `Decider` of the service. `model` may be replaced at any time; calls under way finish with theirs."""

    def __init__(
        self,
        model: LoadedModel,
        reader: FeatureReader,
        log: DecisionLog,
        limits: Limits,
        now: Callable[[], datetime],
    ) -> None:
        self.limits = limits
        self._reader = reader
        self._log = log
        self._now = now
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gate")
        self.serve(model)

    def serve(self, model: LoadedModel) -> None:
        """Put a model in service, from the next call on."""
        self.model = model
        metrics.active_model_version.labels(model_name=model.name, version=model.version).set(1)

    def card(self) -> ModelCard:
        """The model in service."""
        return self.model.card()

    def ready(self) -> bool:
        """Whether a payment sent now could be decided and put on record."""
        return self._log.alive()

    async def predict(self, transaction: Transaction, started: float) -> Answer:
        """See `Decider`."""
        check_instant(transaction, self._now(), self.limits)
        return (await self._decide([transaction], started))[0]

    async def predict_batch(self, items: Sequence[Item], started: float) -> BatchAnswer:
        """See `Decider`."""
        check_size(items, self.limits)
        now = self._now()
        checked = [self._on_time(item, now) for item in items]
        transactions = [item for item in checked if isinstance(item, Transaction)]
        metrics.errors.labels(error_type=INVALID_INPUT).inc(len(checked) - len(transactions))
        answers = iter(await self._decide(transactions, started) if transactions else ())
        return BatchAnswer(results=[item if isinstance(item, Rejected) else next(answers) for item in checked])

    def close(self) -> None:
        """Finish what is under way and end the threads."""
        self._threads.shutdown(wait=True)

    def _on_time(self, item: Item, now: datetime) -> Item:
        if isinstance(item, Transaction):
            try:
                check_instant(item, now, self.limits)
            except InvalidTransaction as error:
                return rejected(item.transaction_id, error)
        return item

    async def _decide(self, transactions: Sequence[Transaction], started: float) -> list[Answer]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self.decide, transactions, started)

    def decide(self, transactions: Sequence[Transaction], started: float) -> list[Answer]:
        """Read, score, put on record, answer: blocking, in the calling thread."""
        model = self.model
        with metrics.feature_latency.time():
            features = self._reader.read(transactions)
        scored = score(model, transactions, features)
        decided_at = self._now()
        self._log.append(scored, model, decided_at)
        latency = time.perf_counter() - started
        _count(scored, model, latency)
        return [answer(one, model, decided_at, round(latency * 1e3, 3)) for one in scored]


def _count(scored: Sequence[Scored], model: LoadedModel, latency: float) -> None:
    metrics.prediction_latency.observe(latency)
    metrics.total_transactions.inc(len(scored))
    metrics.decisions_logged.inc(len(scored))
    record_amounts(one.transaction.amount for one in scored)
    for one in scored:
        metrics.score.observe(one.probability)
        metrics.predictions.labels(model_version=model.version, prediction=one.decision).inc()
        if one.risk_level == "high":
            metrics.high_risk_transactions.inc()
        if one.feature_age_seconds is not None:
            metrics.feature_age.observe(one.feature_age_seconds)
        if one.degraded_cause is not None:
            metrics.degraded_answers.labels(cause=one.degraded_cause).inc()
        if is_unknown_category(one.transaction):
            metrics.unknown_categories.inc()
