"""The velocity job over Kafka's partitions, killed and started again with another number of workers.

One worker, two in a process, two processes, one again: what is online and what is in history is the same as if one job
had run through. The job is asked from outside only: processes, a topic, a Redis, Parquet.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow.dataset as ds
import pytest

from feature_repo.settings import ROOT, Settings
from monitoring.parts import environment
from monitoring.processes import Platform, at_free_ports
from monitoring.supervision import free_ports, tail
from stream_jobs.transports.configured import transport
from tests.integration.logs import KafkaLog
from tests.integration.velocity_platform import START, VelocityPlatform, body, deliveries, payments, questions
from tests.kafka_broker import Broker
from tests.parity.three_ways import microseconds

SEED = 20260301
DAY = timedelta(days=1)
END = START + 41 * DAY
PARTITIONS = 5
DEADLINE = 180.0
PAUSE, SENDING = 0.03, 0.4
"""Seconds between 25 payments, and for which the shortest part is sent while the job runs: within them it is killed."""

NO_EVENT = b"{ no event"

ONE, THREADS = [[]], [["-w", "2"]]


def cluster() -> list[list[str]]:
    """Two processes of one job."""
    addresses = ";".join(f"127.0.0.1:{port}" for port in free_ports(2))
    return [["-i", str(number), "-a", addresses] for number in range(2)]


@dataclass
class Job:
    """The velocity job as the processes of one layout, each with its own options of `bytewax.run`."""

    current: Settings
    recovery: Sequence[str] = ()
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def logs(self) -> list[Path]:
        return [self.current.home / "logs" / f"worker-{number}.log" for number in range(2)]

    def start(self, layout: Sequence[Sequence[str]]) -> None:
        for number, options in enumerate(layout):
            self.logs[number].parent.mkdir(exist_ok=True)
            with self.logs[number].open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "bytewax.run", "stream_jobs.velocity", *options, *self.recovery],
                    cwd=ROOT,
                    env=os.environ | environment(self.current),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            self.running.append(process)

    def lose(self, number: int) -> None:
        """Kill -9 to one process; the others cannot go on without it and end by themselves."""
        self.running[number].kill()
        for process in self.running:
            process.wait(DEADLINE)
        self.running.clear()

    def kill(self) -> None:
        for process in self.running:
            process.kill()
        for process in self.running:
            process.wait()
        self.running.clear()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition; fails, with the end of the logs, if a process of the job ends before."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            said = "\n".join(tail(log, 30) for log in self.logs)
            assert all(process.poll() is None for process in self.running), said
            assert time.monotonic() < deadline, said
            time.sleep(0.02)


@dataclass
class Rescaled:
    """A platform whose stream is a Kafka topic of its own, and the job that reads it."""

    platform: VelocityPlatform
    log: KafkaLog
    job: Job

    def __post_init__(self) -> None:
        current = self.platform.settings
        self.groups = [transport(current, group) for group in self.platform.groups]

    def send(self, rows: pd.DataFrame) -> None:
        """Publish in the order of the rows; one in ten under a key that is not its card's."""
        keys = [card if draw > 0.1 else shop for card, shop, draw in _keys(rows)]
        bodies = [body(payment) for payment in rows.to_dict("records")]
        with closing(self.groups[0].publisher()) as publisher:
            for begin in range(0, len(bodies), 25):
                instants = microseconds(rows["ingested_at"])[begin : begin + 25].tolist()
                publisher.publish(bodies[begin : begin + 25], instants, keys[begin : begin + 25])
                time.sleep(PAUSE)

    def lag(self) -> list[int]:
        found = []
        for group in self.groups:
            with closing(group.backlog()) as backlog:
                found.append(backlog.lag())
        return found

    def through(self, parts: Sequence[pd.DataFrame], layouts: Sequence[Sequence[Sequence[str]]]) -> int:
        """Send each part to a job of its layout and kill that in the middle; returns how many kills hit it at work."""
        draw = random.Random(SEED)
        interrupted = 0
        with ThreadPoolExecutor(1) as sender:
            for part, layout in zip(parts, layouts, strict=True):
                half = len(part) // 2
                self.send(part.iloc[:half])
                owed = self.lag()[0]
                self.job.start(layout)
                self.job.until(lambda owed=owed: self.lag()[0] < owed)  # type: ignore[misc]
                sending = sender.submit(self.send, part.iloc[half:])
                time.sleep(draw.uniform(0.0, SENDING))  # the moment is random, not awaited
                self.job.lose(draw.randrange(len(layout)))
                interrupted += sum(self.lag()) > 0
                sending.result()
        return interrupted

    def check(self, rows: pd.DataFrame) -> None:
        """Online, history and SQL agree; each event is in history, whole; nothing but the one bad record was buried."""
        self.job.until(lambda: self.lag() == [0, 0])
        assert self.platform.wrong(rows, questions(rows, [END, END + DAY])) == []
        written = ds.dataset(self.platform.settings.offline_path / "transactions").to_table().to_pandas()
        written = written[written["transaction_id"].str.startswith("t")].drop_duplicates()
        assert sorted(written["transaction_id"]) == sorted(rows["transaction_id"])
        assert {letter["body"].encode() for letter in self.log.dead()} == {NO_EVENT}


