"""What gates say of a version: each its evidence, its rule and its word, together the verdict that is kept with it.

Missing evidence blocks: a version passes when every gate has passed, and in no other case.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

Word = Literal["pass", "block", "missing", "untried"]
"""`missing`: the evidence is not there or not enough. `untried`: another gate's finding leaves nothing to look at."""

Number = float | int | str | None

SERVICE_REFUSES = frozenset({"files", "columns", "parity", "outputs"})
"""Gates that the service has as well: a version that fails one would not be served, whoever points the alias at it."""


class MissingEvidence(LookupError):
    """What a gate needs is not there, or not enough of it."""


class NothingToLookAt(LookupError):
    """Another gate's finding leaves this one nothing to look at."""


class Gate(BaseModel):
    """One gate's word, with the numbers it rests on; `way_out` says what to do where it is not `pass`."""

    model_config = ConfigDict(frozen=True)

    name: str
    word: Word
    rule: str
    evidence: str
    numbers: dict[str, Number] = {}
    way_out: str = ""


class WindowCard(BaseModel):
    """The payments that a version was judged on: [begin, end), UTC."""

    model_config = ConfigDict(frozen=True)

    begin: datetime
    end: datetime
    payments: int
    frauds: int
    cards: int


class Verdict(BaseModel):
    """All gates' words on a version; `against` says what it was compared with, `champion` who served at the time."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: str
    champion: str | None
    against: str
    judged_at: datetime
    seconds: float
    window: WindowCard | None
    gates: tuple[Gate, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate let it pass."""
        return bool(self.gates) and all(gate.word == "pass" for gate in self.gates)

    @property
    def held_by(self) -> tuple[Gate, ...]:
        """The gates that hold it: what they found, or the evidence that they lack."""
        return tuple(gate for gate in self.gates if gate.word in ("block", "missing"))

    @property
    def blocked_by(self) -> tuple[str, ...]:
        """The names of the gates that hold it."""
        return tuple(gate.name for gate in self.held_by)

    @property
    def refused_by_service(self) -> tuple[str, ...]:
        """Those among them that nobody can override, because the service would refuse the version as well."""
        return tuple(name for name in self.blocked_by if name in SERVICE_REFUSES)

    def __str__(self) -> str:
        return "pass" if self.passed else f"blocked by {', '.join(self.blocked_by)}"
