"""Decisions from their log into Postgres, and onto the topic `predictions`. `python -m stream_jobs.decisions`

A decision leaves the log only once it is in the table and, over Kafka, on the topic. After a crash a batch comes again:
the table has each decision once whatever comes, the topic may have it twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
from confluent_kafka import Producer
from redis.exceptions import RedisError

from feature_repo.settings import Settings
from monitoring.catalogue_stream import DecisionsMetrics
from monitoring.decision_log import LoggedDecision
from monitoring.decision_message import key
from monitoring.decision_table import Appended, append, connect, create, put_aside
from monitoring.metrics import metrics
from monitoring.tracing import HEADER, traces
from stream_jobs.carrier import run
from stream_jobs.decision_sources import Conflicts, DecisionSource, source
from stream_jobs.transports.kafka_client import KafkaFailed
from stream_jobs.transports.kafka_producer import connect as connect_kafka
from stream_jobs.transports.kafka_producer import deliver

WAIT = 1.0
"""Seconds a batch is waited for, and a part that is away left alone."""

TIDY = 60.0
"""Seconds between two trims of the log."""

AWAY = (psycopg.OperationalError, psycopg.InterfaceError, RedisError, KafkaFailed)
"""Errors of a server that is away; the batch is tried again until it is back."""

log = logging.getLogger(__name__)


class Sink:
    """Carries batch after batch; `step` may raise one of `AWAY` and is called again then."""

    def __init__(self, current: Settings, log_source: DecisionSource) -> None:
        self._settings, self._source, self._conflicts = current, log_source, Conflicts(current)
        self._table: psycopg.Connection[Any] | None = None
        self._producer: Producer | None = None
        self._told = self._tidied = float("-inf")
        self._traces = traces(current, "decisions")

    def step(self, wait: float = WAIT) -> int:
        """Carry one batch; how many decisions it held."""
        batch = self._source.take(wait)
        if batch:
            began = time.time_ns()
            done = append(self._connected(), batch)
            if self._settings.transport == "kafka":
                self._publish([batch[place] for place in done.recorded])
            self._source.done(done.anchor)
            count(done)
            self._trace([batch[place] for place in done.recorded], began)
        self._keep_house()
        return len(batch)

    def _trace(self, recorded: Sequence[LoggedDecision], began: int) -> None:
        """A span for each traced decision, as long as its batch took to be carried."""
        if self._traces is None:
            return
        carried = time.time_ns()
        for one in recorded:
            if one.trace and self._traces.wanted(one.trace):
                self._traces.begin("carry a decision", "consumer", began, one.trace).end(carried)

    def _carry_conflicts(self) -> None:
        if batch := self._conflicts.take():
            put_aside(self._connected(), batch)
            self._conflicts.done()
            metrics.decisions_carried.labels(outcome="conflict").inc(len(batch))

    def recover(self) -> None:
        """After an error: connect anew, and have the last batch again."""
        if self._table is not None:
            self._table.close()
            self._table = None
        self._source.again()
        self._conflicts.again()

    def close(self) -> None:
        """End connections."""
        if self._table is not None:
            self._table.close()
        self._source.close()
        self._conflicts.close()
        if self._traces is not None:
            self._traces.close()

    def _connected(self) -> psycopg.Connection[Any]:
        if self._table is None:
            self._table = connect(self._settings.postgres_url)
            create(self._table)
        return self._table

    def _publish(self, decisions: Sequence[LoggedDecision]) -> None:
        if self._producer is None:
            self._producer = connect_kafka(self._settings.kafka_bootstrap)
        messages: Any = ((key(one.request), prediction(one), _headers(one)) for one in decisions)
        deliver(self._producer, self._settings.predictions_topic, messages)

    def _keep_house(self) -> None:
        now = time.monotonic()
        if now - self._told >= WAIT:
            self._told = now
            metrics.decision_log_lag.set(self._source.lag())
            self._carry_conflicts()
        if now - self._tidied >= TIDY:
            self._tidied = now
            self._source.tidy(datetime.now(UTC))


def count(done: Appended) -> None:
    """Take what became of a batch into the metrics."""
    for outcome, number in (("added", done.added), ("repeated", done.repeated), ("conflict", done.conflicts)):
        metrics.decisions_carried.labels(outcome=outcome).inc(number)


def _headers(decision: LoggedDecision) -> list[tuple[str, bytes]]:
    """So that whoever consumes the message may join the trace."""
    return [(HEADER.decode(), decision.trace)] if decision.trace else []


def prediction(decision: LoggedDecision) -> bytes:
    """The message on `predictions`: the answer, and beside it whose payment it was, of how much and when."""
    answer: dict[str, Any] = msgspec.json.decode(decision.answer)
    paid = decision.transaction
    payment = {
        "card_id": paid.card_id,
        "merchant_id": paid.merchant_id,
        "amount": paid.amount,
        "paid_at": paid.timestamp.isoformat(),
    }
    return msgspec.json.encode(answer | payment)


def carry(current: Settings, ended: threading.Event) -> None:
    """Carry until `ended`; a server that is away is waited for."""
    sink = _open(current, ended)
    if sink is None:
        return
    try:
        while not ended.is_set():
            try:
                sink.step()
            except AWAY as error:
                log.warning("Decisions wait in their log: %s: %s", type(error).__name__, str(error).strip())
                ended.wait(WAIT)
                _recover(sink)
    finally:
        sink.close()


def _open(current: Settings, ended: threading.Event) -> Sink | None:
    while not ended.is_set():
        try:
            return Sink(current, source(current))
        except AWAY as error:
            log.warning("The decision log does not answer yet: %s", error)
            ended.wait(WAIT)
    return None


def _recover(sink: Sink) -> None:
    try:
        sink.recover()
    except AWAY as error:
        log.warning("The decision log does not answer: %s", error)


if __name__ == "__main__":
    run(carry, lambda current: current.decisions_metrics_port, DecisionsMetrics)
