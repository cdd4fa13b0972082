"""The express lane: an ASGI middleware that answers the decision routes ahead of BentoML's router.

Status codes and bytes are decided here; whatever happens, the body of an answer that is not 2xx is an `ErrorBody`.
Every other path goes through untouched.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from bentos.errors import Refused, error_type, quote, refusal
from bentos.gate import Decider
from bentos.intake import read_batch, read_transaction
from feature_repo.schema import InvalidTransaction
from monitoring.metrics import metrics

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Resource = Callable[[], bytes]

JSON = "application/json"


class ClientGone(Exception):
    """The client closed the connection before its request was complete; there is nobody to answer."""


class Lane:
    """`POST /predict`, `POST /predict_batch`, and `GET` of each of `resources`, which give JSON."""

    def __init__(self, app: App, decider: Callable[[], Decider], resources: Mapping[str, Resource]) -> None:
        self._app = app
        self._decider = decider
        self._posts = {"/predict": self._predict, "/predict_batch": self._predict_batch}
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the lane's own paths, pass the rest on."""
        path = scope["path"] if scope["type"] == "http" else ""
        if path in self._posts:
            await self._answer(scope, send, ("POST",), lambda: self._posts[path](scope, receive))
        elif path in self._resources:
            await self._answer(scope, send, ("GET", "HEAD"), lambda: _given(self._resources[path]))
        else:
            await self._app(scope, receive, send)

    async def _predict(self, scope: Scope, receive: Receive) -> bytes:
        decider = self._decider()
        body = await _body(scope, receive, decider.limits.max_body_bytes)
        started = time.perf_counter()
        answer = await decider.predict(read_transaction(body), started)
        return answer.model_dump_json().encode()

    async def _predict_batch(self, scope: Scope, receive: Receive) -> bytes:
        decider = self._decider()
        body = await _body(scope, receive, decider.limits.max_body_bytes)
        started = time.perf_counter()
        answer = await decider.predict_batch(read_batch(body, decider.limits), started)
        return answer.model_dump_json().encode()

    async def _answer(
        self, scope: Scope, send: Send, methods: tuple[str, ...], work: Callable[[], Awaitable[bytes]]
    ) -> None:
        status, headers = 200, dict[str, str]()
        try:
            _require_method(scope, methods)
            body = await work()
        except ClientGone:
            return
        except Exception as error:
            refused = refusal(error)
            _report(error, refused)
            status, headers, body = refused.status, refused.headers, refused.body()
        await _send(send, status, headers, body, with_body=scope["method"] != "HEAD")


def _report(error: Exception, refused: Refused) -> None:
    if refused.status >= 500 or isinstance(error, InvalidTransaction):
        metrics.errors.labels(error_type=error_type(error)).inc()
    if refused.status == 500:
        logger.error("A request failed.", exc_info=error)
    elif refused.status > 500:
        logger.warning("%s %s", error, error.__cause__ or "")


def _require_method(scope: Scope, methods: tuple[str, ...]) -> None:
    if scope["method"] not in methods:
        allowed = ", ".join(methods)
        message = f"{scope['path']} does not take {scope['method']}; use {methods[0]}."
        raise Refused(405, "method_not_allowed", message, headers={"allow": allowed})


async def _given(resource: Resource) -> bytes:
    return resource()


async def _body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The request's body, no more than `limit` bytes of it ever held; raises `Refused` and `ClientGone`."""
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    _require_json(headers)
    length = headers.get(b"content-length", "0")
    if not length.isdecimal() or int(length) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _require_json(headers: Mapping[bytes, str]) -> None:
    given = headers.get(b"content-type", "").strip() or JSON
    media, *parameters = (part.strip().lower() for part in given.split(";"))
    charsets = [p.removeprefix("charset=").strip('"') for p in parameters if p.startswith("charset=")]
    encoding = headers.get(b"content-encoding", "identity").strip().lower()
    if media != JSON or any(charset not in ("utf-8", "utf8", "us-ascii") for charset in charsets):
        field, value, rule = "content-type", given, f"must be {JSON} in UTF-8"
    elif encoding != "identity":
        field, value, rule = "content-encoding", encoding, "must be left out; send the body plain"
    else:
        return
    problem = {"field": field, "value": value, "rule": rule}
    raise Refused(415, "unsupported_media_type", f"Header {field} is {quote(value)!r}; {rule}.", [problem])


def _too_large(limit: int) -> Refused:
    return Refused(413, "body_too_large", f"The body is larger than {limit:,} bytes. Send less, or a batch in parts.")


async def _send(send: Send, status: int, headers: Mapping[str, str], body: bytes, *, with_body: bool) -> None:
    lines = {"content-type": JSON, "content-length": str(len(body)), **headers}
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in lines.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body if with_body else b""})
