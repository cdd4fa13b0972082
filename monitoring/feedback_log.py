"""What became known of payments after their decisions, as it lies in the Redis Stream `feedback`.

One entry per statement, append-only: a later statement on a payment supersedes an earlier one, and both stay. The
service writes, `stream_jobs.feedback` reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Literal

import msgspec

Kind = Literal["chargeback", "confirmed_legitimate"]

FIELD = b"statement"
"""The one field of an entry: the statement's JSON."""

REMEMBERED = 400 * 86_400
"""Seconds for which a statement is told from its repetition: longer than any scheme lets a chargeback take."""


class Statement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What somebody says of a payment; `occurred_at` is when it came about, `paid_at` the payment's own time."""

    transaction_id: str
    kind: Kind
    occurred_at: datetime
    source: str | None = None
    card_id: str | None = None
    paid_at: datetime | None = None


_decode = msgspec.json.Decoder(Statement).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def pack(statement: Statement) -> bytes:
    """The statement's JSON: the same bytes for the same content."""
    return _encode(statement)


def unpack(fields: Mapping[bytes, bytes]) -> Statement:
    """The statement in an entry; raises ValueError where there is none."""
    return _decode(fields.get(FIELD, b""))


def recorded_at(entry: str) -> datetime:
    """When the platform came to know of an entry's statement, UTC."""
    return datetime.fromtimestamp(int(entry.partition("-")[0]) / 1_000, UTC)


def statement_key(stream: str, transaction_id: str, packed: bytes) -> str:
    """The key that says a statement has been recorded; in Redis Cluster it lies beside the stream."""
    return f"{{{stream}}}:{transaction_id}:{blake2b(packed, digest_size=16).hexdigest()}"
