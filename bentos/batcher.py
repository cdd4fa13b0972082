"""Micro-batches: payments that come at once are decided together, and none waits for company.

An idle worker begins with the first payment at once, in the same turn of the event loop. While batches are under way
the next one gathers, until one of them is done or `LONGEST_WAIT` has passed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from bentos.payments import Asked

MOST = 128
"""Payments of one batch: some milliseconds of work."""

UNDER_WAY = 1
"""Batches at once before the next one gathers. Two would be smaller ones, and what a batch costs besides its payments
is a fifth of the work: one gave 7 to 11 % more payments a second."""

LONGEST_WAIT = 0.002
"""Seconds a payment may wait for a batch to begin while others are under way."""


class Waits(Protocol):
    """A payment that waits for its answer. `started` is `time.perf_counter()` when its request was complete."""

    @property
    def asked(self) -> Asked: ...

    @property
    def started(self) -> float: ...

    def answer(self, body: bytes) -> None:
        """Give the answer, unless the client has gone meanwhile."""
        ...

    def fail(self, error: Exception) -> None:
        """Give the error in its place."""
        ...


class Waiting:
    """A payment whose answer is awaited in `done`."""

    __slots__ = ("asked", "done", "started")

    def __init__(self, asked: Asked, started: float, loop: asyncio.AbstractEventLoop) -> None:
        self.asked, self.started = asked, started
        self.done: asyncio.Future[bytes] = loop.create_future()

    def answer(self, body: bytes) -> None:
        """See `Waits`."""
        if not self.done.done():
            self.done.set_result(body)

    def fail(self, error: Exception) -> None:
        """See `Waits`."""
        if not self.done.done():
            self.done.set_exception(error)


class Batcher:
    """Hands batches to `work`, which answers each payment; what it raises is the answer of all that have none."""

    def __init__(self, work: Callable[[Sequence[Waits]], Awaitable[None]]) -> None:
        self._work = work
        self._queue: deque[Waits] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._next: asyncio.Handle | None = None

    def add(self, waiting: Sequence[Waits]) -> None:
        """Take payments; their answers come through their futures."""
        self._queue.extend(waiting)
        if self._next is None:
            self._plan()

    async def drain(self) -> None:
        """Return when nothing waits any more."""
        while self._queue or self._under_way:
            await asyncio.sleep(0.001)

    def _plan(self) -> None:
        loop = asyncio.get_running_loop()
        if len(self._under_way) < UNDER_WAY:
            self._next = loop.call_soon(self._begin)
        else:
            self._next = loop.call_later(LONGEST_WAIT, self._begin)

    def _begin(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if not self._queue:
            return
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), MOST))]
        task = asyncio.get_running_loop().create_task(self._run(batch))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        if self._queue:
            self._plan()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._begin()

    async def _run(self, batch: Sequence[Waits]) -> None:
        try:
            await self._work(batch)
        except Exception as error:
            for waiting in batch:
                waiting.fail(error)
