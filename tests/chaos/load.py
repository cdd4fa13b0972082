"""A steady load on the service while something behind it breaks, and every reply to it, kept for the verdict.

Invariant: a payment is sent at most once; one whose connection ended under it is kept as unanswered, for the test to
send again. A lane is one connection, and so one worker, until that connection is lost.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from feature_repo.settings import Settings

NO_ANSWER = 0
PATIENCE = 120.0
"""Seconds for what a busy machine may take: the start of a worker, a connection that waits for one."""

PAUSE = 0.05
DUE = 100
"""Answers in a row that show a state has come to stay."""

SENT_ANEW = (ConnectionError, http.client.HTTPException, TimeoutError)


@dataclass(frozen=True)
class Reply:
    """A payment and what came of it; `sent` is `time.monotonic()`, `took` seconds, `lane` tells connections apart."""

    payment: dict[str, Any]
    sent: float
    took: float
    status: int
    body: bytes
    lane: tuple[int, int]

    @property
    def transaction_id(self) -> str:
        return str(self.payment["transaction_id"])

    @property
    def ok(self) -> bool:
        return self.status == 200

    @property
    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class Client:
    """One connection at a time; made anew when it is lost."""

    def __init__(self, current: Settings, number: int = 0) -> None:
        self._current, self._number, self._made = current, number, 0
        self._open: http.client.HTTPConnection | None = None

    def connect(self) -> None:
        """Raises `OSError` where nobody listens."""
        if self._open is None:
            made = http.client.HTTPConnection(self._current.host, self._current.port, timeout=PATIENCE)
            made.connect()
            self._open, self._made = made, self._made + 1

    def send(self, payment: dict[str, Any]) -> Reply:
        """Raises `OSError` only where the payment did not leave."""
        self.connect()
        assert self._open is not None
        began, status, body = time.monotonic(), NO_ANSWER, b""
        try:
            self._open.request("POST", "/predict", json.dumps(payment), {"content-type": "application/json"})
            answer = self._open.getresponse()
            status, body = answer.status, answer.read()
        except SENT_ANEW:
            status, body = NO_ANSWER, b""
            self.close()
        return Reply(payment, began, time.monotonic() - began, status, body, (self._number, self._made))

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open = None


class Load:
    """`rate` payments a second over `lanes` connections, from entry to exit of the `with` block."""

    def __init__(self, current: Settings, rate: float = 200.0, lanes: int = 8) -> None:
        self._current, self._interval = current, lanes / rate
        self._name, self._numbers = uuid.uuid4().hex[:8], itertools.count()
        self._ended = threading.Event()
        self._failed: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(lane,), daemon=True) for lane in range(lanes)]
        self.replies: list[Reply] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        assert self._failed == []
        assert not any(thread.is_alive() for thread in self._threads)

    def run_until(self, condition: Callable[[], Any]) -> None:
        """Go on until the condition holds."""
        until(condition)
        assert self._failed == []

    def more(self, count: int = DUE) -> None:
        """Go on until so many more payments have been answered."""
        reached = len(self.answered) + count
        self.run_until(lambda: len(self.answered) >= reached)

    def settle(self, like: Callable[[Reply], bool], count: int = DUE) -> None:
        """Go on until the last `count` replies to payments sent from now on are all `like` that."""
        began = time.monotonic()
        self.run_until(lambda: _settled([one for one in self.replies[-count:] if one.sent > began], like, count))

    def since(self, began: float, before: float = float("inf")) -> list[Reply]:
        """Replies to what was sent in [began, before)."""
        return [one for one in self.replies if began <= one.sent < before]

    @property
    def answered(self) -> list[Reply]:
        return [one for one in self.replies if one.ok]

    def _run(self, lane: int) -> None:
        client, due = Client(self._current, lane), time.monotonic() + self._interval * lane / len(self._threads)
        try:
            while not self._ended.wait(max(due - time.monotonic(), 0.0)):
                due = max(due, time.monotonic() - PAUSE) + self._interval
                try:
                    client.connect()
                except OSError:  # a service that is started again; the payment has not left
                    due = time.monotonic() + PAUSE
                    continue
                self.replies.append(client.send(self._payment()))
        except BaseException as error:
            self._failed.append(error)
        finally:
            client.close()

    def _payment(self) -> dict[str, Any]:
        number = next(self._numbers)
        return {
            "transaction_id": f"{self._name}-{number}",
            "timestamp": datetime.now(UTC).isoformat(),
            "card_id": f"card-{number % 50}",
            "merchant_id": f"merchant-{number % 20}",
            "amount": 1.0 + number * 37 % 600,
        }


def _settled(latest: Sequence[Reply], like: Callable[[Reply], bool], count: int) -> bool:
    return len(latest) == count and all(like(one) for one in latest)


def sent_again(current: Settings, replies: Sequence[Reply]) -> list[Reply]:
    """The replies to the same payments, sent once more; each must be answered."""
    client = Client(current)
    try:
        return [client.send(one.payment) for one in replies]
    finally:
        client.close()


def until(condition: Callable[[], Any], patience: float = PATIENCE) -> None:
    """Return when the condition holds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "what was waited for has not come"
        time.sleep(PAUSE)
