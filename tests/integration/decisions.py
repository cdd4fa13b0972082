"""Decisions as the service logs them, made up, for what happens to them afterwards."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import redis

from feature_repo.settings import Settings
from monitoring.decision_log import FIELDS, LoggedDecision, claim_key, encode

AT = datetime(2026, 3, 4, 12, tzinfo=UTC)
COLUMNS = 4


def made(number: int, **fields: Any) -> LoggedDecision:
    """Decision `number`, on a payment of a card of its own unless `fields` say otherwise."""
    identifier = fields.pop("transaction_id", f"t-{number}")
    paid = AT + timedelta(seconds=number)
    request = {
        "transaction_id": identifier,
        "timestamp": fields.pop("timestamp", paid).isoformat(),
        "card_id": f"card-{number % 7}",
        "merchant_id": f"merchant-{number % 5}",
        "amount": 10.5 + number,
    }
    answer = {
        "transaction_id": identifier,
        "fraud_probability": 0.1 + number % 80 / 100,
        "decision": "approve",
        "risk_level": "low",
        "confidence": 0.25,
        "reasons": [],
        "model_name": "tollgate-fraud",
        "model_version": "3",
        "model_role": "champion",
        "feature_age_seconds": None if number % 2 else 90,
        "degraded": False,
        "degraded_cause": None,
        "latency_ms": 1.25,
        "timestamp": (paid + timedelta(milliseconds=3)).isoformat(),
        **fields,
    }
    vector = np.array([number, np.nan, 0.1, -1], np.float32)
    return LoggedDecision(f"{number}-0", json.dumps(request).encode(), vector, json.dumps(answer).encode(), "fraud_v1")


def values(decision: LoggedDecision) -> tuple[bytes, ...]:
    """The values of the decision's `FIELDS`."""
    return encode(decision.request, decision.vector, decision.answer, decision.feature_service)


def log(current: Settings, decisions: list[LoggedDecision]) -> list[str]:
    """Append decisions to the stream, each with its claim, as the service does; their identifiers."""
    with redis.Redis.from_url(current.redis_url) as client, client.pipeline(transaction=False) as pipe:
        for one in decisions:
            pipe.xadd(current.decisions_stream, dict(zip(FIELDS, values(one), strict=True)))
        entries = [entry.decode() for entry in pipe.execute()]
        for one, entry in zip(decisions, entries, strict=True):
            pipe.set(claim_key(current.decisions_stream, one.transaction_id), bytes(16) + entry.encode())
        pipe.execute()
    return entries
