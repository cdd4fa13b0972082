"""What a scenario is judged by: every answer is on record once, with its very bytes, and says what the model says.

The expected answer is computed here from the payment alone, by other code than the service's.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from monitoring.decision_log import LoggedDecision
from tests.chaos.load import Reply
from tests.tiny_model import DECLINE_FROM, REVIEW_FROM

Biases = Mapping[tuple[str, str], float]
"""The bias of each registered version of the tiny model, by name and version."""

ALONE = ("features_unavailable", "model_failed")
REVIEWED_FROM = 100.0
"""The amount from which a payment decided without stored features is at least reviewed."""


@dataclass(frozen=True)
class Verdict:
    """Payments by what became of them; the last six are lists of transaction ids that must be empty."""

    payments: int
    answered: int
    degraded: int
    unanswered: int
    refused: int
    missing: list[str]
    twice: list[str]
    other_bytes: list[str]
    other_payment: list[str]
    wrong: list[str]
    unknown: list[str]

    @property
    def faults(self) -> dict[str, list[str]]:
        kinds = ("missing", "twice", "other_bytes", "other_payment", "wrong", "unknown")
        return {kind: found for kind in kinds if (found := getattr(self, kind))}

    def line(self, scenario: str, repeated: int) -> str:
        """A line of the nightly report."""
        counts = f"{self.payments} payments, {self.answered} answered, {self.degraded} degraded"
        other = f"{self.refused} refused, {self.unanswered} without an answer, {repeated} repeated"
        return (
            f"{scenario}: {counts}, {other}; missing {len(self.missing)}, twice {len(self.twice)}, wrong {self.amiss}"
        )

    @property
    def amiss(self) -> int:
        return len({*self.other_bytes, *self.other_payment, *self.wrong, *self.unknown})


def judge(
    replies: Sequence[Reply], record: Iterable[LoggedDecision], biases: Biases, *, at_least_once: bool = False
) -> Verdict:
    """Hold the replies against the record.

    `at_least_once` lets a decision be in the record several times, as long as each time with the same bytes.
    """
    logged: dict[str, list[LoggedDecision]] = defaultdict(list)
    for one in record:
        logged[one.transaction_id].append(one)
    sent = {one.transaction_id: one.payment for one in replies}
    good = [one for one in replies if one.ok]
    entries = {name: {one.answer for one in found} if at_least_once else found for name, found in logged.items()}
    return Verdict(
        payments=len(sent),
        answered=len({one.transaction_id for one in good}),
        degraded=sum(bool(one.told["degraded"]) for one in good),
        unanswered=sum(one.status == 0 for one in replies),
        refused=sum(one.status not in (0, 200) for one in replies),
        missing=[one.transaction_id for one in good if one.transaction_id not in logged],
        twice=[name for name, found in entries.items() if len(found) > 1],
        other_bytes=[
            one.transaction_id
            for one in good
            if any(entry.answer != one.body for entry in logged.get(one.transaction_id, ()))
        ],
        other_payment=[
            name for name, found in logged.items() if name in sent and not _same(found[0].request, sent[name])
        ],
        wrong=[one.transaction_id for one in good if not _right(one, biases)],
        unknown=[name for name in logged if name not in sent],
    )


def _same(request: bytes, payment: dict[str, object]) -> bool:
    found: object = json.loads(request)
    return found == payment


def _right(reply: Reply, biases: Biases) -> bool:
    told, amount = reply.told, reply.payment["amount"]
    alone = told["degraded_cause"] in ALONE
    probability = 1 / (1 + math.exp(-(amount / 100 + biases[told["model_name"], told["model_version"]])))
    decision = "decline" if probability >= DECLINE_FROM else "review" if probability >= REVIEW_FROM else "approve"
    if alone and decision == ("decline" if amount < REVIEWED_FROM else "approve"):
        decision = "review"
    near = min(abs(probability - limit) for limit in (REVIEW_FROM, DECLINE_FROM)) < 1e-5
    return (
        told["transaction_id"] == reply.transaction_id
        and abs(told["fraud_probability"] - probability) < 1e-5
        and (near or told["decision"] == decision)
        and told["degraded"] == (told["degraded_cause"] is not None)
        and (told["model_role"] == "fallback") == alone
    )
