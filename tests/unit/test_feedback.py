"""`POST /feedback` as far as it is pure: what is taken, what is refused and how it is said."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bentos.errors import Refused
from bentos.feedback import Feedback, feedback_answer, feedback_command, matched, read_feedback
from monitoring.feedback_log import recorded_at, unpack

NOW = datetime(2026, 3, 20, 10, tzinfo=UTC)
SKEW = timedelta(minutes=5)
WEEK = timedelta(days=7)


def body(**fields: Any) -> bytes:
    said = {"transaction_id": "t-1", "kind": "chargeback", "occurred_at": "2026-03-20T09:30:00Z", **fields}
    return json.dumps({name: value for name, value in said.items() if value is not None}).encode()


def read(**fields: Any) -> Feedback:
    return read_feedback(body(**fields), NOW, SKEW)


def refused(sent: bytes) -> Refused:
    with pytest.raises(Refused) as raised:
        read_feedback(sent, NOW, SKEW)
    return raised.value


def test_the_same_content_is_the_same_statement_however_it_is_written() -> None:
    one = feedback_command(read(source="bank"), "feedback")
    other = feedback_command(
        read_feedback(
            b'{"source": "bank", "occurred_at": "2026-03-20T11:30:00+02:00",'
            b' "kind": "chargeback", "transaction_id": "t-1"}',
            NOW,
            SKEW,
        ),
        "feedback",
    )
    assert one == other
    assert one != feedback_command(read(source="scheme"), "feedback")
    assert one[4].startswith(b"{feedback}:t-1:")


def test_the_statement_on_record_is_read_back() -> None:
    feedback = read(source="bank", card_id="card-1", paid_at="2026-03-01T12:00:00Z")
    command = feedback_command(feedback, "feedback")
    assert unpack({b"statement": command[5]}) == feedback.statement()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"kind": "fraud"}, "kind"),
        ({"kind": None}, "kind"),
        ({"transaction_id": ""}, "transaction_id"),
        ({"transaction_id": 7}, "transaction_id"),
        ({"transaction_id": "x" * 65}, "transaction_id"),
        ({"occurred_at": "2026-03-20T09:30:00"}, "occurred_at"),
        ({"occurred_at": 1_700_000_000}, "occurred_at"),
        ({"occurred_at": "2026-03-20T10:05:01Z"}, "occurred_at"),
        ({"paid_at": "2026-03-20T09:30:01Z"}, "occurred_at"),
        ({"amount": 3}, "amount"),
    ],
)
def test_a_broken_rule_is_named(fields: dict[str, Any], field: str) -> None:
    error = refused(body(**fields))
    assert (error.status, error.detail.code) == (422, "invalid_feedback")
    assert [problem.field for problem in error.detail.problems] == [field]


@pytest.mark.parametrize("sent", [b"", b"{", b"\xff", b"nothing"])
def test_what_is_no_json_is_told_so(sent: bytes) -> None:
    error = refused(sent)
    assert (error.status, error.detail.code) == (400, "malformed_json")


@pytest.mark.parametrize("sent", [b"[]", b"7", b"null", b'"text"'])
def test_json_that_is_no_object_breaks_a_rule(sent: bytes) -> None:
    assert refused(sent).status == 422


def test_a_payment_with_a_claim_is_known_whatever_is_said_of_its_time() -> None:
    assert matched(read(), True, NOW, WEEK)
    assert matched(read(paid_at="2026-01-01T00:00:00Z"), True, NOW, WEEK)


def test_a_payment_without_a_claim_is_unknown_unless_it_is_said_to_be_old() -> None:
    assert not matched(read(paid_at="2026-03-13T09:59:59Z"), False, NOW, WEEK)
    for feedback, way in (
        (read(), "If it is older than 7 days, 0:00:00, say when it was made: `paid_at`."),
        (read(paid_at="2026-03-13T10:00:00Z"), "It was never decided here."),
    ):
        with pytest.raises(Refused, match="is not in the decision log") as raised:
            matched(feedback, False, NOW, WEEK)
        assert (raised.value.status, raised.value.detail.code) == (404, "unknown_transaction")
        assert way in raised.value.detail.message


def test_where_claims_never_expire_a_payment_without_one_was_never_decided() -> None:
    with pytest.raises(Refused, match="never decided"):
        matched(read(paid_at="2020-01-01T00:00:00Z"), False, NOW, None)


def test_the_answer_says_what_became_of_the_statement() -> None:
    replies = [(1, True), (0, True), (1, False), (0, False)]
    said = [feedback_answer(read(), reply, known).status for reply, known in replies]
    assert said == ["accepted", "repeated", "unknown", "repeated"]


def test_a_statement_is_known_from_when_it_was_recorded() -> None:
    assert recorded_at("1774000800123-4") == datetime(2026, 3, 20, 10, 0, 0, 123_000, tzinfo=UTC)
