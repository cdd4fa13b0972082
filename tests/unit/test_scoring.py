"""From vectors to answers, and through the gate: nothing is answered that isn't on record."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st

from bentos.answers import Answer, BatchAnswer, Rejected
from bentos.answers import Reason as SpokenReason
from bentos.batcher import UNDER_WAY
from bentos.errors import Refused, Unavailable
from bentos.features import AGES, entity_row, is_unknown_category, youngest
from bentos.intake import rejected
from bentos.lineup import Lineup
from bentos.reasons import Reason
from bentos.scoring import Scored, answer, confidence, decide
from feature_repo.schema import InvalidTransaction
from tests.unit.stand_ins import (
    COLUMNS,
    NOW,
    Log,
    Online,
    Reader,
    Shadow,
    contract,
    fallback,
    gate,
    model,
    payment,
    transaction,
)

AT = "2026-03-01T12:00:00Z"


def scored(probability: float = 0.75, of: Any = None, **changed: Any) -> Scored:
    """A decision as the judge makes it."""
    given = Reader().read([payment()])
    decider = of or model()
    decision, risk = decide(decider.contract, probability, None, 42.5, 100.0)
    made = Scored(payment(), given.vectors[0], decider, 60.0, probability, decision, risk, None, [])
    for name, value in changed.items():
        setattr(made, name, value)
    return made


def told(body: bytes) -> Answer:
    return Answer.model_validate_json(body)


def predict(closed: Any, **changed: Any) -> Answer:
    """What a gate answers to one payment."""
    return told(asyncio.run(closed.predict(payment(**changed), 0.0)))


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(0.0, 1.0), (0.25, 0.5), (0.5, 0.0), (0.6, 0.5), (0.7, 1.0), (0.8, 0.5), (0.9, 0.0), (0.95, 0.5), (1.0, 1.0)],
)
def test_confidence_is_the_distance_from_where_the_decision_changes(probability: float, expected: float):
    assert confidence(contract(), probability) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("review", "decline", "probability", "expected"),
    [
        (0.0, 0.5, 0.0, 1.0),  # everything below 0.5 is reviewed: there is no threshold to be near at 0
        (0.0, 0.5, 0.25, 0.5),
        (0.5, 1.0, 1.0, 1.0),  # declined at 1 alone
        (0.0, 0.0, 0.3, 0.3),
        (0.5, 0.5, 0.25, 0.5),  # nothing is reviewed
    ],
)
def test_confidence_at_thresholds_on_the_edge(review: float, decline: float, probability: float, expected: float):
    assert confidence(contract(review, decline), probability) == pytest.approx(expected)


def test_an_answer_says_which_model_decided_and_when():
    assert json.loads(answer(scored(0.75, model("12"), feature_age_seconds=61.5), AT, 1.25)) == {
        "transaction_id": "t1",
        "fraud_probability": 0.75,
        "decision": "review",
        "risk_level": "medium",
        "confidence": pytest.approx(0.75),
        "reasons": [],
        "model_name": "stand-in",
        "model_version": "12",
        "model_role": "champion",
        "feature_age_seconds": 61.5,
        "degraded": False,
        "degraded_cause": None,
        "control_group": False,
        "latency_ms": 1.25,
        "timestamp": "2026-03-01T12:00:00Z",
    }


# From 1e16 on the two write another exponent (1e16, 1e+16); no age and no contribution is that large.
finite = st.floats(-1e15, 1e15)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
reasons = st.lists(st.builds(Reason, code=texts, feature=texts, contribution=finite, text=texts), max_size=3)


@given(
    probability=st.floats(0, 1),
    age=st.none() | finite,
    latency=st.floats(0, 1e9),
    reasons=reasons,
    cause=st.sampled_from([None, "incomplete_features", "features_unavailable", "model_failed"]),
    version=texts,
    passed=st.booleans(),
    at=st.datetimes(datetime(2000, 1, 1), timezones=st.just(UTC)),
)
@example(5e-324, -0.0, 0.0, [], None, "7", False, NOW)
@example(1e-7, 1e15, 1e-7, [Reason("A", "b", -1e-5, '\u2028\x7f "/\\ \U0001f4b3')], None, "7", True, NOW)
@example(0.1 + 0.2, 1e15 - 0.125, 123456789.123, [Reason("A", "b", 5e-324, "\x00\x1f")], "model_failed", "", False, NOW)
def test_the_bytes_of_an_answer_are_those_that_the_documented_model_writes(
    probability: float,
    age: float | None,
    latency: float,
    reasons: list[Reason],
    cause: Any,
    version: str,
    passed: bool,
    at: datetime,
):
    made = scored(probability, model(version), feature_age_seconds=age, degraded_cause=cause, reasons=reasons)
    made.control_group = passed
    document = Answer(
        transaction_id="t1",
        fraud_probability=probability,
        decision=made.decision,
        risk_level=made.risk_level,
        confidence=confidence(made.model.contract, probability),
        reasons=tuple(
            SpokenReason(code=one.code, feature=one.feature, contribution=one.contribution, text=one.text)
            for one in reasons
        ),
        model_name="stand-in",
        model_version=version,
        model_role="champion",
        feature_age_seconds=age,
        degraded=cause is not None,
        degraded_cause=cause,
        control_group=passed,
        latency_ms=latency,
        timestamp=at,
    )
    written = answer(made, at.isoformat().replace("+00:00", "Z"), latency)
    assert told(written) == document
    assert written == document.model_dump_json().encode()


def test_the_younger_entity_gives_the_age_and_names_are_computed():
    assert AGES == ("card_seconds_since_last", "merchant_seconds_since_last")
    assert youngest([None, 4.0]) == 4.0
    assert youngest([3.0, 4.0]) == 3.0
    assert youngest([None, None]) is None


def test_an_unknown_category_is_asked_for_as_other():
    odd = payment(merchant_category="space tourism")
    assert is_unknown_category(odd)
    assert entity_row(odd)["merchant_category"] == "other"
    assert not is_unknown_category(payment())
    assert entity_row(payment())["merchant_category"] is None


def test_an_instant_goes_to_the_store_in_exact_microseconds():
    assert entity_row(payment(timestamp="2026-03-01T12:59:00.000001+01:00"))["timestamp_us"] == 1_772_366_340_000_001


def test_the_gate_answers_what_it_put_on_record():
    log = Log()
    one = asyncio.run(gate(log=log).predict(payment(amount=950.0, country="GB"), 0.0))
    (logged,) = log.decisions
    assert logged.answer == one
    assert (told(one).decision, told(one).feature_age_seconds) == ("decline", 60.0)
    assert logged.transaction == transaction(amount=950.0, country="GB")
    assert logged.vector.tobytes() == Reader().read([payment(amount=950.0)]).vectors[0].tobytes()
    assert len(logged.vector) == len(COLUMNS)
    assert (logged.probability, logged.decision) == (told(one).fraud_probability, "decline")
    assert (logged.model_name, logged.model_version, logged.model_role) == ("stand-in", "7", "champion")
    assert (logged.feature_age_seconds, logged.decided_at, logged.feature_service) == (60.0, NOW, "fraud_v2")


def test_a_category_is_on_record_as_it_was_sent():
    log = Log()
    predict(gate(log=log), merchant_category="space tourism")
    assert log.decisions[0].transaction.merchant_category == "space tourism"


def test_an_unknown_age_is_answered_and_logged_as_unknown():
    log = Log()
    assert predict(gate(log=log), card_id="new").feature_age_seconds is None
    assert log.decisions[0].feature_age_seconds is None


def test_a_payment_whose_windows_lack_events_is_decided_and_says_so():
    one, other = predict(gate()), predict(gate(), card_id="overrun")
    assert (one.degraded, one.degraded_cause) == (False, None)
    assert (other.degraded, other.degraded_cause, other.model_role) == (True, "incomplete_features", "champion")


def test_a_decision_without_features_is_on_record_with_the_service_of_its_vector():
    log = Log()
    one = predict(gate(Online(away=True), log, lineup=Lineup(model(), fallback=fallback())))
    assert (one.model_role, one.degraded_cause, one.feature_age_seconds) == ("fallback", "features_unavailable", None)
    assert log.decisions[0].feature_service == "fraud_request_v1"


@pytest.mark.parametrize("amount", [100.0, 950.0])
def test_a_decision_that_cannot_be_put_on_record_is_not_answered(amount: float):
    closed = gate(log=Log(fails=redis.ConnectionError("gone")))
    with pytest.raises(Unavailable, match="decision log does not answer"):
        predict(closed, amount=amount)
    assert not asyncio.run(closed.ready())


def test_nothing_is_put_on_record_where_neither_features_nor_a_fallback_can_be_had():
    log = Log()
    with pytest.raises(Unavailable, match="feature store"):
        predict(gate(Online(away=True), log))
    assert log.kept == []


def test_a_card_whose_state_cannot_be_read_degrades_its_own_payments_only():
    items = [
        payment(transaction_id=name, card_id=card) for name, card in (("a", "c1"), ("b", "unreadable"), ("c", "c2"))
    ]
    behind = gate(lineup=Lineup(model(), fallback=fallback()))
    results = BatchAnswer.model_validate_json(asyncio.run(behind.predict_batch(items, 0.0))).results
    assert [one.model_role for one in results if isinstance(one, Answer)] == ["champion", "fallback", "champion"]


def test_a_payment_sent_again_has_one_answer_one_entry_and_is_scored_unseen_once():
    log, shadow = Log(), Shadow()
    open_gate = gate(log=log, shadow=shadow)
    first, again = (asyncio.run(open_gate.predict(payment(), started)) for started in (0.0, 1.0))
    assert first == again
    assert len(log.kept) == 1
    assert [one.asked.payment.transaction_id for one in shadow.seen] == ["t1"]
    with pytest.raises(Refused, match="Another payment was decided as 't1'") as refused:
        predict(open_gate, amount=42.51)
    assert refused.value.status == 409


def test_one_payment_twice_in_one_batch_is_decided_once():
    log = Log()
    results = json.loads(asyncio.run(gate(log=log).predict_batch([payment(), payment()], 0.0)))["results"]
    assert results[0] == results[1]
    assert len(log.kept) == 1


def test_a_batch_keeps_its_order_and_one_bad_item_fails_alone():
    log = Log()
    late = payment(transaction_id="late", timestamp="2026-02-01T00:00:00Z")
    items = [payment(transaction_id="a"), late, payment(transaction_id="c", amount=600.0)]
    results = BatchAnswer.model_validate_json(asyncio.run(gate(log=log).predict_batch(items, 0.0))).results
    assert [type(one) for one in results] == [Answer, Rejected, Answer]
    assert [one.transaction_id for one in results] == ["a", "late", "c"]
    assert [one.transaction_id for one in log.kept] == ["a", "c"]


def test_a_batch_of_rejections_needs_no_store():
    broken = gate(Reader(RuntimeError()), Log(RuntimeError()))
    items = [rejected("x", InvalidTransaction("'x'", [{"field": "amount", "value": 0, "rule": "must be > 0"}]))]
    assert len(json.loads(asyncio.run(broken.predict_batch(items, 0.0)))["results"]) == 1
    assert asyncio.run(broken.predict_batch([], 0.0)) == b'{"results":[]}'


def test_the_window_of_instants_is_closed_at_both_ends():
    for at in (NOW - timedelta(days=7), NOW + timedelta(minutes=5)):
        predict(gate(), timestamp=at.isoformat())
    for at in (NOW - timedelta(days=7, microseconds=1), NOW + timedelta(minutes=5, microseconds=1)):
        with pytest.raises(InvalidTransaction, match="timestamp"):
            predict(gate(), timestamp=at.isoformat())


def test_a_claim_lasts_longer_than_its_payment_may_be_sent_again():
    log = Log()
    predict(gate(log=log))
    sent = datetime.fromisoformat("2026-03-01T11:59:00Z")
    kept = datetime.fromtimestamp(log.kept[0].expires_ms / 1e3, UTC) - sent
    assert timedelta(days=7) < kept < timedelta(days=9)


def in_one_loop(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))  # type: ignore[arg-type]


def test_a_model_put_in_service_decides_the_next_payment_and_not_the_one_under_way():
    async def swap_meanwhile() -> None:
        online, lineups = Online(answers=asyncio.Event()), [Lineup(model())]
        busy = gate(online, lineup=lambda: lineups[-1])
        under_way = asyncio.create_task(busy.predict(payment(), 0.0))
        while not online.batches:
            await asyncio.sleep(0)
        lineups.append(Lineup(model("8")))
        assert online.answers is not None
        online.answers.set()
        assert told(await under_way).model_version == "7"
        assert told(await busy.predict(payment(transaction_id="t2"), 0.0)).model_version == "8"
        assert busy.card().version == "8"

    in_one_loop(swap_meanwhile)


def test_payments_at_once_are_one_batch_for_the_stores_each_with_its_own_answer():
    async def work() -> None:
        online, log = Online(), Log()
        open_gate = gate(online, log)
        asked = [payment(transaction_id=f"t{n}", amount=10.0 + n) for n in range(20)]
        answers = await asyncio.gather(*(open_gate.predict(one, 0.0) for one in asked))
        assert online.batches == [[f"t{n}" for n in range(20)]]
        assert [told(one).transaction_id for one in answers] == [f"t{n}" for n in range(20)]
        assert [entry.answer for entry in log.kept] == list(answers)

    in_one_loop(work)


def test_a_payment_whose_client_has_gone_is_decided_all_the_same():
    async def work() -> None:
        online, log = Online(answers=asyncio.Event()), Log()
        open_gate = gate(online, log)
        gone, stays = (
            asyncio.create_task(open_gate.predict(payment(transaction_id=n), 0.0)) for n in ("gone", "stays")
        )
        while not online.batches:
            await asyncio.sleep(0)
        gone.cancel()
        assert online.answers is not None
        online.answers.set()
        assert told(await stays).transaction_id == "stays"
        assert [one.transaction_id for one in log.kept] == ["gone", "stays"]

    in_one_loop(work)


def test_closing_waits_for_what_is_under_way():
    async def work() -> None:
        online, log = Online(answers=asyncio.Event()), Log()
        closing = gate(online, log)
        asked = [asyncio.create_task(closing.predict(payment(transaction_id=f"t{n}"), 0.0)) for n in range(UNDER_WAY)]
        while not online.batches:
            await asyncio.sleep(0)
        closed = asyncio.create_task(closing.close())
        await asyncio.sleep(0)
        assert not closed.done()
        assert online.answers is not None
        online.answers.set()
        await closed
        assert len(log.kept) == UNDER_WAY
        await asyncio.gather(*asked)

    in_one_loop(work)
