"""Why a request is refused, and the HTTP answer that says so: one JSON shape, valid whatever was sent.

Nothing of a request is quoted at more than `LONGEST` characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from bentos.answers import ErrorBody, ErrorDetail, Problem
from feature_repo.schema import InvalidTransaction

LONGEST = 80
RETRY_AFTER_SECONDS = 1
_LARGEST_EXACT = 2**53
"""Beyond it a JSON number no longer means the same to every reader."""

INVALID_INPUT = "invalid_input"
"""The label of `model_errors_total` for a payment that broke the schema."""

Part = Literal["feature_store", "decision_log", "feedback_log", "model"]


class Unavailable(Exception):
    """A part that a decision cannot do without does not answer; no decision was made or none is on record."""

    def __init__(self, part: Part, cause: Exception) -> None:
        self.part = part
        name = part.replace("_", " ")
        super().__init__(f"The {name} does not answer ({type(cause).__name__}). Send the payment again.")


class Refused(Exception):
    """A request that gets no decision. `status` is the HTTP status, `code` the stable name of the reason."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        problems: Iterable[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        quoted = tuple(Problem(field=_short(p["field"]), value=quote(p["value"]), rule=p["rule"]) for p in problems)
        self.detail = ErrorDetail(code=code, message=message, problems=quoted)

    def body(self) -> bytes:
        """The answer's body."""
        return ErrorBody(error=self.detail).model_dump_json().encode()


def already_decided(transaction_id: str) -> Refused:
    """The refusal of a payment whose identifier another payment has."""
    problem = {"field": "transaction_id", "value": transaction_id, "rule": "must be another than an earlier payment's"}
    message = f"Another payment was decided as {quote(transaction_id)!r}. Give each payment its own transaction_id."
    return Refused(409, "already_decided", message, [problem])


def refusal(error: Exception) -> Refused:
    """The refusal that an error amounts to; anything unforeseen is a 500 that tells no inner detail."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, InvalidTransaction):
        fields = ", ".join(dict.fromkeys(_short(problem["field"]) for problem in error.problems))
        message = f"The transaction breaks the schema in: {_short(fields)}. See `problems`."
        return Refused(422, "invalid_transaction", message, error.problems)
    if isinstance(error, Unavailable):
        wait = {"retry-after": str(RETRY_AFTER_SECONDS)}
        return Refused(503, f"{error.part}_unavailable", str(error), headers=wait)
    return Refused(500, "internal", "The service failed to decide; the cause is in its log. No decision was answered.")


def error_type(error: Exception) -> str:
    """The label of `model_errors_total` for an error."""
    if isinstance(error, Unavailable):
        return error.part
    return INVALID_INPUT if isinstance(error, InvalidTransaction) else "internal"


def quote(value: Any) -> Any:
    """The value as JSON can carry it: short, finite, and exact for every reader; as text where it is not."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) <= _LARGEST_EXACT:
        return value
    if isinstance(value, float) and value - value == 0.0:
        return value
    return _short(value)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = text.encode(errors="replace").decode()  # a lone surrogate has no UTF-8
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
