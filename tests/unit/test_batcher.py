"""Micro-batches: nobody waits for company, and one batch's trouble is its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from bentos.batcher import LONGEST_WAIT, MOST, UNDER_WAY, Batcher, Waiting
from tests.unit.stand_ins import payment


class Work:
    """Notes which payments came together, and answers each with its identifier once its batch is let go."""

    def __init__(self, *, held: bool = False, fails: dict[str, Exception] | None = None) -> None:
        self.batches: list[list[str]] = []
        self.gates: list[asyncio.Event] = []
        self.began: list[float] = []
        self._held, self._fails = held, fails or {}

    async def __call__(self, batch: Sequence[Waiting]) -> None:
        names = [one.asked.payment.transaction_id for one in batch]
        gate = asyncio.Event()
        self.batches.append(names)
        self.gates.append(gate)
        self.began.append(time.perf_counter())
        if self._held:
            await gate.wait()
        for waiting, name in zip(batch, names, strict=True):
            if name in self._fails:
                raise self._fails[name]
            waiting.answer(name.encode())


def in_one_loop(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))  # type: ignore[arg-type]


def waiting(*names: str) -> list[Waiting]:
    loop = asyncio.get_running_loop()
    return [Waiting(payment(transaction_id=name), 0.0, loop) for name in names]


async def answers(given: Sequence[Waiting]) -> list[Any]:
    return await asyncio.gather(*(one.done for one in given), return_exceptions=True)


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0)


def timers() -> int:
    """Timers that the loop holds."""
    return sum(not timer.cancelled() for timer in asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]


def test_when_idle_a_payment_begins_in_the_same_turn_and_no_timer_is_set():
    async def work() -> None:
        at_work = Work()
        before = timers()
        (one,) = waiting("t1")
        Batcher(at_work).add([one])
        assert timers() == before
        for _ in range(2):  # the batch begins, its task runs
            await asyncio.sleep(0)
        assert at_work.batches == [["t1"]]
        assert one.done.result() == b"t1"

    in_one_loop(work)


def test_payments_of_one_turn_are_one_batch_in_their_order():
    async def work() -> None:
        at_work = Work()
        batcher = Batcher(at_work)
        given = [one for n in range(0, 30, 3) for one in waiting(f"t{n}", f"t{n + 1}", f"t{n + 2}")]
        for n in range(0, 30, 3):
            batcher.add(given[n : n + 3])
        assert await answers(given) == [f"t{n}".encode() for n in range(30)]
        assert at_work.batches == [[f"t{n}" for n in range(30)]]

    in_one_loop(work)


def test_no_batch_is_larger_than_the_most_and_none_is_out_of_order():
    async def work() -> None:
        at_work = Work()
        given = waiting(*(f"t{n}" for n in range(2 * MOST + 5)))
        Batcher(at_work).add(given)
        await answers(given)
        assert [len(batch) for batch in at_work.batches] == [MOST, MOST, 5]
        assert [name for batch in at_work.batches for name in batch] == [f"t{n}" for n in range(2 * MOST + 5)]

    in_one_loop(work)


def test_while_batches_are_under_way_the_next_gathers_until_one_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bentos.batcher.LONGEST_WAIT", 3_600.0)

    async def work() -> None:
        at_work = Work(held=True)
        batcher = Batcher(at_work)
        given = waiting(*(f"t{n}" for n in range(UNDER_WAY)))
        for n, one in enumerate(given, 1):
            batcher.add([one])
            await until(lambda n=n: len(at_work.batches) == n)
        late = waiting("a", "b", "c")
        for one in late:
            batcher.add([one])
            await asyncio.sleep(0.001)
        assert len(at_work.batches) == UNDER_WAY
        at_work.gates[-1].set()  # any of them
        await until(lambda: len(at_work.batches) == UNDER_WAY + 1)
        assert at_work.batches[-1] == ["a", "b", "c"]
        for gate in at_work.gates:
            gate.set()
        assert await answers([*given, *late]) == [*(f"t{n}".encode() for n in range(UNDER_WAY)), b"a", b"b", b"c"]

    in_one_loop(work)


def test_no_payment_waits_longer_than_the_bound_for_its_batch_to_begin():
    async def work() -> None:
        at_work = Work(held=True)
        batcher = Batcher(at_work)
        given = waiting("t0", "t1")
        for n, one in enumerate(given, 1):
            batcher.add([one])
            await until(lambda n=n: len(at_work.batches) == n)
        loop = asyncio.get_running_loop()
        delays: list[float] = []
        call_later = loop.call_later

        def noted(delay: float, *more: Any) -> Any:
            delays.append(delay)
            return call_later(delay, *more)

        loop.call_later = noted  # type: ignore[method-assign, assignment]
        asked = time.perf_counter()
        late = waiting("a", "b")
        batcher.add(late[:1])
        batcher.add(late[1:])
        assert delays == [LONGEST_WAIT], "the first to wait sets the time"
        assert LONGEST_WAIT <= 0.002
        await until(lambda: len(at_work.batches) == 3)
        assert at_work.batches[2] == ["a", "b"]
        assert at_work.began[2] - asked >= LONGEST_WAIT * 0.9
        for gate in at_work.gates:
            gate.set()
        assert await answers([*given, *late]) == [b"t0", b"t1", b"a", b"b"]

    in_one_loop(work)


def test_a_batch_that_fails_fails_its_own_and_those_without_an_answer_only():
    async def work() -> None:
        trouble = RuntimeError("trouble")
        at_work = Work(fails={"b": trouble})
        batcher = Batcher(at_work)
        first = waiting("a", "b", "c")
        batcher.add(first)
        await until(lambda: len(at_work.batches) == 1)
        second = waiting("d")
        batcher.add(second)
        assert await answers([*first, *second]) == [b"a", trouble, trouble, b"d"]

    in_one_loop(work)


def test_a_client_that_has_gone_is_no_trouble_for_the_others():
    async def work() -> None:
        at_work = Work(held=True)
        given = waiting("gone", "stays")
        Batcher(at_work).add(given)
        await until(lambda: at_work.batches)
        given[0].done.cancel()
        at_work.gates[0].set()
        assert await given[1].done == b"stays"
        assert given[0].done.cancelled()
        given[0].fail(RuntimeError("nobody hears it"))

    in_one_loop(work)


def test_drain_waits_for_those_under_way_and_those_that_wait():
    async def work() -> None:
        at_work = Work(held=True)
        batcher = Batcher(at_work)
        given = waiting(*(f"t{n}" for n in range(2 * MOST)))
        batcher.add(given)
        draining = asyncio.create_task(batcher.drain())
        await until(lambda: len(at_work.batches) == 2)
        at_work.gates[0].set()
        await given[0].done
        assert not draining.done()
        at_work.gates[1].set()
        await draining
        assert all(one.done.done() for one in given)

    in_one_loop(work)


def test_nothing_added_begins_nothing():
    async def work() -> None:
        at_work = Work()
        batcher = Batcher(at_work)
        batcher.add([])
        await batcher.drain()
        (one,) = waiting("t1")
        batcher.add([one])
        assert await one.done == b"t1"
        assert at_work.batches == [["t1"]]

    in_one_loop(work)
