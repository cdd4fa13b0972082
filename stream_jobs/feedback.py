"""Feedback into the label history, and payments nobody disputed as legitimate. `python -m stream_jobs.feedback`

A statement leaves its stream only once its label is in history, or it is put aside because no payment matches it. After
a crash a batch comes again with the same instants, and its labels are there once.
"""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from redis.exceptions import RedisError, ResponseError

from feature_repo.schema import LABEL_PUBLICATION
from feature_repo.settings import Settings
from feature_repo.store import feature_store
from monitoring.catalogue_stream import FeedbackMetrics
from monitoring.decision_finder import find_decisions
from monitoring.feedback_log import Statement, recorded_at, unpack
from monitoring.metrics import metrics
from stream_jobs.carrier import run
from stream_jobs.entries import Entries, Entry
from stream_jobs.label_history import LOOK_BACK, Label, Paid, ensure_table, payments, publication, push, settle

WAIT = 1.0
"""Seconds a batch is waited for, and a part that is away left alone."""

STAMP_KEPT = timedelta(days=7)
AWAY = (psycopg.OperationalError, RedisError)

log = logging.getLogger(__name__)


class Carrier:
    """Carries batch after batch; `step` may raise one of `AWAY`, and is called again after `again`."""

    def __init__(self, current: Settings) -> None:
        self._settings = current
        self._entries = Entries(current.redis_url, current.feedback_stream, current.feedback_group)
        self._redis = self._entries.client
        self._store = feature_store(current)
        ensure_table(self._store, current)

    def step(self, now: datetime, wait: float = WAIT) -> int:
        """Carry one batch, and settle the hours that are over; how many statements the batch held."""
        batch = self._entries.take(wait)
        if batch:
            self._carry(batch, self._published(batch[0][0], now))
        self._entries.done()
        self._settle(now)
        return len(batch)

    def again(self) -> None:
        """Have the last batch again: it was not carried."""
        self._entries.again()

    def close(self) -> None:
        """End the connection."""
        self._entries.close()

    def _carry(self, batch: list[Entry], published_at: datetime) -> None:
        read = [(entry, fields, _statement(fields)) for entry, fields in batch]
        paid = self._paid([said.transaction_id for _, _, said in read if said is not None])
        labels: list[Label] = []
        aside: list[tuple[Entry, str]] = []
        for entry, fields, said in read:
            payment = None if said is None else paid.get(said.transaction_id)
            if said is None:
                aside.append(((entry, fields), "no statement"))
            elif payment is None:
                aside.append(((entry, fields), "no such payment was decided here, nor is it in history"))
            elif said.card_id is not None and said.card_id != payment.card_id:
                aside.append(((entry, fields), "the payment was made with another card"))
            else:
                labels.append(_label(entry, said, payment, published_at))
        if labels:
            push(self._store, labels)
        for one, reason in aside:
            self._put_aside(one, reason)
        metrics.feedback_carried.labels(outcome="labelled").inc(len(labels))
        metrics.feedback_carried.labels(outcome="unmatched").inc(len(aside))

    def _paid(self, identifiers: list[str]) -> dict[str, Paid]:
        found: dict[str, Paid] = {}
        for name, decision in find_decisions(self._redis, self._settings, list(dict.fromkeys(identifiers))).items():
            made = decision.transaction
            found[name] = Paid(made.card_id, made.merchant_id, made.timestamp)
        return payments(self._store, self._settings, set(identifiers) - set(found)) | found

    def _published(self, first: str, now: datetime) -> datetime:
        """The publication of the batch that begins with this entry: decided once, whenever the batch comes again."""
        key = f"{{{self._settings.feedback_stream}}}/published:{first}"
        wanted = publication(max(now, recorded_at(first))).isoformat()
        self._redis.set(key, wanted, nx=True, ex=STAMP_KEPT)
        kept: Any = self._redis.get(key)
        return datetime.fromisoformat(kept.decode())

    def _put_aside(self, entry: Entry, reason: str) -> None:
        fields: dict[Any, Any] = {**entry[1], b"reason": reason.encode()}
        try:
            self._redis.xadd(f"{self._settings.feedback_stream}.dead", fields, id=entry[0])
        except ResponseError as error:
            if "equal or smaller" not in str(error):  # it was put aside before a crash
                raise

    def _settle(self, now: datetime) -> None:
        key = f"{{{self._settings.feedback_stream}}}/settled"
        kept: Any = self._redis.get(key)
        end = publication(now - LABEL_PUBLICATION + timedelta(microseconds=1))
        begin = end - LOOK_BACK if kept is None else datetime.fromisoformat(kept.decode())
        if begin >= end:
            return
        count = settle(self._store, self._settings, begin, end, now)
        self._redis.set(key, end.isoformat())
        if count:
            log.info("%d payments that nobody disputed are labelled legitimate.", count)


def _statement(fields: dict[bytes, bytes]) -> Statement | None:
    try:
        return unpack(fields)
    except ValueError:
        return None


def _label(entry: str, said: Statement, paid: Paid, published_at: datetime) -> Label:
    known_at = max(recorded_at(entry), paid.timestamp)
    is_fraud = 1.0 if said.kind == "chargeback" else 0.0
    return Label(said.transaction_id, *paid, known_at, max(published_at, publication(known_at)), is_fraud)


def carry(current: Settings, ended: threading.Event) -> None:
    """Carry until `ended`; a server that is away is waited for."""
    carrier = Carrier(current)
    try:
        while not ended.is_set():
            try:
                carrier.step(datetime.now(UTC))
            except AWAY as error:
                log.warning("Feedback waits in its stream: %s: %s", type(error).__name__, str(error).strip())
                carrier.again()
                ended.wait(WAIT)
    finally:
        carrier.close()


if __name__ == "__main__":
    run(carry, lambda current: current.feedback_metrics_port, FeedbackMetrics)
