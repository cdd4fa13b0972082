"""The express lane: an ASGI middleware that answers the platform's own routes ahead of BentoML's router.

Status codes and bytes are decided here; whatever happens, the body of an answer that is not 2xx is an `ErrorBody`.
Every other path goes through untouched, once its caller may have it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from types import MappingProxyType
from typing import Any

from bentos.errors import Refused, error_type, quote, refusal
from bentos.gate import Decider
from bentos.intake import read_batch, read_transaction
from bentos.payments import Asked
from feature_repo.schema import InvalidTransaction
from monitoring.metrics import metrics

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]
Resource = Callable[[str], Awaitable[bytes]]
"""What a GET gives: the JSON for the rest of the path."""

Action = Callable[[bytes], Awaitable[bytes]]
"""What a POST of a body gives: the JSON of a 202."""

Charge = Callable[[int], None]
Door = Callable[[str, Headers], Charge | None]
"""Called with each request's path and headers; raises `Refused` for one that must not pass.

It gives what charges the caller with further payments than the first, and may refuse them.
"""

Parent = Callable[[Headers], bytes]
"""Gives the `traceparent` of a request, empty where it has none."""

JSON = "application/json"
JSON_HEADERS = {JSON.encode(), b"application/json; charset=utf-8", b"application/json;charset=utf-8"}


class ClientGone(Exception):
    """The client closed the connection before its request was complete; there is nobody to answer."""


class Lane:
    """`POST /predict`, `POST /predict_batch` and each of `actions`, `GET` of each of `resources`.

    A resource whose path ends with a slash has the rest of the path as its argument.
    """

    def __init__(
        self,
        app: App,
        decider: Callable[[], Decider],
        resources: Mapping[str, Resource],
        door: Door,
        actions: Mapping[str, Action] = MappingProxyType({}),
        parent: Parent | None = None,
    ) -> None:
        self._app, self._decider, self._door, self._actions, self._parent = app, decider, door, actions, parent
        self._resources = {path: given for path, given in resources.items() if not path.endswith("/")}
        self._below = {path: given for path, given in resources.items() if path.endswith("/")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the lane's own paths, pass the rest on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, headers, with_body = 200, dict[str, str](), scope["method"] != "HEAD"
        try:
            path = scope["path"]
            charge = self._door(path, scope["headers"])
            if path == "/predict":
                _require_method(scope, ("POST",))
                body = await self._predict(scope, receive)
            elif path == "/predict_batch":
                _require_method(scope, ("POST",))
                body = await self._predict_batch(scope, receive, charge)
            elif path in self._actions:
                _require_method(scope, ("POST",))
                sent = await _body(scope, receive, self._decider().limits.max_body_bytes)
                status, body = 202, await self._actions[path](sent)
            elif (found := self._resource(path)) is not None:
                _require_method(scope, ("GET", "HEAD"))
                body = await found[0](found[1])
            else:
                await self._app(scope, receive, send)
                return
        except ClientGone:
            return
        except Exception as error:
            given = refused(error)
            status, headers, body = given.status, given.headers, given.body()
        await _send(send, status, headers, body, with_body=with_body)

    def _resource(self, path: str) -> tuple[Resource, str] | None:
        if path in self._resources:
            return self._resources[path], ""
        for prefix, resource in self._below.items():
            if path.startswith(prefix) and len(path) > len(prefix):
                return resource, path[len(prefix) :]
        return None

    async def _predict(self, scope: Scope, receive: Receive) -> bytes:
        decider = self._decider()
        body = await _body(scope, receive, decider.limits.max_body_bytes)
        started = time.perf_counter()
        asked = read_transaction(body)
        if self._parent is not None:
            asked = asked._replace(parent=self._parent(scope["headers"]))
        return await decider.predict(asked, started)

    async def _predict_batch(self, scope: Scope, receive: Receive, charge: Charge | None) -> bytes:
        decider = self._decider()
        body = await _body(scope, receive, decider.limits.max_body_bytes)
        started = time.perf_counter()
        items = read_batch(body, decider.limits)
        if self._parent is not None:
            parent = self._parent(scope["headers"])
            items = [item._replace(parent=parent) if isinstance(item, Asked) else item for item in items]
        if charge is not None:
            charge(len(items) - 1)
        return await decider.predict_batch(items, started)


def refused(error: Exception) -> Refused:
    """The refusal that an error amounts to, counted and told in the log where an operator should know of it."""
    given = refusal(error)
    if given.status >= 500 or isinstance(error, InvalidTransaction):
        metrics.errors.labels(error_type=error_type(error)).inc()
    if given.status == 500:
        logger.error("A request failed.", exc_info=error)
    elif given.status > 500:
        logger.warning("%s %s", error, error.__cause__ or "")
    return given


def _require_method(scope: Scope, methods: tuple[str, ...]) -> None:
    if scope["method"] not in methods:
        allowed = ", ".join(methods)
        message = f"{quote(scope['path'])} does not take {scope['method']}; use {methods[0]}."
        raise Refused(405, "method_not_allowed", message, headers={"allow": allowed})


async def _body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The request's body, no more than `limit` bytes of it ever held; raises `Refused` and `ClientGone`."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            if not value.isdigit() or int(value) > limit:
                raise too_large(limit)
        elif name == b"content-type":
            if value not in JSON_HEADERS:
                _require_json("content-type", value.decode("latin-1"))
        elif name == b"content-encoding":
            _require_plain(value.decode("latin-1"))
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise too_large(limit)
        return body
    return await _rest(message, receive, limit)


async def _rest(message: Message, receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await receive()


def _require_json(field: str, value: str) -> None:
    media, *parameters = (part.strip().lower() for part in (value.strip() or JSON).split(";"))
    charsets = [p.removeprefix("charset=").strip('"') for p in parameters if p.startswith("charset=")]
    if media != JSON or any(charset not in ("utf-8", "utf8", "us-ascii") for charset in charsets):
        raise _unsupported(field, value, f"must be {JSON} in UTF-8")


def _require_plain(value: str) -> None:
    encoding = value.strip().lower()
    if encoding != "identity":
        raise _unsupported("content-encoding", encoding, "must be left out; send the body plain")


def _unsupported(field: str, value: str, rule: str) -> Refused:
    problem = {"field": field, "value": value, "rule": rule}
    return Refused(415, "unsupported_media_type", f"Header {field} is {quote(value)!r}; {rule}.", [problem])


def too_large(limit: int) -> Refused:
    """The refusal of a body of more than `limit` bytes."""
    return Refused(413, "body_too_large", f"The body is larger than {limit:,} bytes. Send less, or a batch in parts.")


async def _send(send: Send, status: int, headers: Mapping[str, str], body: bytes, *, with_body: bool) -> None:
    encoded = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    encoded += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body if with_body else b""})
