"""A decision as a row, a message and a claim: what is written is read back, and the chain's hash never changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from monitoring.decision_claim import CONFIRMED, KafkaClaim, claim, read_claim
from monitoring.decision_log import LoggedDecision
from monitoring.decision_message import Message, key, logged, pack
from monitoring.decision_row import COLUMNS, GENESIS, content, link, row

REQUEST = (
    b'{"transaction_id":"t-1","timestamp":"2026-03-04T12:00:00.000001Z","card_id":"card-1","merchant_id":"m-1",'
    b'"amount":10,"merchant_category":"gro\\u0000cery"}'
)
ANSWER = (
    b'{"transaction_id":"t-1","fraud_probability":0.25,"decision":"approve","risk_level":"low","confidence":1,'
    b'"reasons":[],"model_name":"fraud","model_version":"3","model_role":"champion","feature_age_seconds":90,'
    b'"degraded":false,"degraded_cause":null,"latency_ms":1.5,"timestamp":"2026-03-04T12:00:00.5Z"}'
)
DECISION = LoggedDecision("7-0", REQUEST, np.array([1.0, np.nan], np.float32), ANSWER, "fraud_v1")


def test_a_row_says_what_the_answer_said() -> None:
    found = dict(zip(COLUMNS, row(DECISION), strict=True))
    assert found["decided_at"] == datetime(2026, 3, 4, 12, 0, 0, 500_000, UTC)
    assert found["paid_at"] == datetime(2026, 3, 4, 12, 0, 0, 1, UTC)
    assert (found["amount"], found["feature_age_seconds"], found["degraded_cause"]) == (10.0, 90.0, None)
    assert (found["request"], found["answer"]) == (REQUEST.decode(), ANSWER.decode())
    assert np.frombuffer(found["vector"], "<f4").tobytes() == DECISION.vector.tobytes()


def test_the_hash_is_the_one_that_is_written_down_here() -> None:
    # Rows outlive the code: a change of this value breaks every chain there is.
    assert link(GENESIS, 1, row(DECISION)).hex() == "c76b14137c6dcb5963102bbe6b87a4cbf9e813f29e9f5c3b74eb2d27dc76dda1"


def test_the_hash_does_not_depend_on_the_zone_an_instant_is_told_in() -> None:
    values = list(row(DECISION))
    moved = [
        value.astimezone(timezone(timedelta(hours=5))) if isinstance(value, datetime) else value for value in values
    ]
    assert link(GENESIS, 1, values) == link(GENESIS, 1, moved)
    assert link(GENESIS, 1, values) != link(GENESIS, 2, values)
    assert link(GENESIS, 1, values) != link(bytes([1] * 32), 1, values)


def test_the_entry_is_no_part_of_a_decision_s_content() -> None:
    other = LoggedDecision("8-0", REQUEST, DECISION.vector, ANSWER, "fraud_v1")
    assert content(DECISION) == content(other)
    assert content(DECISION) != content(LoggedDecision("7-0", REQUEST, DECISION.vector, ANSWER, "fraud_request_v1"))


def test_a_message_holds_the_decision_and_is_keyed_by_its_card() -> None:
    body = pack(Message(REQUEST, DECISION.vector.tobytes(), ANSWER, "fraud_v1"))
    found = logged("decisions-0-7", body)
    assert (found.request, found.answer, found.feature_service) == (REQUEST, ANSWER, "fraud_v1")
    assert found.vector.tobytes() == DECISION.vector.tobytes()
    assert key(REQUEST) == b"card-1"
    with pytest.raises(ValueError, match="truncated"):
        logged("decisions-0-7", body[:-1])


def test_a_claim_names_an_entry_or_holds_the_message() -> None:
    digest = bytes(range(16))
    waiting = claim(digest, b"body")
    assert read_claim(waiting) == KafkaClaim(digest, False, b"body")
    assert read_claim(waiting[:16] + CONFIRMED + waiting[17:]) == KafkaClaim(digest, True, b"body")
    assert read_claim(digest + b"1774000800123-4") == "1774000800123-4"