def _keys(rows: pd.DataFrame) -> Iterator[tuple[bytes, bytes, float]]:
    draw = random.Random(SEED)
    for card, shop in zip(rows["card_id"], rows["merchant_id"], strict=True):
        yield card.encode(), shop.encode(), draw.random()


@pytest.fixture
def rescaled(tmp_path: Path, kafka_broker: Broker) -> Iterator[Rescaled]:
    log = KafkaLog(kafka_broker, PARTITIONS)
    names = {"transactions_stream": log.name, "dead_letter_stream": f"{log.name}.dead", "consumer_group": log.name}
    kafka = Settings(home=tmp_path, transport="kafka", kafka_bootstrap=kafka_broker.bootstrap, **names)
    with Platform(at_free_ports(kafka)) as platform:
        past = payments(1, 20, START - 40 * DAY, 30 * DAY, cards=2, merchants=2, name="past")
        made = VelocityPlatform(platform, past.assign(card_id="other", merchant_id="elsewhere"))
        job = Job(made.settings)
        try:
            yield Rescaled(made, log, job)
        finally:
            job.kill()


def parted(rows: pd.DataFrame, count: int) -> list[pd.DataFrame]:
    """The deliveries of payments, some twice and none quite in order, in parts."""
    sent = deliveries(SEED, rows)
    return [sent.iloc[len(sent) * n // count : len(sent) * (n + 1) // count] for n in range(count)]


def test_workers_come_and_go_and_every_event_counts_once(rescaled: Rescaled) -> None:
    rows = payments(SEED, 2_500, START, 40 * DAY, cards=40, merchants=9)
    *parts, last = parted(rows, 4)
    assert rescaled.through(parts, [ONE, THREADS, cluster()]) > 0
    rescaled.job.start(ONE)
    rescaled.log.publish([NO_EVENT])
    rescaled.send(last)
    rescaled.check(rows)


def test_bytewax_snapshots_change_nothing(rescaled: Rescaled, tmp_path: Path) -> None:
    snapshots = tmp_path / "snapshots"
    snapshots.mkdir()
    subprocess.run([sys.executable, "-m", "bytewax.recovery", str(snapshots), "3"], check=True, timeout=60)
    rescaled.job.recovery = ["-r", str(snapshots), "-s", "1", "-b", "0"]
    rows = payments(SEED + 1, 1_500, START, 40 * DAY, cards=40, merchants=9)
    *parts, last = parted(rows, 4)
    assert rescaled.through(parts, [THREADS] * 3) > 0
    rescaled.job.start(ONE)
    rescaled.log.publish([NO_EVENT])
    rescaled.send(last)
    rescaled.check(rows)
