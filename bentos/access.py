"""Who may ask what of the API, and how often: keys, scopes and rates. Pure but for the injected clocks and a counter.

A key is never held, logged or quoted: its SHA-256 is compared, in constant time. That hash without salt or stretching
is enough because the key is 256 random bits, which nobody can guess or tabulate; for a password it would not be.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from bentos.errors import Refused
from bentos.key_file import ApiKey
from monitoring.metrics import metrics

Scope = Literal["score", "feedback", "admin"]
Reason = Literal["no_key", "unknown_key", "expired", "scope", "rate"]

REALM = 'Bearer realm="tollgate"'
PREFIX = b"tollgate"

OPEN_PATHS = frozenset({"/", "/docs.json", "/healthz", "/livez", "/readyz", "/metrics"})
"""What needs no key: the probes, the metrics, the API's description. Keep /metrics to the network that scrapes it."""

_SCOPES: dict[str, Scope] = {
    "/predict": "score",
    "/predict_batch": "score",
    "/model": "score",
    "/feedback": "feedback",
}

_NOBODY = bytes(32)
"""Compared with where no key has the id given, so that known and unknown ids take the same time."""


def scope_of(path: str) -> Scope | None:
    """The scope a path asks for, None where none: what is not known here is `admin`.

    BentoML's router also matches a path with a line feed at its end; such a path is no way around the keys.
    """
    found = _SCOPES.get(path)
    if found is not None:
        return found
    if path in OPEN_PATHS or path.startswith("/static_content/"):
        return None
    return "score" if path.startswith("/decisions/") else "admin"


class Caller:
    """One key in use, and this worker's bucket of it. `id` is public: it may be logged and counted."""

    __slots__ = ("_at", "_balance", "burst", "digest", "expires", "id", "per_second", "scopes")

    def __init__(self, key: ApiKey, workers: int, at: float) -> None:
        self.id = key.id
        self.digest = bytes.fromhex(key.sha256)
        self.scopes = frozenset(key.scopes)
        self.expires = math.inf if key.expires is None else key.expires.timestamp()
        self.per_second = math.inf if key.rate is None else key.rate.per_second / workers
        self.burst = math.inf if key.rate is None else max(key.rate.burst / workers, 1.0)
        self._balance, self._at = self.burst, at

    def take(self, cost: float, least: float, at: float) -> float:
        """Take `cost` from the bucket if it holds `least`, into debt if need be; 0, or the seconds until it does."""
        if self.per_second == math.inf:
            return 0.0
        self._balance = min(self._balance + max(at - self._at, 0.0) * self.per_second, self.burst)
        self._at = at
        if self._balance < least:
            return (least - self._balance) / self.per_second
        self._balance -= cost
        return 0.0

    def succeed(self, earlier: Caller) -> None:
        """Go on with the bucket of the same key as it was before the file was read again."""
        self._balance, self._at = min(earlier._balance, self.burst), earlier._at


class Access:
    """The keys in force. `keys` None: no keys are asked for. One event loop uses it; any thread may `replace` the keys.

    `workers` share each key's rate equally, each with a bucket of its own; `wall` gives seconds since 1970 for expiry,
    `ticks` seconds that never go back.
    """

    def __init__(
        self,
        keys: Sequence[ApiKey] | None,
        workers: int = 1,
        wall: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workers = workers
        self._wall = wall
        self._ticks = ticks
        self._callers: Mapping[bytes, Caller] | None = None
        if keys is not None:
            self.replace(keys)

    def replace(self, keys: Sequence[ApiKey]) -> None:
        """Put other keys in force, from the next request on; a key that stays keeps what is left of its rate."""
        earlier, at = self._callers or {}, self._ticks()
        callers = {key.id.encode(): Caller(key, self._workers, at) for key in keys}
        for name, caller in callers.items():
            if name in earlier:
                caller.succeed(earlier[name])
        self._callers = callers

    def admit(self, path: str, headers: Sequence[tuple[bytes, bytes]]) -> Caller | None:
        """`require` with the scope that the path asks for; None also where it asks for none."""
        scope = scope_of(path)
        return None if scope is None else self.require(headers, scope)

    def require(self, headers: Sequence[tuple[bytes, bytes]], scope: Scope) -> Caller | None:
        """The caller these headers prove, charged with one payment; None where no keys are asked for.

        Headers as ASGI gives them, the names in lower case. Raises `Refused`: 401 for a key that is missing, unknown
        or expired, 403 where it lacks the scope, 429 where its rate is used up.
        """
        callers = self._callers
        if callers is None:
            return None
        given = _key_in(headers)
        if given is None:
            raise _unauthorized("no_key", "Send an API key in the header `x-api-key` or as `authorization: Bearer`.")
        parts = given.split(b"_", 2)
        caller = callers.get(parts[1]) if len(parts) == 3 and parts[0] == PREFIX else None
        known = caller.digest if caller is not None else _NOBODY
        if not hmac.compare_digest(hashlib.sha256(given).digest(), known) or caller is None:
            message = "The API key is not known here. It may have been revoked: ask the operator for a new one."
            raise _unauthorized("unknown_key", message)
        if self._wall() >= caller.expires:
            raise _unauthorized("expired", f"API key {caller.id!r} has expired. Ask the operator for a new one.")
        if scope not in caller.scopes and "admin" not in caller.scopes:
            raise _forbidden(caller, scope)
        wait = caller.take(1.0, 1.0, self._ticks())
        if wait:
            raise _too_many(caller, wait)
        return caller

    def charge(self, caller: Caller | None, further: int) -> None:
        """Charge a batch with the payments beyond the first, which `require` has charged.

        A batch is taken whole while the key owes nothing and its cost is then owed, so that a batch larger than the
        burst is not refused for ever. Raises `Refused` (429) while something is owed.
        """
        if caller is not None and further > 0:
            wait = caller.take(float(further), 0.0, self._ticks())
            if wait:
                raise _too_many(caller, wait)


def _key_in(headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    bearer = None
    for name, value in headers:
        if name == b"x-api-key":
            return value
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            bearer = value[7:].strip()
    return bearer


def _unauthorized(reason: Reason, message: str) -> Refused:
    challenge = REALM if reason == "no_key" else f'{REALM}, error="invalid_token"'
    return _refused(401, reason, message, {"www-authenticate": challenge})


def _forbidden(caller: Caller, scope: Scope) -> Refused:
    held = ", ".join(sorted(caller.scopes))
    message = f"API key {caller.id!r} has the scopes {held}; this needs {scope!r}. Ask the operator for a key with it."
    challenge = f'{REALM}, error="insufficient_scope", scope="{scope}"'
    return _refused(403, "scope", message, {"www-authenticate": challenge})


def _too_many(caller: Caller, wait: float) -> Refused:
    seconds = max(math.ceil(wait), 1)
    held = f"{caller.per_second:g} payments/s at each worker, {caller.burst:g} at once"
    message = f"API key {caller.id!r} is over its rate: {held}. Send again in {seconds} s."
    return _refused(429, "rate", message, {"retry-after": str(seconds)})


def _refused(status: int, reason: Reason, message: str, headers: Mapping[str, str]) -> Refused:
    metrics.requests_refused.labels(reason=reason).inc()
    code = {401: "unauthorized", 403: "forbidden", 429: "rate_limited"}[status]
    return Refused(status, code, message, headers=headers)
