"""A payment on its way through the gate: the schema's fields, its instant, and what tells its content apart."""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

import msgspec

from feature_repo.quick_json import Payment, decode
from feature_repo.schema import Transaction, parse_json
from feature_repo.window_state import to_us

_encode_json = msgspec.json.Encoder().encode
_encode_plain = msgspec.msgpack.Encoder().encode


class Asked(NamedTuple):
    """A valid payment and its instant in microseconds since 1970 UTC.

    `parent` is the `traceparent` that its request came with, where traces are on; it is no part of the content.
    """

    payment: Payment
    at: int
    parent: bytes = b""

    def request(self) -> bytes:
        """The payment's JSON; fields that were not given are left out."""
        return _encode_json(self.payment)

    def digest(self) -> bytes:
        """16 bytes that are the same for the same content, however its JSON was written."""
        p = self.payment
        content = (
            p.transaction_id, self.at, p.card_id, p.merchant_id, p.amount, p.merchant_category, p.country, p.channel,
            p.device_id, p.ip, p.currency,
        )  # fmt: skip
        return blake2b(_encode_plain(content), digest_size=16).digest()


def asked(transaction: Transaction) -> Asked:
    """A transaction of the schema as the gate takes it."""
    fields = {name: getattr(transaction, name) for name in Payment.__struct_fields__}
    return Asked(Payment(**fields | {"timestamp": transaction.timestamp.isoformat()}), to_us(transaction.timestamp))


def read(body: bytes) -> Asked:
    """The payment in a JSON body; raises `InvalidTransaction`."""
    quick = decode(body)
    return Asked(*quick) if quick is not None else asked(parse_json(body))
