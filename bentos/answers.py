"""What the service says: the answer to a payment, to a batch, about its model, and the one shape of an error.

Every lane gives these models and `model_dump_json` writes their bytes, so that the OpenAPI document cannot drift from
what is sent.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from feature_repo.contract import Decision, RiskLevel

Role = Literal["champion", "challenger", "fallback"]
Source = Literal["registry", "cache"]
DegradedCause = Literal["incomplete_features", "stale_features", "features_unavailable", "model_failed"]


class Spoken(BaseModel):
    """Whatever leaves the service: immutable, no field that the document does not name."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), ser_json_inf_nan="strings")


class Reason(Spoken):
    """A feature that moved the score, in words."""

    code: str = Field(description="Stable name of the kind of reason", examples=["CARD_VELOCITY"])
    feature: str = Field(description="The model's column", examples=["card_count_1h"])
    contribution: float = Field(
        description="Its exact Shapley value: what it added to the raw score (log-odds; probability for a forest)"
    )
    text: str = Field(examples=["12 payments with this card in the last hour"])


class Answer(Spoken):
    """The decision on one payment."""

    transaction_id: str
    fraud_probability: float = Field(ge=0, le=1)
    decision: Decision
    risk_level: RiskLevel
    confidence: float = Field(
        ge=0,
        le=1,
        description="Distance of the probability from the nearest threshold at which the decision would change, as a "
        "share of the farthest that the decision allows: 0 at the threshold, 1 in the middle of `review` and at the "
        "ends of the scale. It is no probability of being right",
    )
    reasons: tuple[Reason, ...] = Field(
        description="The features that moved the score most towards the decision, the strongest first; those of any "
        "payment are at /decisions/{transaction_id}/explanation"
    )
    model_name: str
    model_version: str
    model_role: Role = Field(
        description="`champion`; `challenger` for its share of the payments; `fallback`: the model that sees the "
        "payment alone, where the stored features could not be had"
    )
    feature_age_seconds: float | None = Field(
        description="Seconds from the latest known event of the card or the merchant, whichever is nearer, to the "
        "payment; null where neither has one"
    )
    degraded: bool = Field(description="Whether the decision was made on less than the model's full input")
    degraded_cause: DegradedCause | None = Field(
        description="`features_unavailable`: the online store did not answer within the budget, and the payment was "
        "decided on what it says itself; `model_failed`: likewise, because the model gave no score; "
        "`stale_features`: the stream that keeps them fresh has stood still for longer than it may; "
        "`incomplete_features`: a window of the model's features lacks events of the card or the merchant, which has "
        "had more than its state has room for"
    )
    control_group: bool = Field(
        default=False,
        description="Whether the payment would have been declined and was let pass, to learn what it was "
        "(FRAUD_CONTROL_SHARE); `decision` is then `approve`, and `risk_level` what the model says",
    )
    latency_ms: float = Field(
        ge=0, description="From the request's last byte to the decision, which is put on record before it is sent"
    )
    timestamp: datetime = Field(description="The instant of the decision, UTC")


class Problem(Spoken):
    """One broken rule."""

    field: str
    value: Any = Field(description="What was sent, shortened; a number without a JSON form as text")
    rule: str


class ErrorDetail(Spoken):
    """What went wrong; `code` is for programs, `message` for people."""

    code: str = Field(examples=["invalid_transaction"])
    message: str
    problems: tuple[Problem, ...] = ()


class ErrorBody(Spoken):
    """The body of every answer that is not 2xx."""

    error: ErrorDetail


class Rejected(Spoken):
    """The place of a payment in a batch that could not be decided."""

    transaction_id: str | None = Field(default=None, description="Null where the item has no usable one")
    error: ErrorDetail


class BatchAnswer(Spoken):
    """One result for each payment of the batch, in its order: an answer or an error."""

    results: list[Answer | Rejected]


class DecisionRecord(Spoken):
    """A decision as it is on record: what was sent, what the model saw, what was answered."""

    entry: str = Field(description="Its place in the decision log; `journal-...` while the log's server is away")
    request: dict[str, Any] = Field(description="The payment, without fields that were not given")
    answer: Answer
    feature_service: str
    features: dict[str, float | None] = Field(description="The model's input, in float32; null where unknown")


class Contribution(Spoken):
    """What one column added to the score."""

    feature: str
    value: float | None
    contribution: float


class Explanation(Spoken):
    """Why a decision's score is what it is: exact Shapley values of every column, the largest first.

    They and `base` add up to the model's raw output.
    """

    transaction_id: str
    model_name: str
    model_version: str
    output: Literal["log-odds", "probability"]
    base: float = Field(description="The output with nothing known of a payment: its mean over the training data")
    contributions: tuple[Contribution, ...]
    reasons: tuple[Reason, ...]


class Thresholds(Spoken):
    """Where a decision begins: a score from `review_from` on is reviewed, one from `decline_from` on declined."""

    review_from: float
    decline_from: float


class ModelCard(Spoken):
    """The model in service. `source` is `cache` where the registry was out of reach when the service started."""

    name: str
    version: str
    role: Role
    algorithm: str
    feature_service: str
    columns: tuple[str, ...]
    thresholds: Thresholds
    trained_until: str
    loaded_at: datetime
    source: Source
