"""A decision as one message of the Kafka decision log: a MessagePack array of the payment, vector, answer and service.

The service sends it and the sink reads it; the message's key is the payment's card.
"""

from __future__ import annotations

import msgspec
import numpy as np

from monitoring.decision_log import LoggedDecision


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The fields of a decision as in an entry of the Redis log."""

    request: bytes
    vector: bytes
    answer: bytes
    service: str
    trace: str = ""


class _Card(msgspec.Struct, gc=False):
    card_id: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode
_card = msgspec.json.Decoder(_Card).decode


def pack(message: Message) -> bytes:
    """The message's body."""
    return _encode(message)


def unpack(body: bytes) -> Message:
    """The inverse of `pack`; raises ValueError for anything else."""
    return _decode(body)


def key(request: bytes) -> bytes:
    """The message's key: what belongs to one card stays in order."""
    return _card(request).card_id.encode()


def logged(entry: str, body: bytes) -> LoggedDecision:
    """The decision in a message; raises ValueError where there is none."""
    found = unpack(body)
    vector = np.frombuffer(found.vector, "<f4")
    return LoggedDecision(entry, found.request, vector, found.answer, found.service, found.trace.encode())
