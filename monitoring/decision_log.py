"""The decision log as it lies in a Redis Stream: how an entry is written, and how the log is read back.

One entry per decision, append-only: the payment, the vector bit for bit, and the answer byte for byte as it was sent.
The service writes; audits, replays, drift jobs and the sink read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt
import redis

from feature_repo.contract import Decision
from feature_repo.schema import Transaction, parse_json

PAGE = 1_000
"""Entries read back in one round trip."""

FIELDS = (b"request", b"vector", b"answer", b"service")
"""The fields of an entry, in their order."""

TRACE = b"trace"
"""A field that entries of traced decisions have besides."""

_FLOAT32 = np.dtype("<f4")


class Told(msgspec.Struct):
    """What an answer says, for those who read the log; what it says besides is passed over."""

    transaction_id: str
    fraud_probability: float
    decision: str
    model_name: str
    model_version: str
    model_role: str
    timestamp: datetime
    risk_level: str = ""
    feature_age_seconds: float | None = None
    degraded_cause: str | None = None
    control_group: bool = False
    reasons: list[dict[str, Any]] = []


_told = msgspec.json.Decoder(Told).decode


@dataclass(frozen=True)
class LoggedDecision:
    """One entry. `request` is the payment's JSON; `vector` float32 (columns,) as the model saw it.

    `answer` is the answer's JSON, `feature_service` names the columns of the vector, `entry` is the identifier in the
    stream.
    """

    entry: str
    request: bytes
    vector: npt.NDArray[np.float32]
    answer: bytes
    feature_service: str
    trace: bytes = b""
    """The `traceparent` of the decision's trace; empty where it was not traced."""

    @cached_property
    def told(self) -> Told:
        """The answer, read."""
        return _told(self.answer)

    @cached_property
    def transaction(self) -> Transaction:
        """The transaction that was decided."""
        return parse_json(self.request, subject=f"of decision {self.entry}")

    @property
    def transaction_id(self) -> str:
        """The payment's identifier."""
        return self.told.transaction_id

    @property
    def probability(self) -> float:
        """The model's score."""
        return self.told.fraud_probability

    @property
    def decision(self) -> Decision:
        """What was decided."""
        return cast(Decision, self.told.decision)

    @property
    def model_name(self) -> str:
        """The registered model that decided."""
        return self.told.model_name

    @property
    def model_version(self) -> str:
        """Its version."""
        return self.told.model_version

    @property
    def model_role(self) -> str:
        """The part it played: champion, challenger or fallback."""
        return self.told.model_role

    @property
    def feature_age_seconds(self) -> float | None:
        """The age that the answer gave."""
        return self.told.feature_age_seconds

    @property
    def degraded_cause(self) -> str | None:
        """Why the decision was made on less than the full input; null where it was not."""
        return self.told.degraded_cause

    @property
    def control_group(self) -> bool:
        """Whether the payment would have been declined and was let pass."""
        return self.told.control_group

    @property
    def reasons(self) -> list[dict[str, Any]]:
        """The reasons that the answer gave."""
        return self.told.reasons

    @property
    def decided_at(self) -> datetime:
        """The instant of the decision, UTC."""
        return self.told.timestamp


def encode(
    request: bytes, vector: npt.NDArray[np.float32], answer: bytes, feature_service: str
) -> tuple[bytes, bytes, bytes, bytes]:
    """The values of an entry's `FIELDS`."""
    return request, vector.astype(_FLOAT32, copy=False).tobytes(), answer, feature_service.encode()


def decode(entry: str, fields: Mapping[bytes, bytes]) -> LoggedDecision:
    """The inverse of `encode`."""
    request, vector, answer, service = (fields[name] for name in FIELDS)
    seen = np.frombuffer(vector, _FLOAT32)
    return LoggedDecision(entry, request, seen, answer, service.decode(), fields.get(TRACE, b""))


def claim_key(stream: str, transaction_id: str) -> str:
    """The key that says a payment has been decided; in Redis Cluster it lies beside the stream."""
    return f"{{{stream}}}:{transaction_id}"


def read_decisions(redis_url: str, stream: str, since: datetime | None = None) -> Iterator[LoggedDecision]:
    """The decisions on record since an instant, oldest first. What is appended meanwhile is read too."""
    with redis.Redis.from_url(redis_url) as client:
        after = "-" if since is None else str(max(int(since.timestamp() * 1_000), 0))
        while page := cast(list[Any], client.xrange(stream, min=after, count=PAGE)):
            for identifier, fields in page:
                yield decode(identifier.decode(), fields)
            after = f"({page[-1][0].decode()}"
