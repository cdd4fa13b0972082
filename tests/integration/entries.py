"""Decisions made by hand, as the gate hands them to a log."""

from __future__ import annotations

from bentos.decisions import DIGEST, Entry


def entry(
    transaction_id: str,
    *,
    digest: bytes | None = None,
    expires_ms: int = 0,
    request: bytes = b'{"amount":1}',
    vector: bytes = b"\x00\x00\x80\x3f",
    answer: bytes | None = None,
) -> Entry:
    """A decision; the digest is the identifier's unless another one is given."""
    told = (
        f'{{"transaction_id":"{transaction_id}","fraud_probability":0.5,"decision":"review","model_name":"by hand",'
        '"model_version":"1","model_role":"champion","timestamp":"2026-03-01T12:00:00Z"}'
    )
    own = transaction_id.encode()[:DIGEST].ljust(DIGEST, b".")
    made = told.encode() if answer is None else answer
    return Entry(transaction_id, digest or own, expires_ms, request, vector, made, b"fraud_v1")
