"""Workers and the whole service killed at random moments under load: what was answered is on record, once.

A payment without an answer is sent again, as a payment terminal does, and gets exactly one decision.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable

import psutil

from tests.chaos.conftest import NIGHTLY
from tests.chaos.load import Load, sent_again
from tests.chaos.stage import Stage, same_bytes
from tests.chaos.verdict import judge

KILLS = 20 if NIGHTLY else 4
SEED = 20260401
BETWEEN = 40
"""Answers between two kills, at least: what is killed is at work."""


def finish(stage: Stage, load: Load, title: str, tell: Callable[[str], None]) -> None:
    """Send again what had no answer, twice, and judge."""
    stage.drained()
    silent = [one for one in load.replies if one.status == 0]
    assert {one.status for one in load.replies} <= {0, 200}
    again = sent_again(stage.settings, silent)
    assert {one.status for one in again} <= {200}
    sample = [*load.answered[-200:], *again]
    assert same_bytes(sample, sent_again(stage.settings, sample))
    stage.drained()
    verdict = judge([*load.replies, *again], stage.record(), stage.biases)
    tell(verdict.line(title, len(again)))
    assert silent, "no kill has hit the service at work: the test shows nothing"
    assert verdict.faults == {}
    assert stage.put_aside() == []


def test_workers_killed_under_load_lose_no_answer(stage: Stage, tell: Callable[[str], None]) -> None:
    draw = random.Random(SEED)
    with Load(stage.settings, rate=400.0, lanes=16) as load:
        for _ in range(KILLS):
            load.more(BETWEEN)
            time.sleep(draw.uniform(0.0, 0.3))  # the moment is random, not awaited
            with contextlib.suppress(psutil.NoSuchProcess):
                draw.choice(stage.workers()).kill()
        load.run_until(lambda: len(stage.workers()) == stage.settings.workers)
        load.more(BETWEEN)
    finish(stage, load, f"{KILLS} workers killed", tell)


def test_the_service_killed_under_load_loses_no_answer_also_while_redis_is_away(
    stage: Stage, tell: Callable[[str], None]
) -> None:
    draw = random.Random(SEED + 1)
    with Load(stage.settings, rate=400.0, lanes=16) as load:
        for kill in range(KILLS):
            load.more(BETWEEN)
            if kill % 2:  # what is killed now decides into its journal, and the next one begins with that
                stage.kill_redis()
                load.settle(lambda one: one.ok and one.told["degraded"], BETWEEN)
            time.sleep(draw.uniform(0.0, 0.3))
            stage.kill_service()
            if draw.random() < 0.5:
                stage.start_redis()
            stage.platform.start("service")
            stage.start_redis()
        load.more(BETWEEN)
    finish(stage, load, f"The service killed {KILLS} times, Redis away at half of them", tell)
