"""What is counted of decisions: each metric touched once for many, for a touch costs a tenth of a decision."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bentos.features import is_unknown_category
from bentos.scoring import Scored
from feature_repo.settings import settings
from monitoring.declaration import observe_many
from monitoring.metrics import metrics, record_amounts

LATER = 0.2
"""Seconds after which decisions are counted; at a scrape the metrics may be that much behind."""

NULLS_LATER = 1.0
"""Seconds after which nulls are counted: a metric for each column, so that each time costs as much as 50 decisions."""

MOST = 512
"""Decisions that are counted at once, whatever the time."""


class Tally:
    """Gathers decisions that are on record and counts them a little later; for one event loop."""

    def __init__(self) -> None:
        self._scored: list[Scored] = []
        self._latencies: list[float] = []
        self._later: asyncio.TimerHandle | None = None
        self._nulls = _Nulls()
        self._on = settings().metrics

    def take(self, scored: Sequence[Scored], latencies: Sequence[float]) -> None:
        """Take decisions to be counted; `latencies` in seconds."""
        if not self._on:
            return
        self._scored += scored
        self._latencies += latencies
        if len(self._scored) >= MOST:
            self.count()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(LATER, self.count)

    def count(self) -> None:
        """Count what was taken."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        scored, latencies = self._scored, self._latencies
        self._scored, self._latencies = [], []
        if scored:
            count(scored, latencies)
            self._nulls.take(scored)

    def close(self) -> None:
        """Count what is left."""
        self.count()
        self._nulls.tell()


class _Nulls:
    """How often each column was null, told to its metrics once for many payments: there are as many as columns."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, ...], npt.NDArray[np.int64]] = {}
        self._later: asyncio.TimerHandle | None = None

    def take(self, scored: Sequence[Scored]) -> None:
        """Note nulls. The fallback's vectors are left out: what it sees is never null by accident."""
        for model in {id(one.model): one.model for one in scored if one.model.role != "fallback"}.values():
            nulls = np.isnan(np.stack([one.vector for one in scored if one.model is model])).sum(axis=0)
            columns = model.contract.columns
            self._found[columns] = self._found.get(columns, 0) + nulls
        if self._later is None:
            self._later = asyncio.get_running_loop().call_later(NULLS_LATER, self.tell)

    def tell(self) -> None:
        """Count what was noted."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        found, self._found = self._found, {}
        for columns, nulls in found.items():
            for place in np.flatnonzero(nulls).tolist():
                metrics.served_nulls.labels(feature=columns[place]).inc(int(nulls[place]))


def count(scored: Sequence[Scored], latencies: Sequence[float]) -> None:
    """Count decisions that are on record; `latencies` in seconds."""
    metrics.total_transactions.inc(len(scored))
    metrics.decisions_logged.inc(len(scored))
    observe_many(metrics.prediction_latency, np.array(latencies, np.float64))
    observe_many(metrics.score, np.array([one.probability for one in scored], np.float64))
    record_amounts([one.asked.payment.amount for one in scored])
    for (version, decision), number in Counter([(_version(one), one.decision) for one in scored]).items():
        _predictions(version, decision).inc(number)
    passed = sum(one.control_group for one in scored)
    if passed:
        metrics.control_group.inc(passed)
    high = sum(one.risk_level == "high" for one in scored)
    if high:
        metrics.high_risk_transactions.inc(high)
    ages = [one.feature_age_seconds for one in scored if one.feature_age_seconds is not None]
    if ages:
        observe_many(metrics.feature_age, np.array(ages, np.float64))
    for cause, number in Counter([one.degraded_cause for one in scored if one.degraded_cause is not None]).items():
        metrics.degraded_answers.labels(cause=cause).inc(number)
    unknown = sum(is_unknown_category(one.asked) for one in scored)
    if unknown:
        metrics.unknown_categories.inc(unknown)


def _version(one: Scored) -> str:
    """The fallback is another model, and counts its versions from 1 like every model."""
    return "fallback" if one.model.role == "fallback" else one.model.version


@cache
def _predictions(version: str, decision: str) -> Any:
    """The counter itself; looking it up takes longer than counting."""
    return metrics.predictions.labels(model_version=version, prediction=decision)
