"""From vectors to decisions. Pure: no clock, no store, no setting; one model decides one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from bentos.answers import Answer, DegradedCause
from bentos.features import FeatureRows, Floats32
from bentos.model import LoadedModel
from feature_repo.contract import Decision, ModelContract, RiskLevel
from feature_repo.schema import Transaction


@dataclass(frozen=True, slots=True)
class Scored:
    """A payment, the vector the model saw (float32, one row) and what follows from it."""

    transaction: Transaction
    vector: Floats32
    feature_age_seconds: float | None
    probability: float
    decision: Decision
    risk_level: RiskLevel
    confidence: float
    degraded_cause: DegradedCause | None


def score(model: LoadedModel, transactions: Sequence[Transaction], features: FeatureRows) -> list[Scored]:
    """Decide each transaction on its row of features, in one run of the model.

    Raises `bentos.model.InvalidScore` where the model gives anything but a probability.
    """
    probabilities = model.score(features.vectors).tolist()
    rows = zip(transactions, features.vectors, features.ages, features.incomplete, probabilities, strict=True)
    return [_scored(model.contract, *row) for row in rows]


def _scored(
    contract: ModelContract,
    transaction: Transaction,
    vector: Floats32,
    age: float | None,
    incomplete: bool,
    probability: float,
) -> Scored:
    decision, risk_level = contract.decide(probability)
    return Scored(
        transaction=transaction,
        vector=vector,
        feature_age_seconds=age,
        probability=probability,
        decision=decision,
        risk_level=risk_level,
        confidence=confidence(contract, probability),
        degraded_cause="incomplete_features" if incomplete else None,
    )


def confidence(contract: ModelContract, probability: float) -> float:
    """How far the probability is from the nearest threshold at which the decision would change, in [0, 1].

    The distance is a share of the largest one possible within the same decision: 0 at the threshold, 1 at either end of
    the scale and in the middle of `review`. A decision that no score can leave has 1.
    """
    decision, _ = contract.decide(probability)
    review, decline = min(contract.review_from, contract.decline_from), contract.decline_from
    if decision == "decline":
        distance, farthest = probability - decline, 1.0 - decline
    elif decision == "approve":
        distance, farthest = review - probability, review
    elif review == 0.0:
        distance, farthest = decline - probability, decline
    else:
        distance, farthest = min(probability - review, decline - probability), (decline - review) / 2.0
    return min(distance / farthest, 1.0) if farthest > 0.0 else 1.0


def answer(scored: Scored, model: LoadedModel, decided_at: datetime, latency_ms: float) -> Answer:
    """The answer to a scored payment."""
    return Answer(
        transaction_id=scored.transaction.transaction_id,
        fraud_probability=scored.probability,
        decision=scored.decision,
        risk_level=scored.risk_level,
        confidence=scored.confidence,
        model_name=model.name,
        model_version=model.version,
        model_role=model.role,
        feature_age_seconds=scored.feature_age_seconds,
        degraded=scored.degraded_cause is not None,
        degraded_cause=scored.degraded_cause,
        latency_ms=latency_ms,
        timestamp=decided_at,
    )
