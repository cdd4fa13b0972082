"""From vectors to answers, and through the gate: nothing is answered that isn't on record."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import numpy as np
import pytest
import redis

from bentos.answers import Answer, Rejected
from bentos.decisions import logged
from bentos.errors import Unavailable
from bentos.features import AGES, FeatureRows, entity_row, is_unknown_category, youngest
from bentos.intake import rejected
from bentos.scoring import answer, confidence, score
from feature_repo.schema import InvalidTransaction
from monitoring.decision_log import decode, encode
from tests.unit.stand_ins import COLUMNS, NOW, Log, Reader, contract, gate, model, transaction


def rows(
    *probabilities: float, ages: tuple[float | None, ...] | None = None, incomplete: tuple[bool, ...] | None = None
) -> FeatureRows:
    vectors = np.array([[probability, np.nan] for probability in probabilities], np.float32)
    return FeatureRows(vectors, ages or (None,) * len(probabilities), incomplete or (False,) * len(probabilities))


def test_each_payment_is_decided_on_its_own_row():
    payments = [transaction(transaction_id=name) for name in ("a", "b", "c")]
    scored = score(model(), payments, rows(0.25, 0.75, 1.0, ages=(None, 3.0, 0.5)))
    assert [one.transaction.transaction_id for one in scored] == ["a", "b", "c"]
    assert [one.decision for one in scored] == ["approve", "review", "decline"]
    assert [one.risk_level for one in scored] == ["low", "medium", "high"]
    assert [one.feature_age_seconds for one in scored] == [None, 3.0, 0.5]


def test_rows_and_payments_that_do_not_pair_up_are_a_fault():
    with pytest.raises(ValueError, match="zip"):
        score(model(), [transaction()], rows(0.25, 0.75))


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
    (scored,) = score(model("12"), [transaction()], rows(0.75, ages=(61.5,)))
    told = answer(scored, model("12"), NOW, 1.25)
    assert told.model_dump(mode="json") == {
        "transaction_id": "t1",
        "fraud_probability": 0.75,
        "decision": "review",
        "risk_level": "medium",
        "confidence": pytest.approx(0.75),
        "model_name": "stand-in",
        "model_version": "12",
        "model_role": "champion",
        "feature_age_seconds": 61.5,
        "degraded": False,
        "degraded_cause": None,
        "latency_ms": 1.25,
        "timestamp": "2026-03-01T12:00:00Z",
    }


def test_a_payment_whose_windows_lack_events_is_decided_and_says_so():
    payments = [transaction(transaction_id=name) for name in ("a", "b")]
    scored = score(model(), payments, rows(0.2, 0.9, incomplete=(False, True)))
    told = [answer(one, model(), NOW, 1.0) for one in scored]
    assert [(one.degraded, one.degraded_cause) for one in told] == [(False, None), (True, "incomplete_features")]


def test_a_logged_decision_is_what_was_scored_bit_for_bit():
    payment = transaction(country="GB", merchant_category="space tourism")
    (scored,) = score(model(), [payment], rows(0.1, ages=(0.1,)))
    fields = encode(logged(scored, model(), NOW))
    stored = {name.encode(): v if isinstance(v, bytes) else str(v).encode() for name, v in fields.items()}
    read = decode("1-0", stored)
    assert read.transaction == payment
    assert read.vector.tobytes() == scored.vector.tobytes()
    assert (read.probability, read.decision) == (scored.probability, "approve")
    assert (read.feature_age_seconds, read.decided_at) == (0.1, NOW)
    assert (read.model_name, read.model_version, read.feature_service) == ("stand-in", "7", "fraud_v1")


def test_an_unknown_age_is_logged_as_unknown():
    (scored,) = score(model(), [transaction()], rows(0.1))
    assert "feature_age_seconds" not in encode(logged(scored, model(), NOW))


def test_the_younger_entity_gives_the_age_and_names_are_computed():
    assert AGES == ("card_seconds_since_last", "merchant_seconds_since_last")
    assert youngest([None, 4.0]) == 4.0
    assert youngest([3.0, 4.0]) == 3.0
    assert youngest([None, None]) is None


def test_an_unknown_category_is_asked_for_as_other():
    payment = transaction(merchant_category="space tourism")
    assert is_unknown_category(payment)
    assert entity_row(payment)["merchant_category"] == "other"
    assert not is_unknown_category(transaction())
    assert entity_row(transaction())["merchant_category"] is None


def test_an_instant_goes_to_the_store_in_exact_microseconds():
    payment = transaction(timestamp="2026-03-01T12:59:00.000001+01:00")
    assert entity_row(payment)["timestamp_us"] == 1_772_366_340_000_001


def test_the_gate_answers_what_it_put_on_record():
    log = Log()
    told = asyncio.run(gate(log=log).predict(transaction(amount=950.0), 0.0))
    ((scored, version, decided_at),) = log.kept
    assert (told.decision, told.feature_age_seconds) == ("decline", 60.0)
    assert (scored.probability, version, decided_at) == (told.fraud_probability, told.model_version, told.timestamp)
    assert len(scored.vector) == len(COLUMNS)


@pytest.mark.parametrize("amount", [100.0, 950.0])
def test_a_decision_that_cannot_be_put_on_record_is_not_answered(amount: float):
    closed = gate(log=Log(fails=redis.ConnectionError("gone")))
    with pytest.raises(Unavailable, match="decision log does not answer"):
        asyncio.run(closed.predict(transaction(amount=amount), 0.0))
    assert not closed.ready()


def test_nothing_is_put_on_record_where_the_features_could_not_be_read():
    log = Log()
    with pytest.raises(Unavailable, match="feature store"):
        asyncio.run(gate(Reader(Unavailable("feature_store", redis.TimeoutError())), log).predict(transaction(), 0.0))
    assert log.kept == []


def test_a_batch_keeps_its_order_and_one_bad_item_fails_alone():
    log = Log()
    late = transaction(transaction_id="late", timestamp="2026-02-01T00:00:00Z")
    items = [transaction(transaction_id="a"), late, transaction(transaction_id="c", amount=600.0)]
    results = asyncio.run(gate(log=log).predict_batch(items, 0.0)).results
    assert [type(one) for one in results] == [Answer, Rejected, Answer]
    assert [one.transaction_id for one in results] == ["a", "late", "c"]
    assert [one.transaction.transaction_id for one, _, _ in log.kept] == ["a", "c"]


def test_a_batch_of_rejections_needs_no_store():
    broken = gate(Reader(RuntimeError()), Log(RuntimeError()))
    items = [rejected("x", InvalidTransaction("'x'", [{"field": "amount", "value": 0, "rule": "must be > 0"}]))]
    assert len(asyncio.run(broken.predict_batch(items, 0.0)).results) == 1
    assert asyncio.run(broken.predict_batch([], 0.0)).results == []


def test_the_window_of_instants_is_closed_at_both_ends():
    open_gate = gate()
    for at in (NOW - timedelta(days=7), NOW + timedelta(minutes=5)):
        asyncio.run(open_gate.predict(transaction(timestamp=at.isoformat()), 0.0))
    for at in (NOW - timedelta(days=7, microseconds=1), NOW + timedelta(minutes=5, microseconds=1)):
        with pytest.raises(InvalidTransaction, match="timestamp"):
            asyncio.run(open_gate.predict(transaction(timestamp=at.isoformat()), 0.0))


def test_a_model_put_in_service_decides_the_next_payment_and_not_the_one_under_way():
    reading, swapped = threading.Event(), threading.Event()

    class SlowReader(Reader):
        def read(self, transactions):
            reading.set()
            assert swapped.wait(10)
            return super().read(transactions)

    busy = gate(SlowReader())

    async def swap_meanwhile() -> Answer:
        under_way = asyncio.create_task(busy.predict(transaction(), 0.0))
        await asyncio.to_thread(reading.wait, 10)
        busy.serve(model("8"))
        swapped.set()
        return await under_way

    assert asyncio.run(swap_meanwhile()).model_version == "7"
    assert asyncio.run(busy.predict(transaction(), 0.0)).model_version == "8"
    assert busy.card().version == "8"
