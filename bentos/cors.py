"""Which web pages may call the API from a browser: none, unless FRAUD_CORS_ORIGINS names their origins.

An origin is compared whole; there is no wildcard, and cookies are never involved.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from bentos.key_file import Insecure

Headers = list[tuple[bytes, bytes]]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

METHODS = ("GET", "POST")
ASKED_HEADERS = b"authorization, content-type, x-api-key"
REMEMBERED_SECONDS = b"600"


class InvalidOrigin(Insecure):
    """An origin that no browser would send."""


class Cors:
    """The origins let in; none: every method gives nothing, and a response says nothing of CORS."""

    def __init__(self, origins: str) -> None:
        """`origins` as in FRAUD_CORS_ORIGINS, commas between. Raises `InvalidOrigin`."""
        self._origins = frozenset(_checked(origin.strip()) for origin in origins.split(",") if origin.strip())

    @property
    def closed(self) -> bool:
        """Whether no origin is let in."""
        return not self._origins

    def preflight(self, headers: Sequence[tuple[bytes, bytes]], methods: Iterable[str] = METHODS) -> Headers | None:
        """The headers of the 204 that answers an OPTIONS request; None where it is none of an origin let in.

        A preflight carries no key, so it is answered before `Access.require`.
        """
        granted = self.granted(headers)
        if not any(name == b"access-control-allow-origin" for name, _ in granted):
            return None
        if not any(name == b"access-control-request-method" for name, _ in headers):
            return None
        return [
            *granted,
            (b"access-control-allow-methods", ", ".join(methods).encode("latin-1")),
            (b"access-control-allow-headers", ASKED_HEADERS),
            (b"access-control-max-age", REMEMBERED_SECONDS),
        ]

    def granted(self, headers: Sequence[tuple[bytes, bytes]]) -> Headers:
        """What to add to the response, of whatever status, to a request with these headers."""
        if not self._origins:
            return []
        for name, value in headers:
            if name == b"origin" and value in self._origins:
                exposed = (b"access-control-expose-headers", b"retry-after, www-authenticate")
                return [(b"access-control-allow-origin", value), exposed, (b"vary", b"origin")]
        return [(b"vary", b"origin")]


class CrossOrigin:
    """An ASGI middleware, the outermost: it answers preflights of origins let in and marks the responses to them."""

    def __init__(self, app: App, cors: Callable[[], Cors]) -> None:
        self._app, self._cors = app, cors

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        cors = self._cors()
        if cors.closed:
            await self._app(scope, receive, send)
            return
        preflight = cors.preflight(scope["headers"]) if scope["method"] == "OPTIONS" else None
        if preflight is not None:
            await send({"type": "http.response.start", "status": 204, "headers": preflight})
            await send({"type": "http.response.body", "body": b""})
            return
        granted = cors.granted(scope["headers"])

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *granted]
            await send(message)

        await self._app(scope, receive, marked)


def _checked(origin: str) -> bytes:
    split = urlsplit(origin)
    if split.scheme not in ("http", "https") or not split.netloc or origin != f"{split.scheme}://{split.netloc}":
        rule = "must be scheme://host or scheme://host:port and no more, such as https://desk.example"
        raise InvalidOrigin(f"FRAUD_CORS_ORIGINS has the origin {origin!r}; it {rule}.")
    return origin.lower().encode()
