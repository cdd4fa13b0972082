"""The decision log as it lies in a Redis Stream: how an entry is written, and how the log is read back.

One entry per decision, append-only; the vector is kept bit for bit. The service writes, audits and drift jobs read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import redis

from feature_repo.contract import Decision
from feature_repo.schema import Transaction, parse_json

PAGE = 1_000
"""Entries read back in one round trip."""

_FLOAT32 = np.dtype("<f4")


@dataclass(frozen=True)
class LoggedDecision:
    """One entry. `request` is the transaction's JSON; `vector` float32 (columns,) as the model saw it.

    `entry` is its identifier in the stream, empty before it has one.
    """

    entry: str
    request: bytes
    vector: npt.NDArray[np.float32]
    feature_service: str
    model_name: str
    model_version: str
    model_role: str
    probability: float
    decision: Decision
    feature_age_seconds: float | None
    decided_at: datetime

    @property
    def transaction(self) -> Transaction:
        """The transaction that was decided."""
        return parse_json(self.request, subject=f"of decision {self.entry}")


def encode(decision: LoggedDecision) -> dict[str, str | bytes]:
    """A decision as the fields of a stream entry; a null has no field."""
    fields: dict[str, str | bytes] = {
        "request": decision.request,
        "vector": decision.vector.astype(_FLOAT32).tobytes(),
        "feature_service": decision.feature_service,
        "model_name": decision.model_name,
        "model_version": decision.model_version,
        "model_role": decision.model_role,
        "probability": repr(decision.probability),
        "decision": decision.decision,
        "decided_at": decision.decided_at.isoformat(),
    }
    if decision.feature_age_seconds is not None:
        fields["feature_age_seconds"] = repr(decision.feature_age_seconds)
    return fields


def decode(entry: str, fields: dict[bytes, bytes]) -> LoggedDecision:
    """The inverse of `encode`."""
    text = {name.decode(): value.decode() for name, value in fields.items() if name not in (b"vector", b"request")}
    age = text.get("feature_age_seconds")
    return LoggedDecision(
        entry=entry,
        request=fields[b"request"],
        vector=np.frombuffer(fields[b"vector"], _FLOAT32),
        feature_service=text["feature_service"],
        model_name=text["model_name"],
        model_version=text["model_version"],
        model_role=text["model_role"],
        probability=float(text["probability"]),
        decision=cast(Decision, text["decision"]),
        feature_age_seconds=None if age is None else float(age),
        decided_at=datetime.fromisoformat(text["decided_at"]),
    )


def read_decisions(redis_url: str, stream: str) -> Iterator[LoggedDecision]:
    """The decisions on record, oldest first. What is appended meanwhile is read too."""
    with redis.Redis.from_url(redis_url) as client:
        after = "-"
        while page := cast(list[Any], client.xrange(stream, min=after, count=PAGE)):
            for identifier, fields in page:
                yield decode(identifier.decode(), fields)
            after = f"({page[-1][0].decode()}"
