"""The claim to a payment in Redis, whichever log its decision is in.

A decision in the Redis Stream is named by its entry. One that went to Kafka lies in the claim itself, after a byte that
says whether Kafka has confirmed it: Kafka cannot be asked for a message by its payment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import redis

from monitoring.decision_log import LoggedDecision, claim_key, decode
from monitoring.decision_message import logged

DIGEST = 16
"""Bytes of a payment's digest at the beginning of a claim."""

WAITING, CONFIRMED = b"?", b"+"
"""What follows the digest of a decision that goes to Kafka; an entry of a stream begins with a digit."""


class KafkaClaim(NamedTuple):
    """The claim to a payment whose decision goes to Kafka; `body` is the message's."""

    digest: bytes
    confirmed: bool
    body: bytes


def claim(digest: bytes, body: bytes) -> bytes:
    """The claim before Kafka has confirmed the message."""
    return digest + WAITING + body


def read_claim(found: bytes) -> KafkaClaim | str:
    """What a claim says: the message, or the entry in the stream."""
    if found[DIGEST : DIGEST + 1] in (WAITING, CONFIRMED):
        return KafkaClaim(found[:DIGEST], found[DIGEST : DIGEST + 1] == CONFIRMED, found[DIGEST + 1 :])
    return found[DIGEST:].decode()


def claimed(client: redis.Redis, stream: str, identifiers: Sequence[str]) -> dict[str, LoggedDecision]:
    """The decisions on these payments as far as Redis still has them, by transaction id."""
    with client.pipeline(transaction=False) as pipe:
        for identifier in identifiers:
            pipe.get(claim_key(stream, identifier))
        claims: list[Any] = pipe.execute()
        said = {name: read_claim(found) for name, found in zip(identifiers, claims, strict=True) if found is not None}
        entries = [(name, entry) for name, entry in said.items() if isinstance(entry, str)]
        for _, entry in entries:
            pipe.xrange(stream, entry, entry)
        pages = pipe.execute() if entries else []
    found = {name: logged("claim", one.body) for name, one in said.items() if isinstance(one, KafkaClaim)}
    for (name, entry), page in zip(entries, pages, strict=True):
        if page:
            found[name] = decode(entry, page[0][1])
    return found
