"""Stand-ins for what the gate talks to: models that read their score off the vector, a reader, a log in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from bentos.answers import Role
from bentos.challenger_guard import Allowance, ChallengerGuard
from bentos.decisions import Entry, Mark, Outcome
from bentos.errors import Unavailable
from bentos.features import FeatureRows, Floats32
from bentos.gate import Gate
from bentos.intake import Limits
from bentos.judging import Judge, Reasons
from bentos.lineup import Lineup
from bentos.model import LoadedModel
from bentos.payments import Asked, asked
from bentos.reasons import Reason
from bentos.scoring import Scored
from feature_repo.contract import ModelContract
from feature_repo.schema import Transaction, parse
from monitoring.control_group import ControlGroup
from monitoring.decision_log import LoggedDecision, decode

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
COLUMNS = ("score", "other")
LIMITS = Limits(max_body_bytes=2_000, max_batch=3, max_future=timedelta(minutes=5), max_age=timedelta(days=7))


def contract(review_from: float = 0.5, decline_from: float = 0.9, feature_service: str = "fraud_v2") -> ModelContract:
    return ModelContract(
        feature_service=feature_service,
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


def model(version: str = "7", session: Any = None, role: Role = "champion", **promised: Any) -> LoadedModel:
    return LoadedModel("stand-in", version, role, contract(**promised), session or FirstColumn(), "registry", NOW)


def fallback(session: Any = None, **promised: Any) -> LoadedModel:
    """The model that decides on a payment alone."""
    return model("1", session, "fallback", feature_service="fraud_request_v1", **promised)


def transaction(**changed: Any) -> Transaction:
    return parse(fields(**changed))


def payment(**changed: Any) -> Asked:
    """A valid transaction as the gate takes it."""
    return asked(transaction(**changed))


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
    feature_service: str = "fraud_v2"
    columns: tuple[str, ...] = COLUMNS

    def read(self, payments: Sequence[Asked]) -> FeatureRows:
        if self.fails:
            raise self.fails
        given = [one.payment for one in payments]
        return FeatureRows(
            np.array([[one.amount / 1e3, np.nan] for one in given], np.float32),
            tuple(None if one.card_id == "new" else 60.0 for one in given),
            tuple(one.card_id == "overrun" for one in given),
        )


@dataclass
class Online:
    """The online store: none of the features where `away`, and none of those of the card `unreadable`.

    It answers when `answers` is set, where there is one.
    """

    reader: Reader = field(default_factory=Reader)
    away: bool = False
    answers: asyncio.Event | None = None
    batches: list[list[str]] = field(default_factory=list)

    async def read(self, payments: Sequence[Asked]) -> list[tuple[list[int], FeatureRows | None]]:
        self.batches.append([one.payment.transaction_id for one in payments])
        if self.answers is not None:
            await self.answers.wait()
        everything = list(range(len(payments)))
        if self.away:
            return [(everything, None)]
        if all(one.payment.card_id != "unreadable" for one in payments):
            return [(everything, self.reader.read(payments))]
        return [
            ([place], None if one.payment.card_id == "unreadable" else self.reader.read([one]))
            for place, one in enumerate(payments)
        ]

    async def alive(self) -> bool:
        return not self.away

    def close(self) -> None: ...


@dataclass
class Log:
    """Keeps what is appended, each payment once; `fails` is raised in its place."""

    fails: Exception | None = None
    kept: list[Entry] = field(default_factory=list)

    async def append(self, entries: Sequence[Entry]) -> list[Outcome]:
        if self.fails:
            raise Unavailable("decision_log", self.fails)
        return [self._append(one) for one in entries]

    async def find(self, transaction_id: str) -> LoggedDecision | None:
        found = [one for one in self.decisions if one.transaction_id == transaction_id]
        return found[0] if found else None

    async def alive(self) -> bool:
        return self.fails is None

    def close(self) -> None: ...

    @property
    def decisions(self) -> list[LoggedDecision]:
        """What is on record, read as the log is."""
        names = (b"request", b"vector", b"answer", b"service")
        return [decode(f"{place}-0", dict(zip(names, one[3:7], strict=True))) for place, one in enumerate(self.kept, 1)]

    def _append(self, entry: Entry) -> Outcome:
        for earlier in self.kept:
            if earlier.transaction_id == entry.transaction_id:
                return earlier.answer if earlier.digest == entry.digest else Mark.CONFLICT
        self.kept.append(entry)
        return Mark.RECORDED


def no_reasons(of: LoadedModel, vectors: Floats32, decisions: Sequence[str]) -> list[list[Reason]]:
    return [[] for _ in decisions]


@dataclass
class Shadow:
    """Keeps what it is given."""

    seen: list[Scored] = field(default_factory=list)

    def __call__(self, scored: Sequence[Scored]) -> None:
        self.seen.extend(scored)


def guard() -> ChallengerGuard:
    """One that takes nobody out."""
    allowance = Allowance(window=60.0, failures=1_000, failure_share=1.0, slow_factor=1e9, slow_from=1e9)
    return ChallengerGuard(allowance, lambda challenger, reason, detail: None)


def judge(
    reasons: Reasons = no_reasons,
    review_from: float = 100.0,
    alone: Reader | None = None,
    control: ControlGroup | None = None,
) -> Judge:
    return Judge(alone or Reader(), guard(), reasons, review_from, control)


def gate(
    online: Online | Reader | None = None,
    log: Log | None = None,
    limits: Limits = LIMITS,
    lineup: Lineup | Callable[[], Lineup] | None = None,
    shadow: Shadow | None = None,
    control: ControlGroup | None = None,
) -> Gate:
    """A gate over stand-ins: a champion alone, unless a line-up says otherwise."""
    store: Any = Online(online) if isinstance(online, Reader) else online or Online()
    given = lineup if callable(lineup) else (lambda: lineup or Lineup(model()))
    card = lambda: given().champion.card()  # noqa: E731
    return Gate(judge(control=control), given, card, store, log or Log(), limits, lambda: NOW, shadow or Shadow())
