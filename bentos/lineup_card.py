"""What `/model` tells of the line-up: the champion's own card, who stands beside it, and what was refused and why."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from bentos.answers import ModelCard, Spoken


class Refused(Spoken):
    """A registered version that is not served; what served before it still does."""

    name: str
    version: str
    reason: str = Field(description="`absent`, `contract`, `files`, `evidence`, `warm_up` or `parity`")
    message: str


class ChallengerOut(Spoken):
    """A challenger the guard took out: until another version, or `python -m monitoring.traffic --challenger-back`."""

    version: str
    reason: Literal["failures", "slow"]
    detail: str
    since: datetime
    back: str = Field(description="Value of the tag tollgate.challenger_back then; another one brings it back")


class LineupCard(ModelCard):
    """The champion in service and everything beside it."""

    challenger: ModelCard | None
    challenger_weight: float = Field(description="Share of the payments that the challenger answers")
    shadow: bool = Field(description="Whether the challenger scores the champion's payments unseen")
    challenger_out: ChallengerOut | None
    fallback: ModelCard | None = Field(description="Decides on the payment alone when stored features are away")
    refused: tuple[Refused, ...]
    refused_tags: tuple[str, ...] = Field(description="Traffic tags whose value is none; the last valid ones stay")
    registry_reachable: bool = Field(description="Whether MLflow answered the last time it was asked")
