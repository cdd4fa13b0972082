"""From a request's bytes to transactions. Pure: limits and the instant are given, nothing is read or counted.

Malformed JSON is told from JSON that breaks the schema, and in a batch each item stands for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json

from bentos.answers import Rejected
from bentos.errors import Refused, refusal
from bentos.payments import Asked, asked, read
from feature_repo.quick_json import decode
from feature_repo.schema import InvalidTransaction, Transaction, parse
from feature_repo.settings import Settings
from feature_repo.window_state import from_us


class Batch(BaseModel):
    """The body of `POST /predict_batch`, as documented; it is read item by item, so that one cannot fail another."""

    model_config = ConfigDict(extra="forbid")

    transactions: list[Transaction]


Item = Asked | Rejected


@dataclass(frozen=True)
class Limits:
    """What a request may be; `max_age` None takes payments of any age."""

    max_body_bytes: int
    max_batch: int
    max_future: timedelta
    max_age: timedelta | None

    @cached_property
    def future_us(self) -> int:
        """`max_future` in microseconds."""
        return self.max_future // timedelta(microseconds=1)

    @cached_property
    def age_us(self) -> int:
        """`max_age` in microseconds, 0 for any."""
        return 0 if self.max_age is None else self.max_age // timedelta(microseconds=1)

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits these settings name."""
        return cls(settings.max_body_bytes, settings.max_batch, settings.max_future, settings.max_age)


def read_transaction(body: bytes) -> Asked:
    """The transaction in a request.

    Raises `Refused` (400) where the body is no JSON, `InvalidTransaction` where it is JSON that breaks the schema.
    """
    try:
        return read(body)
    except InvalidTransaction:
        _json(body)
        raise


def read_batch(body: bytes, limits: Limits) -> list[Item]:
    """The items of `{"transactions": [...]}` in their order, each a transaction or its rejection.

    Raises `Refused`: 400 where the body is no JSON, 422 where it is no such object, 413 where the list is too long.
    """
    quick = _quick_batch(body)
    if quick is not None:
        check_size(quick, limits)
        return [_quick_item(bytes(item)) for item in quick]
    document = _json(body)
    if not isinstance(document, dict) or set(document) != {"transactions"}:
        raise _not_a_batch("body", document, "must be an object with the one field `transactions`")
    items = document["transactions"]
    if not isinstance(items, list):
        raise _not_a_batch("transactions", items, "must be a list of transactions")
    check_size(items, limits)
    return [_item(item) for item in items]


def check_size(items: Sequence[Any], limits: Limits) -> None:
    """Raise `Refused` (413) for a batch of more than `max_batch` payments."""
    if len(items) > limits.max_batch:
        raise Refused(
            413,
            "batch_too_large",
            f"The batch holds {len(items):,} transactions; at most {limits.max_batch:,} are taken. Send it in parts.",
        )


def check_instant(asked: Asked, now: int, limits: Limits) -> None:
    """Raise `InvalidTransaction` unless the instant lies in [now - max_age, now + max_future]; `now` in µs."""
    ahead = asked.at - now
    if ahead > limits.future_us:
        rule = f"must not be more than {limits.max_future} in the future"
    elif limits.max_age is not None and -ahead > limits.age_us:
        rule = f"must not be more than {limits.max_age} in the past"
    else:
        return
    problem = {"field": "timestamp", "value": from_us(asked.at).isoformat(), "rule": rule}
    raise InvalidTransaction(repr(asked.payment.transaction_id), [problem])


def rejected(transaction_id: Any, error: Exception) -> Rejected:
    """An error in the place of a batch's item; an id that is no usable text is left out."""
    usable = isinstance(transaction_id, str) and 0 < len(transaction_id) <= 64
    return Rejected(transaction_id=transaction_id if usable else None, error=refusal(error).detail)


class _Raw(msgspec.Struct, forbid_unknown_fields=True):
    transactions: list[msgspec.Raw]


_read_raw = msgspec.json.Decoder(_Raw).decode


def _quick_batch(body: bytes) -> list[msgspec.Raw] | None:
    """The items of a plain batch, unread; None for a body that is to be judged in full."""
    try:
        return _read_raw(body).transactions
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _quick_item(body: bytes) -> Item:
    quick = decode(body)
    return Asked(*quick) if quick is not None else _item(_json(body))


def _item(item: Any) -> Item:
    if not isinstance(item, dict):
        problem = {"field": "body", "value": item, "rule": "must be a transaction, a JSON object"}
        return rejected(None, InvalidTransaction("in the batch", [problem]))
    try:
        return asked(parse(item))
    except InvalidTransaction as error:
        return rejected(item.get("transaction_id"), error)


def _json(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError as error:
        raise Refused(400, "malformed_json", f"The body cannot be read as JSON: {error}.") from None


def _not_a_batch(field: str, value: Any, rule: str) -> Refused:
    problem = {"field": field, "value": value, "rule": rule}
    return Refused(422, "invalid_batch", f"The batch breaks the schema in: {field}. See `problems`.", [problem])
