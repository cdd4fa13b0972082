"""What `POST /feedback` takes and gives, and the one command in Redis that puts it on record. Pure.

The same statement sent twice is on record once. Whoever states something of a payment learns at once if the payment was
never decided here: within the idempotency window its claim would be there. Of an older payment the claim is gone, so
its own time (`paid_at`) has to be stated, and the statement is taken unmatched; the label job looks it up.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from bentos.answers import Spoken
from bentos.errors import Refused
from feature_repo.schema import Identifier, Timestamp
from monitoring.feedback_log import FIELD, REMEMBERED, Kind, Statement, pack, statement_key

Status = Literal["accepted", "repeated", "unknown"]


class Feedback(BaseModel):
    """What became known of a payment after its decision."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    transaction_id: Identifier
    kind: Kind = Field(description="A later statement about the same payment supersedes an earlier one")
    occurred_at: Timestamp = Field(
        description="When the chargeback was raised, or the payment confirmed; RFC 3339 with an offset",
        examples=["2026-03-20T09:30:00Z"],
    )
    source: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")] | None = Field(
        default=None, description="Who says so", examples=["visa-tc40"]
    )
    card_id: Identifier | None = Field(default=None, description="Where given, must be the card that paid")
    paid_at: Timestamp | None = Field(
        default=None,
        description="The payment's own `timestamp`: needed once the payment is older than the service remembers (7 days"
        " unless FRAUD_MAX_AGE says otherwise)",
    )

    def statement(self) -> Statement:
        """The statement as it goes on record."""
        return Statement(**self.model_dump())


class FeedbackAnswer(Spoken):
    """That the statement is on record."""

    transaction_id: str
    status: Status = Field(
        description="`accepted`: on record. `repeated`: it was already. `unknown`: on record, about a payment so old "
        "that only the decision table or history can tell whether it was decided here"
    )


def read_feedback(body: bytes, now: datetime, max_future: timedelta) -> Feedback:
    """The statement in a request.

    Raises `Refused`: 400 where the body is no JSON, 422 where it breaks a rule.
    """
    try:
        feedback = Feedback.model_validate_json(body)
    except ValidationError as error:
        try:
            from_json(body)
        except ValueError as unreadable:
            raise Refused(400, "malformed_json", f"The body cannot be read as JSON: {unreadable}.") from None
        raise _refused([_problem(item) for item in error.errors(include_url=False)]) from None
    if feedback.occurred_at - now > max_future:
        raise _refused([_instant(feedback.occurred_at, f"must not be more than {max_future} in the future")])
    if feedback.paid_at is not None and feedback.occurred_at < feedback.paid_at:
        raise _refused([_instant(feedback.occurred_at, "must not be before the payment's own time, `paid_at`")])
    return feedback


def matched(feedback: Feedback, claimed: bool, now: datetime, max_age: timedelta | None) -> bool:
    """Whether the payment is known to have been decided; `claimed` is whether its claim is in the decision log.

    False says that it is too old to tell. Raises `Refused` (404) for a payment that was not decided here.
    """
    if claimed:
        return True
    if max_age is None or (feedback.paid_at is not None and now - feedback.paid_at <= max_age):
        way = "It was never decided here."
    elif feedback.paid_at is None:
        way = f"If it is older than {max_age}, say when it was made: `paid_at`."
    else:
        return False
    raise Refused(
        404, "unknown_transaction", f"Transaction '{feedback.transaction_id}' is not in the decision log. {way}"
    )


# KEYS: the stream, the statement's own key. ARGV: the statement, seconds for which its repetition is known as one.
SCRIPT = b"""
if redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[2]) then
  redis.call('XADD', KEYS[1], '*', '%s', ARGV[1])
  return 1
end
return 0
""".replace(b"%s", FIELD)


def feedback_command(feedback: Feedback, stream: str) -> tuple[bytes, ...]:
    """The command, part by part, that puts a statement on record; it gives 1, or 0 where it was there already."""
    packed = pack(feedback.statement())
    key = statement_key(stream, feedback.transaction_id, packed)
    return b"EVAL", SCRIPT, b"2", stream.encode(), key.encode(), packed, b"%d" % REMEMBERED


def feedback_answer(feedback: Feedback, reply: int, known: bool) -> FeedbackAnswer:
    """The answer (202) to a statement; `reply` is the command's, `known` what `matched` said."""
    status: Status = "repeated" if reply == 0 else "accepted" if known else "unknown"
    return FeedbackAnswer(transaction_id=feedback.transaction_id, status=status)


def _refused(problems: list[dict[str, object]]) -> Refused:
    fields = ", ".join(dict.fromkeys(str(problem["field"]) for problem in problems))
    return Refused(422, "invalid_feedback", f"The feedback breaks the schema in: {fields}. See `problems`.", problems)


def _problem(item: Mapping[str, Any]) -> dict[str, object]:
    field = ".".join(str(part) for part in item["loc"]) or "body"
    value = None if item["type"] == "missing" else item["input"]
    return {"field": field, "value": value, "rule": item["msg"].removeprefix("Value error, ")}


def _instant(value: datetime, rule: str) -> dict[str, object]:
    return {"field": "occurred_at", "value": value.isoformat(), "rule": rule}
