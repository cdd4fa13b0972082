"""A circuit breaker: after failures in a row a part is left alone for a while, then tried with one call."""

from __future__ import annotations

from collections.abc import Callable

FAILURES = 3
"""Failures in a row that open it."""

PAUSE = 0.5
"""Seconds until the next attempt."""


class Breaker:
    """Ask `closed()` before a call, tell it how that went. `clock` gives seconds that only grow."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._next = float("-inf")

    @property
    def open(self) -> bool:
        """Whether the part is left alone but for a call in each `PAUSE`."""
        return self._failures >= FAILURES

    def closed(self) -> bool:
        """Whether to call; while open, true once in each `PAUSE`."""
        if not self.open:
            return True
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + PAUSE
        return True

    def succeeded(self) -> None:
        """The part answers: it is closed."""
        self._failures = 0

    def failed(self) -> None:
        """One more failure in a row."""
        self._failures += 1
        if self.open:
            self._next = self._clock() + PAUSE
