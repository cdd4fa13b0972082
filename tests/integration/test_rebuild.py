"""The online store lost or outdated, made anew from history with one command, while events go on arriving."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from feature_repo.settings import ROOT
from monitoring.parts import environment
from stream_jobs.engine import Plan
from stream_jobs.velocity import STREAM_SOURCE
from tests.integration.test_rescale import DAY, END, NO_EVENT, ONE, SEED, START, Rescaled, parted, rescaled
from tests.integration.velocity_platform import payments, questions

__all__ = ["rescaled"]


def run_rebuild(job: Rescaled) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "stream_jobs.rebuild", "--as-of", END.isoformat()],
        cwd=ROOT,
        env=os.environ | environment(job.platform.settings),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_flushed_redis_is_rebuilt_and_the_stream_goes_on_from_there(rescaled: Rescaled) -> None:
    rows = payments(SEED + 2, 2_000, START, 40 * DAY, cards=40, merchants=9)
    first, last = parted(rows, 2)
    rescaled.job.start(ONE)
    rescaled.send(first)
    rescaled.log.publish([NO_EVENT])
    rescaled.job.until(lambda: rescaled.lag()[0] == 0)  # history may be behind: what it lacks must come again
    rescaled.job.kill()
    asked = questions(rows, [END])
    rescaled.platform.client.flushall()
    assert rescaled.platform.wrong(rows, asked) != []
    said = run_rebuild(rescaled)
    assert "Rebuilt " in said
    assert " of card_velocity" in said
    assert " of merchant_velocity" in said
    rescaled.job.start(ONE)
    rescaled.send(last)
    rescaled.job.until(lambda: rescaled.lag() == [0, 0])
    assert rescaled.platform.wrong(rows, questions(rows, [END, END + DAY])) == []


def test_states_that_nothing_can_read_any_more_are_replaced_and_strangers_removed(rescaled: Rescaled) -> None:
    rows = payments(SEED + 3, 400, START, 40 * DAY, cards=10, merchants=4)
    rescaled.job.start(ONE)
    rescaled.send(rows)
    rescaled.job.until(lambda: rescaled.lag() == [0, 0])
    rescaled.job.kill()
    plan = Plan(lambda: rescaled.platform.store, STREAM_SOURCE)
    cards = sorted(rows["card_id"].unique())
    stamps = [2**52] * (len(cards) + 1)  # newer than any: what Feast's own writer would not replace
    plan.write("card_velocity", [*cards, "ghost"], [b"an older layout"] * (len(cards) + 1), stamps)
    assert plan.load("card_velocity", ["ghost"]) == [b"an older layout"]
    assert "card_velocity: 1 states removed" in run_rebuild(rescaled)
    assert plan.load("card_velocity", ["ghost"]) == [None]
    assert rescaled.platform.wrong(rows, questions(rows, [END])) == []


@pytest.mark.parametrize("instant", ["2026-03-01", "yesterday"])
def test_an_instant_without_an_offset_is_refused(instant: str) -> None:
    command = [sys.executable, "-m", "stream_jobs.rebuild", "--as-of", instant]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--as-of" in done.stderr
