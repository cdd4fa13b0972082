"""From vectors to decisions and answers. Pure: no clock, no store, no setting."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from bentos.answers import Answer, DegradedCause
from bentos.features import Floats32
from bentos.model import LoadedModel
from bentos.payments import Asked
from bentos.reasons import Reason
from feature_repo.contract import Decision, ModelContract, RiskLevel

NO_STORED_FEATURES: tuple[DegradedCause, ...] = ("features_unavailable", "model_failed")
"""Causes for which a payment is decided on what it says itself."""


@dataclass(slots=True)
class Scored:
    """A payment, the vector the model saw (float32, one row) and what follows from it."""

    asked: Asked
    vector: Floats32
    model: LoadedModel
    feature_age_seconds: float | None
    probability: float
    decision: Decision
    risk_level: RiskLevel
    degraded_cause: DegradedCause | None
    reasons: list[Reason]
    control_group: bool = False
    """Whether it would have been declined and was let pass."""


def decide(
    contract: ModelContract, probability: float, cause: DegradedCause | None, amount: float, review_from: float
) -> tuple[Decision, RiskLevel]:
    """The decision and risk level of a score.

    Without stored features the score knows nothing of the card: from the amount `review_from` on such a payment is at
    least reviewed, and below it at most. With stale ones the score still stands, but such an amount is reviewed.
    """
    decision, risk = contract.decide(probability)
    if cause == "stale_features" and decision == "approve" and amount >= review_from:
        return "review", "medium"
    if cause in NO_STORED_FEATURES and (decision == "decline" if amount < review_from else decision == "approve"):
        return "review", "medium"
    return decision, risk


def confidence(contract: ModelContract, probability: float) -> float:
    """How far the probability is from the nearest threshold at which the model's decision would change, in [0, 1].

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


class _AnswerLine(msgspec.Struct, gc=False):
    """`Answer` as it is written: the same fields in the same order, in a tenth of the time."""

    transaction_id: str
    fraud_probability: float
    decision: str
    risk_level: str
    confidence: float
    reasons: list[Reason]
    model_name: str
    model_version: str
    model_role: str
    feature_age_seconds: float | None
    degraded: bool
    degraded_cause: str | None
    control_group: bool
    latency_ms: float
    timestamp: str


if _AnswerLine.__struct_fields__ != tuple(Answer.model_fields):
    raise TypeError("`_AnswerLine` and `bentos.answers.Answer` have different fields.")

_encode = msgspec.json.Encoder().encode


def answer(scored: Scored, decided_at: str, latency_ms: float) -> bytes:
    """The JSON of a `bentos.answers.Answer`; `decided_at` is RFC 3339 in UTC."""
    return _encode(
        _AnswerLine(
            scored.asked.payment.transaction_id,
            scored.probability,
            scored.decision,
            scored.risk_level,
            confidence(scored.model.contract, scored.probability),
            scored.reasons,
            scored.model.name,
            scored.model.version,
            scored.model.role,
            scored.feature_age_seconds,
            scored.degraded_cause is not None,
            scored.degraded_cause,
            scored.control_group,
            latency_ms,
            decided_at,
        )
    )
