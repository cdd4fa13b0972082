"""What a registered model promises the service: its feature service, its columns in order, its thresholds.

Training writes it into the model's MLflow metadata under `tollgate`; the service refuses a model whose promise does not
fit the code that would feed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

METADATA_KEY = "tollgate"
ONNX_FILE = "model.onnx"
ONNX_INPUT = "features"
ONNX_OUTPUT = "probabilities"
"""The graph's input is float32 (rows, columns), null as NaN; its output (rows, 2), fraud in the second column."""
EVIDENCE_FILE = "evidence.json"
"""What a version was judged by in training, beside its graph."""
REFERENCE_FILE = "reference.parquet"
"""A sample of the vectors it was trained on, with their labels, for drift and leakage."""
SCORE, LABEL = "score", "is_fraud"
"""The columns of a reference beside the model's: the graph's own scores, and what the payments were."""
EFFECTS_KEY = "tollgate.effects"
"""In a linear model's graph metadata: each column's effect on the log-odds, from which its reasons are made."""
CALIBRATION_KEY = "tollgate.calibration"
"""In the metadata of a graph whose calibration has knots: the curve between the margin and the log-odds."""

Decision = Literal["approve", "review", "decline"]
RiskLevel = Literal["low", "medium", "high"]


class ContractMismatch(ValueError):
    """A model that cannot be fed by this code."""


class ModelContract(BaseModel):
    """The promise itself. A score below `review_from` is approved; one from `decline_from` on is declined.

    `medium_from` is where a payment's risk is medium though it may be approved: a review would pay if people had the
    time. Null, as in a model registered before there was one: where reviews begin.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    feature_service: str
    columns: tuple[str, ...] = Field(min_length=1)
    review_from: float = Field(ge=0, le=1)
    decline_from: float = Field(ge=0, le=1)
    medium_from: float | None = Field(default=None, ge=0, le=1)
    algorithm: str
    trained_until: str

    def require(self, feature_service: str, columns: Sequence[str]) -> None:
        """Raise `ContractMismatch`, naming what differs, unless model and code agree on service, columns and order."""
        if self.feature_service != feature_service:
            raise ContractMismatch(
                f"Model expects feature service '{self.feature_service}'; the code serves '{feature_service}'."
            )
        if self.columns != tuple(columns):
            missing = sorted(set(self.columns) - set(columns))
            extra = sorted(set(columns) - set(self.columns))
            detail = f"the code lacks {missing}, the model lacks {extra}" if missing or extra else "their order differs"
            raise ContractMismatch(f"Model and code disagree on the columns: {detail}. Retrain and register the model.")

    def decide(self, probability: float) -> tuple[Decision, RiskLevel]:
        """The decision and the risk level of a score."""
        if probability >= self.decline_from:
            return "decline", "high"
        if probability >= self.review_from:
            return "review", "medium"
        medium = self.medium_from is not None and probability >= self.medium_from
        return "approve", "medium" if medium else "low"
