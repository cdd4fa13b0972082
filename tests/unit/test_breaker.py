"""The circuit breaker over a clock of the test's own."""

from __future__ import annotations

import pytest

from bentos.breaker import FAILURES, PAUSE, Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    for _ in range(FAILURES):
        assert breaker.closed()
        breaker.failed()
    return breaker


def test_it_stays_closed_until_enough_failures_in_a_row(clock: Clock):
    breaker = Breaker(clock)
    for _ in range(3):
        for _ in range(FAILURES - 1):
            breaker.failed()
            assert breaker.closed()
        breaker.succeeded()
    assert not opened(clock).closed()


def test_while_open_one_call_is_let_through_in_each_pause(clock: Clock):
    breaker = opened(clock)
    let_through = []
    for tick in range(40):
        clock.now = 1_000.0 + tick * PAUSE / 8
        if breaker.closed():
            let_through.append(tick)
            breaker.failed()
    assert let_through == [8, 16, 24, 32]


def test_a_trial_under_way_is_the_only_one(clock: Clock):
    breaker = opened(clock)
    clock.now += PAUSE
    assert [breaker.closed() for _ in range(5)] == [True, False, False, False, False]


def test_a_trial_that_never_tells_is_followed_by_another(clock: Clock):
    breaker = opened(clock)
    for _ in range(3):
        clock.now += PAUSE
        assert breaker.closed()
        assert not breaker.closed()


def test_a_success_closes_it_at_once_and_the_count_begins_anew(clock: Clock):
    breaker = opened(clock)
    clock.now += PAUSE
    assert breaker.closed()
    breaker.succeeded()
    assert all(breaker.closed() for _ in range(5))
    for _ in range(FAILURES - 1):
        breaker.failed()
    assert breaker.closed()


def test_failures_that_come_in_late_keep_it_open(clock: Clock):
    breaker = opened(clock)
    clock.now += PAUSE * 0.9
    breaker.failed()
    clock.now += PAUSE * 0.9
    assert not breaker.closed()
