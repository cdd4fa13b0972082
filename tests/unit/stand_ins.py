"""Stand-ins for what the gate talks to: a model that reads its score off the vector, a reader, a log in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from bentos.errors import Unavailable
from bentos.features import FeatureRows
from bentos.gate import Gate
from bentos.intake import Limits
from bentos.model import LoadedModel
from bentos.scoring import Scored
from feature_repo.contract import ModelContract
from feature_repo.schema import Transaction, parse

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
COLUMNS = ("score", "other")
LIMITS = Limits(max_body_bytes=2_000, max_batch=3, max_future=timedelta(minutes=5), max_age=timedelta(days=7))


def contract(review_from: float = 0.5, decline_from: float = 0.9) -> ModelContract:
    return ModelContract(
        feature_service="fraud_v1",
        columns=COLUMNS,
        review_from=review_from,
        decline_from=decline_from,
        algorithm="by hand",
        trained_until="2026-01-01T00:00:00Z",
    )


class FirstColumn:
    """A session whose probability is the vector's first column."""

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
        (vectors,) = inputs.values()
        return [np.stack([1 - vectors[:, 0], vectors[:, 0]], axis=1)]


def model(version: str = "7", session: Any = None, **thresholds: float) -> LoadedModel:
    return LoadedModel(
        "stand-in", version, "champion", contract(**thresholds), session or FirstColumn(), "registry", NOW
    )


def transaction(**changed: Any) -> Transaction:
    return parse(fields(**changed))


def fields(**changed: Any) -> dict[str, Any]:
    """A valid transaction's JSON fields."""
    given = {
        "transaction_id": "t1",
        "timestamp": "2026-03-01T11:59:00Z",
        "card_id": "c1",
        "merchant_id": "m1",
        "amount": 42.5,
    }
    return given | changed


@dataclass
class Reader:
    """Gives a vector whose first column is a thousandth of the amount; `fails` is raised in its place."""

    fails: Exception | None = None
    feature_service: str = "fraud_v1"
    columns: tuple[str, ...] = COLUMNS

    def read(self, transactions: Sequence[Transaction]) -> FeatureRows:
        if self.fails:
            raise self.fails
        vectors = np.array([[one.amount / 1e3, np.nan] for one in transactions], np.float32)
        return FeatureRows(
            vectors,
            tuple(None if one.card_id == "new" else 60.0 for one in transactions),
            tuple(one.card_id == "overrun" for one in transactions),
        )


@dataclass
class Log:
    """Keeps what is appended; `fails` is raised in its place."""

    fails: Exception | None = None
    kept: list[tuple[Scored, str, datetime]] = field(default_factory=list)

    def append(self, scored: Sequence[Scored], by: LoadedModel, decided_at: datetime) -> None:
        if self.fails:
            raise Unavailable("decision_log", self.fails)
        self.kept.extend((one, by.version, decided_at) for one in scored)

    def alive(self) -> bool:
        return self.fails is None


def gate(reader: Reader | None = None, log: Log | None = None, limits: Limits = LIMITS) -> Gate:
    return Gate(model(), reader or Reader(), log or Log(), limits, lambda: NOW)
