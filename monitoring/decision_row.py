"""A decision as a row of the table `decisions`, and the hash that chains it to the row before. Pure.

The hash is SHA-256 over the previous row's hash and the MessagePack array of every other column in the order of
`COLUMNS`, instants as microseconds since 1970 UTC: a changed column, a missing row and another order all show.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec

from monitoring.decision_log import LoggedDecision

GENESIS = bytes(32)
"""What stands for the hash before the first row."""

COLUMNS = {
    "transaction_id": "text",
    "entry": "text",
    "decided_at": "timestamptz",
    "card_id": "text",
    "merchant_id": "text",
    "amount": "float8",
    "paid_at": "timestamptz",
    "fraud_probability": "float8",
    "decision": "text",
    "risk_level": "text",
    "confidence": "float8",
    "model_name": "text",
    "model_version": "text",
    "model_role": "text",
    "feature_age_seconds": "float8",
    "degraded_cause": "text",
    "latency_ms": "float8",
    "service": "text",
    "request": "text",
    "vector": "bytea",
    "answer": "text",
}
"""The columns that say something of the decision, with their Postgres types."""

CHAIN = {"seq": "int8", "previous_hash": "bytea", "hash": "bytea"}
"""The columns that come after them."""

OPTIONAL = ("feature_age_seconds", "degraded_cause")

Row = tuple[Any, ...]
"""The values of `COLUMNS`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_encode = msgspec.msgpack.Encoder().encode


class Unreadable(ValueError):
    """An entry that is no decision."""


class _Payment(msgspec.Struct, gc=False):
    transaction_id: str
    timestamp: datetime
    card_id: str
    merchant_id: str
    amount: float


class _Answer(msgspec.Struct, gc=False):
    transaction_id: str
    timestamp: datetime
    fraud_probability: float
    decision: str
    risk_level: str
    confidence: float
    model_name: str
    model_version: str
    model_role: str
    latency_ms: float
    feature_age_seconds: float | None = None
    degraded_cause: str | None = None


_payment = msgspec.json.Decoder(_Payment).decode
_answer = msgspec.json.Decoder(_Answer).decode


def row(logged: LoggedDecision) -> Row:
    """The row of a decision; raises `Unreadable` where request and answer are not those of one payment."""
    try:
        paid, said = _payment(logged.request), _answer(logged.answer)
        request, answer = logged.request.decode(), logged.answer.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unreadable(f"Entry {logged.entry}: {error}") from None
    if paid.transaction_id != said.transaction_id:
        raise Unreadable(
            f"Entry {logged.entry}: the request is for '{paid.transaction_id}', the answer for '{said.transaction_id}'."
        )
    return (
        said.transaction_id, logged.entry, said.timestamp, paid.card_id, paid.merchant_id, paid.amount, paid.timestamp,
        said.fraud_probability, said.decision, said.risk_level, said.confidence, said.model_name, said.model_version,
        said.model_role, said.feature_age_seconds, said.degraded_cause, said.latency_ms, logged.feature_service,
        request, logged.vector.tobytes(), answer,
    )  # fmt: skip


def link(previous: bytes, seq: int, values: Sequence[Any]) -> bytes:
    """The hash of row number `seq` with these values, after the row with hash `previous`."""
    plain = [(value - _EPOCH) // _MICROSECOND if isinstance(value, datetime) else value for value in values]
    return sha256(previous + _encode([seq, *plain])).digest()


def content(logged: LoggedDecision) -> bytes:
    """What tells a decision from another on the same payment, wherever in the log it lies."""
    parts = (logged.request, logged.vector.tobytes(), logged.answer, logged.feature_service)
    return sha256(_encode(parts)).digest()
