"""The transaction: the one schema that the service, the stream, the data adapters and the features share.

Every instant is an aware datetime in UTC with microseconds; a naive timestamp is refused, never guessed.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

MAX_AMOUNT = 1e7
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)

LABEL_DELAY = timedelta(days=7)
"""After this long a payment that nobody disputed counts as legitimate: its label is known."""

LABEL_PUBLICATION = timedelta(hours=1)
"""Labels that have become known are published at the next multiple of this (UTC), by the hourly batch.

Hourly, because it pays: on the Handbook's protocol a nightly publication cost .013 AUC-ROC and .028 average precision.
"""

MERCHANT_CATEGORIES = (
    "cash",
    "digital_goods",
    "electronics",
    "entertainment",
    "food_dining",
    "gambling",
    "gas_transport",
    "grocery",
    "health_fitness",
    "home",
    "jewelry",
    "kids_pets",
    "misc",
    "personal_care",
    "shopping",
    "travel",
    "utilities",
    "other",
)
"""The vocabulary of the model, in the order of its codes; anything else is accepted and mapped to `other`."""

CHANNELS = ("pos", "online", "atm")


class InvalidTransaction(ValueError):
    """A transaction broke the schema. `problems` lists one `{field, value, rule}` per broken rule."""

    def __init__(self, subject: str, problems: list[dict[str, Any]]) -> None:
        self.subject = subject
        self.problems = problems
        listed = "; ".join(f"{p['field']} is {p['value']!r}: {p['rule']}" for p in problems)
        super().__init__(f"Transaction {subject}: {listed}.")


_RFC_3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})")


def _only_rfc_3339(value: Any) -> Any:
    # pydantic would read 1530000000, a number or its text, as a Unix time; RFC 3339 says its offset, that cannot.
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC_3339.fullmatch(value)):
        return value
    raise ValueError("must be RFC 3339 text with an offset, such as 2018-08-08T12:00:00Z")


def _to_utc(value: datetime) -> datetime:
    if value < EARLIEST:
        raise ValueError(f"must not be before {EARLIEST:%Y-%m-%d}")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie within the years 2000 to 9999 in UTC") from None


Timestamp = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_only_rfc_3339), AfterValidator(_to_utc)]
Identifier = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$", description="ISO 3166-1 alpha-2, upper case")]


class Transaction(BaseModel):
    """One card payment as it arrives. Fields a data set lacks stay null, and null means unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    transaction_id: Identifier = Field(examples=["pay-1"])
    timestamp: Timestamp = Field(description="Event time, RFC 3339 with an offset", examples=["2018-08-08T12:00:00Z"])
    card_id: Identifier = Field(examples=["card-17"])
    merchant_id: Identifier = Field(examples=["shop-4"])
    amount: float = Field(gt=0, le=MAX_AMOUNT, examples=[42.5])
    merchant_category: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None, examples=["grocery"], description="Unknown categories are mapped to `other`"
    )
    country: Country | None = Field(default=None, examples=["GB"])
    channel: Literal["pos", "online", "atm"] | None = Field(default=None, examples=["online"])
    device_id: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(default=None, examples=["phone-9"])
    ip: Annotated[str, Field(min_length=2, max_length=45)] | None = Field(default=None, examples=["192.0.2.7"])
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = Field(default=None, examples=["EUR"])


FIELDS = tuple(Transaction.model_fields)
REQUIRED_FIELDS = tuple(name for name, field in Transaction.model_fields.items() if field.is_required())

TIMESTAMP = pa.timestamp("us", tz="UTC")

HISTORY_SCHEMA = pa.schema(
    [
        pa.field("transaction_id", pa.string(), nullable=False),
        pa.field("timestamp", TIMESTAMP, nullable=False),
        pa.field("card_id", pa.string(), nullable=False),
        pa.field("merchant_id", pa.string(), nullable=False),
        pa.field("amount", pa.float64(), nullable=False),
        pa.field("merchant_category", pa.string()),
        pa.field("country", pa.string()),
        pa.field("channel", pa.string()),
        pa.field("device_id", pa.string()),
        pa.field("ip", pa.string()),
        pa.field("currency", pa.string()),
        pa.field("ingested_at", TIMESTAMP, nullable=False),
    ]
)
"""The event log at rest: a transaction and the instant the platform first had it (created timestamp)."""

LABEL_SCHEMA = pa.schema(
    [
        pa.field("transaction_id", pa.string(), nullable=False),
        pa.field("card_id", pa.string(), nullable=False),
        pa.field("merchant_id", pa.string(), nullable=False),
        pa.field("timestamp", TIMESTAMP, nullable=False),
        pa.field("known_at", TIMESTAMP, nullable=False),
        pa.field("published_at", TIMESTAMP, nullable=False),
        pa.field("is_fraud", pa.float64(), nullable=False),
    ]
)
"""The label log at rest: `known_at` is event time + label delay; `published_at` the batch that made it readable."""


def category_or_other(value: str | None) -> str | None:
    """Map a merchant category outside the vocabulary to `other`; null stays null."""
    if value is None or value in MERCHANT_CATEGORIES:
        return value
    return "other"


def parse_json(body: bytes | str, *, subject: str = "in the request") -> Transaction:
    """Validate one JSON object.

    Raises `InvalidTransaction`, naming every broken field, its value and the rule.
    """
    try:
        return Transaction.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error, subject) from None


def parse(fields: dict[str, Any]) -> Transaction:
    """Validate a mapping of Python values (timestamps as RFC 3339 text or aware datetimes)."""
    try:
        return Transaction.model_validate(fields)
    except ValidationError as error:
        raise _invalid(error, repr(fields.get("transaction_id", "without id"))) from None


def _invalid(error: ValidationError, subject: str) -> InvalidTransaction:
    problems = []
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"]) or "body"
        value = item["input"]
        if item["type"] == "missing":
            value = None
        elif isinstance(value, bytes):
            value = value.decode(errors="replace")
        elif isinstance(value, float) and value - value != 0.0:
            value = str(value)  # NaN and the infinities have no JSON form to be quoted in
        if isinstance(value, dict | list | str) and len(str(value)) > 80:
            value = str(value)[:77] + "..."
        problems.append({"field": field, "value": value, "rule": item["msg"].removeprefix("Value error, ")})
    return InvalidTransaction(subject, problems)
