"""Peer: what HTTP and JSON alone cost. A bare ASGI application that reads the payment and answers as many bytes."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from feature_repo.quick_json import Payment

read = msgspec.json.Decoder(Payment).decode
write = msgspec.json.Encoder().encode
FILL = int(os.environ.get("PEER_ANSWER_BYTES", "450"))


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Parse the payment, answer a JSON object of `PEER_ANSWER_BYTES`."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    name = read(body).transaction_id if body else ""
    told = write({"transaction_id": name, "filling": "x" * (FILL - len(name) - 35)})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(told)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})
