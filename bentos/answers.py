"""What the service says: the answer to a payment, to a batch, about its model, and the one shape of an error.

Every lane gives these models and `model_dump_json` writes their bytes, so that the OpenAPI document cannot drift from
what is sent.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from feature_repo.contract import Decision, RiskLevel

Role = Literal["champion"]
Source = Literal["registry", "cache"]
DegradedCause = Literal["incomplete_features"]


class Spoken(BaseModel):
    """Whatever leaves the service: immutable, no field that the document does not name."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), ser_json_inf_nan="strings")


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
    model_name: str
    model_version: str
    model_role: Role
    feature_age_seconds: float | None = Field(
        description="Seconds from the latest known event of the card or the merchant, whichever is nearer, to the "
        "payment; null where neither has one"
    )
    degraded: bool = Field(description="Whether the decision was made on less than the model's full input")
    degraded_cause: DegradedCause | None = Field(
        description="`incomplete_features`: a window of the model's features lacks events of the card or the merchant, "
        "which has had more than its state has room for"
    )
    latency_ms: float = Field(ge=0, description="From the request's last byte to the decision being on record")
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
