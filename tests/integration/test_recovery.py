"""The velocity job killed at random moments, Redis restarted, Redis emptied: no event is lost and none counts twice.

Five kills by default, twenty with `FRAUD_NIGHTLY=1`. One job at a time runs for a group (see `stream_jobs.velocity`).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from datetime import timedelta

import pandas as pd
import pytest

from feature_repo.settings import Settings
from monitoring.processes import Platform, at_free_ports
from tests.integration.velocity_platform import START, VELOCITY, VelocityPlatform, deliveries, payments, questions
from tests.parity.three_ways import online, unequal
from training import batch

KILLS = 20 if os.environ.get("FRAUD_NIGHTLY") == "1" else 5
SEED = 20260201
DAY = timedelta(days=1)
END = START + 41 * DAY


@pytest.fixture
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VelocityPlatform]:
    """The job on an empty Redis; history knows of other cards only."""
    current = at_free_ports(Settings(home=tmp_path_factory.mktemp("recovery")))
    with Platform(current) as platform:
        past = payments(1, 20, START - 40 * DAY, 30 * DAY, cards=2, merchants=2, name="past")
        made = VelocityPlatform(platform, past.assign(card_id="other", merchant_id="elsewhere"))
        platform.start("stream")
        yield made


def revive(job: VelocityPlatform) -> None:
    """What a supervisor does with a job that has ended."""
    if not job.platform.running["stream"].alive():
        job.platform.stop("stream")
        job.platform.start("stream")


def test_kills_and_restarts_lose_nothing_and_count_nothing_twice(job: VelocityPlatform):
    draw = random.Random(SEED)
    rows = payments(SEED, 3_000, START, 40 * DAY, cards=6, merchants=4)
    sent = deliveries(SEED, rows)
    each = -(-len(sent) // (KILLS + 1))
    parts = [sent.iloc[begin : begin + each] for begin in range(0, len(sent), each)]
    assert len(parts) == KILLS + 1
    interrupted = 0
    for number, part in enumerate(parts[:-1]):
        begin, fatal = 0, draw.randrange(len(part))
        while begin < len(part):
            end = begin + draw.randint(1, 60)
            job.send(part.iloc[begin:end])
            if begin <= fatal < end:
                time.sleep(draw.uniform(0.0, 0.05))  # the moment is random, not awaited
                job.kill()
                interrupted += any(job.pending().values())
            begin = end
        if number == KILLS // 2:  # the log, the groups and the states come back from Redis's own file
            job.platform.stop("redis")
            job.platform.start("redis")
        job.platform.start("stream")
        if number == KILLS // 2 + 1:  # and once more under a running job
            job.platform.stop("redis")
            job.platform.start("redis")
            revive(job)
    job.send(parts[-1])
    job.drain()
    assert interrupted, "no kill has hit the job at work: the test shows nothing"
    assert job.wrong(rows, questions(rows, [END, END + DAY])) == []

    # The online store is lost, the log with it. History brings it back, and the stream goes on from there.
    job.platform.stop("stream")
    asked = questions(rows, [END, END + 3 * DAY])
    before = online(job.store, asked)
    job.client.flushall()
    assert unequal(before, online(job.store, asked)) != []
    batch.put_online(job.store, START - DAY, END, VELOCITY)
    assert unequal(before, online(job.store, asked)) == []

    more = payments(SEED + 1, 300, END, DAY, cards=6, merchants=4, name="more")
    job.platform.start("stream")
    job.send(deliveries(SEED + 1, more))
    job.drain()
    everything = pd.concat([rows, more], ignore_index=True)
    assert job.wrong(everything, questions(everything, [END + DAY + timedelta(minutes=10), END + 3 * DAY])) == []
