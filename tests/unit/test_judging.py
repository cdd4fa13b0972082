"""What becomes of features: each payment by the best model that can be had, and one's trouble is not another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bentos.errors import Unavailable
from bentos.features import FeatureRows
from bentos.lineup import Lineup
from bentos.payments import Asked, read
from bentos.reasons import Reason
from bentos.scoring import Scored
from tests.unit.stand_ins import FirstColumn, Reader, fallback, judge, model, payment


class Moody(FirstColumn):
    """Fails on any batch that holds a score of exactly one half."""

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
        (vectors,) = inputs.values()
        if (vectors[:, 0] == 0.5).any():
            raise RuntimeError("a row that this model cannot take")
        return super().run(outputs, inputs)


class NotANumber(FirstColumn):
    """Gives NaN for a score of one half."""

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
        (out,) = super().run(outputs, inputs)
        return [np.where(out == np.float32(0.5), np.nan, out)]


def payments(*amounts: float) -> list[Asked]:
    return [payment(transaction_id=f"t{n}", amount=amount) for n, amount in enumerate(amounts)]


def rows(given: Sequence[Asked]) -> FeatureRows:
    return Reader().read(given)


def told(judged: Sequence[Scored | Exception]) -> list[tuple[Any, ...]]:
    return [
        (one.model.role, one.degraded_cause, one.decision) if isinstance(one, Scored) else (type(one), str(one))
        for one in judged
    ]


def test_stale_features_are_said_and_a_large_amount_is_looked_at():
    given = [payment(transaction_id=f"t{n}", amount=amount) for n, amount in enumerate((50.0, 250.0, 750.0))]
    given.append(payment(transaction_id="t3", amount=250.0, card_id="overrun"))
    judged = judge(review_from=100.0).judge(Lineup(model()), given, replace(rows(given), stale=True))
    assert [(one.degraded_cause, one.decision) for one in judged if isinstance(one, Scored)] == [
        ("stale_features", "approve"),
        ("stale_features", "review"),
        ("stale_features", "review"),
        ("incomplete_features", "approve"),
    ]


def test_each_payment_is_decided_on_its_own_row():
    given = [payment(transaction_id="a", amount=250.0), payment(transaction_id="b", amount=750.0, card_id="new"),
             payment(transaction_id="c", amount=1_000.0, card_id="overrun")]  # fmt: skip
    judged = judge().judge(Lineup(model()), given, rows(given))
    assert told(judged) == [
        ("champion", None, "approve"),
        ("champion", None, "review"),
        ("champion", "incomplete_features", "decline"),
    ]
    made = [one for one in judged if isinstance(one, Scored)]
    assert [one.asked.payment.transaction_id for one in made] == ["a", "b", "c"]
    assert [one.risk_level for one in made] == ["low", "medium", "high"]
    assert [one.feature_age_seconds for one in made] == [60.0, None, 60.0]
    assert [one.probability for one in made] == [0.25, 0.75, 1.0]
    assert [one.vector[0] for one in made] == [0.25, 0.75, 1.0]


def test_rows_and_payments_that_do_not_pair_up_are_a_fault():
    with pytest.raises(ValueError, match="zip"):
        judge().judge(Lineup(model()), payments(250.0), rows(payments(250.0, 750.0)))


@pytest.mark.parametrize("session", [Moody(), NotANumber()])
def test_a_row_that_the_model_fails_on_is_the_fallbacks_and_no_other(session: FirstColumn):
    given = payments(250.0, 500.0, 950.0)
    judged = judge().judge(Lineup(model(session=session), fallback=fallback()), given, rows(given))
    assert told(judged) == [
        ("champion", None, "approve"),
        ("fallback", "model_failed", "review"),
        ("champion", None, "decline"),
    ]


def test_a_row_that_no_model_can_take_fails_alone():
    given = payments(250.0, 500.0, 950.0)
    alone, failed, other = judge().judge(Lineup(model(session=Moody())), given, rows(given))
    assert told([alone, other]) == [("champion", None, "approve"), ("champion", None, "decline")]
    assert isinstance(failed, Unavailable)
    assert failed.part == "model"
    lineup = Lineup(model(session=Moody()), fallback=fallback(Moody()))
    alone, failed, other = judge().judge(lineup, given, rows(given))
    assert told([alone, other]) == [("champion", None, "approve"), ("champion", None, "decline")]
    assert isinstance(failed, Unavailable)
    assert failed.part == "model"


def test_a_row_that_the_fallback_fails_on_is_nobody_elses():
    given = payments(50.0, 500.0, 60.0)
    first, failed, last = judge().judge(Lineup(model(), fallback=fallback(Moody())), given, None)
    assert told([first, last]) == [("fallback", "features_unavailable", "approve")] * 2
    assert isinstance(failed, Unavailable)
    assert failed.part == "model"


def test_without_features_and_without_a_fallback_every_payment_is_unavailable():
    given = payments(250.0, 500.0)
    judged = judge().judge(Lineup(model()), given, None)
    assert [one.part for one in judged if isinstance(one, Unavailable)] == ["feature_store"] * 2


@pytest.mark.parametrize(
    ("amount", "score", "decision"),
    [
        (99.99, 0.1, "approve"),
        (99.99, 0.6, "review"),
        (99.99, 0.95, "review"),  # fail open below the limit: nobody is declined on so little
        (100.0, 0.1, "review"),
        (100.0, 0.6, "review"),
        (100.0, 0.95, "decline"),
    ],
)
@pytest.mark.parametrize("cause", ["features_unavailable", "model_failed"])
def test_the_policy_around_the_amount_from_which_payments_are_reviewed(
    amount: float, score: float, decision: str, cause: str
):
    class Fixed(FirstColumn):
        def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
            (vectors,) = inputs.values()
            return [np.full((len(vectors), 2), score, np.float32)]

    class Broken(FirstColumn):
        def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
            raise RuntimeError("broken")

    given = payments(amount)
    found = rows(given) if cause == "model_failed" else None
    (one,) = judge().judge(Lineup(model(session=Broken()), fallback=fallback(Fixed())), given, found)
    assert isinstance(one, Scored)
    assert (one.decision, one.degraded_cause, one.feature_age_seconds) == (decision, cause, None)
    assert one.probability == pytest.approx(score)
    if decision == "review":
        assert one.risk_level == "medium"


def test_incomplete_features_are_no_reason_for_another_decision():
    given = [payment(amount=950.0, card_id="overrun")]
    assert told(judge().judge(Lineup(model()), given, rows(given))) == [("champion", "incomplete_features", "decline")]


def test_reasons_are_asked_of_the_model_that_decided_for_its_rows_and_go_to_their_payments():
    asked: list[tuple[str, list[float], list[str]]] = []

    def why(of: Any, vectors: Any, decisions: Sequence[str]) -> list[list[Reason]]:
        asked.append((of.role, vectors[:, 0].tolist(), list(decisions)))
        return [
            [Reason(of.role, "score", float(row[0]), decision)]
            for row, decision in zip(vectors, decisions, strict=True)
        ]

    given = payments(*np.arange(100.0, 1_000.0, 25.0).tolist())
    lineup = Lineup(model(), challenger=model("8", role="challenger"), weight=0.5)
    judged = judge(why).judge(lineup, given, rows(given))
    made = [one for one in judged if isinstance(one, Scored)]
    assert len(made) == len(given)
    assert {one.model.role for one in made} == {"champion", "challenger"}
    assert [lineup.role_of(one.asked.payment.transaction_id) for one in made] == [one.model.role for one in made]
    assert len(asked) == 2
    for one in made:
        (reason,) = one.reasons
        assert (reason.code, reason.contribution, reason.text) == (one.model.role, one.vector[0], one.decision)


BODY = (
    b'{"transaction_id":"t1","timestamp":"2026-03-01T11:59:00Z","card_id":"c1","merchant_id":"m1","amount":42.5,'
    b'"merchant_category":"travel","country":"GB","channel":"pos","device_id":"d1","ip":"::1","currency":"GBP"}'
)


@pytest.mark.parametrize(
    "other",
    [
        b" " + BODY.replace(b",", b" ,\n").replace(b":", b": ", 1),
        BODY.replace(b"42.5", b"4.250e1"),
        BODY.replace(b"T11:59:00Z", b"T11:59:00.000000+00:00"),
        BODY.replace(b"T11:59:00Z", b"T13:59:00+02:00"),
        BODY.replace(b'"c1"', b'"\\u00631"'),
        b"{" + b",".join(reversed(BODY.strip(b"{}").split(b","))) + b"}",
    ],
    ids=["spaces", "number", "microseconds", "offset", "escape", "order"],
)
def test_the_same_content_has_the_same_digest_however_it_was_written(other: bytes):
    assert other != BODY
    assert read(other).digest() == read(BODY).digest()


def test_a_field_that_is_null_is_a_field_that_was_left_out():
    bare = BODY.replace(b',"currency":"GBP"', b"")
    assert read(BODY.replace(b'"GBP"', b"null")).digest() == read(bare).digest()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"t1"', b'"t2"'),
        (b"11:59:00Z", b"11:59:00.000001Z"),
        (b'"c1"', b'"c2"'),
        (b'"m1"', b'"m2"'),
        (b"42.5", b"42.500000000000007"),
        (b'"travel"', b'"grocery"'),
        (b'"travel"', b"null"),
        (b'"GB"', b'"FR"'),
        (b'"pos"', b'"atm"'),
        (b'"d1"', b'"d2"'),
        (b'"::1"', b'"::2"'),
        (b'"GBP"', b'"EUR"'),
        (b'"c1","merchant_id":"m1"', b'"m1","merchant_id":"c1"'),
    ],
)
def test_any_other_content_has_another_digest(old: bytes, new: bytes):
    assert BODY.count(old) == 1
    assert read(BODY.replace(old, new)).digest() != read(BODY).digest()
    assert len(read(BODY).digest()) == 16
