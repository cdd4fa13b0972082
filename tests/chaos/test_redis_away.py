"""Redis killed and Redis hung under load: answers go on without it, none is lost, and it returns by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from tests.chaos.conftest import NIGHTLY
from tests.chaos.load import Load, Reply, sent_again, until
from tests.chaos.stage import Stage, same_bytes
from tests.chaos.verdict import judge

AWAY = 10.0 if NIGHTLY else 2.0
"""Seconds for which answers go on without Redis, at least."""

HUNG = 2.0
BOUND = 1.0
"""Seconds for the P99 while Redis hangs: its budgets (0.02 and 0.25 s), the journal's disk, and a busy machine."""


def degraded(one: Reply) -> bool:
    return one.ok and one.told["degraded_cause"] == "features_unavailable"


def whole(one: Reply) -> bool:
    return one.ok and not one.told["degraded"]


def test_redis_killed_and_restarted_loses_no_answer_and_repeats_get_the_same(
    stage: Stage, tell: Callable[[str], None]
) -> None:
    with Load(stage.settings) as load:
        load.settle(whole)
        stage.kill_redis()
        load.settle(degraded)
        away = time.monotonic()
        load.run_until(lambda: time.monotonic() > away + AWAY)
        assert {stage.get("/readyz").status_code for _ in range(10)} == {200}
        meanwhile = load.since(away, time.monotonic() - 0.5)[::7]
        assert same_bytes(meanwhile, sent_again(stage.settings, meanwhile))
        stage.start_redis()
        load.settle(whole)
    stage.drained()
    assert {one.status for one in load.replies} == {200}
    assert same_bytes(meanwhile, sent_again(stage.settings, meanwhile))
    verdict = judge(load.replies, stage.record(), stage.biases)
    tell(verdict.line("Redis killed", 2 * len(meanwhile)))
    assert verdict.faults == {}
    assert stage.put_aside() == []
    assert len(meanwhile) > 20


def test_redis_hung_costs_answers_their_features_and_a_bounded_time(stage: Stage, tell: Callable[[str], None]) -> None:
    with Load(stage.settings) as load:
        load.settle(whole)
        with stage.redis_hung():
            began = time.monotonic()
            until(lambda: time.monotonic() > began + HUNG)
            ended = time.monotonic()
        load.settle(whole)
    stage.drained()
    assert {one.status for one in load.replies} == {200}
    hung = load.since(began, ended)
    p99 = float(np.percentile([one.took for one in hung], 99))
    late = [one for one in hung if one.sent < ended - BOUND]
    verdict = judge(load.replies, stage.record(), stage.biases)
    tell(verdict.line(f"Redis hung for {HUNG:g} s, P99 {p99 * 1e3:.0f} ms", 0))
    assert late
    assert all(degraded(one) for one in late)
    assert p99 < BOUND
    assert verdict.faults == {}
    assert stage.put_aside() == []
