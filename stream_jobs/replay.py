"""History replayed as if it happened now: each payment is scored over HTTP before it enters the stream.

Payments go in waves. Within a wave no card and no merchant occurs twice, so its payments may be scored side by side;
the next wave waits until the stream job has made this one readable. A payment so sees exactly what came before it.
`python -m stream_jobs.replay payments.parquet answers.jsonl --service http://127.0.0.1:3000`
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import httpx
import orjson
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from feature_repo.schema import FIELDS
from feature_repo.settings import Settings, settings
from feature_repo.window_state import to_us
from stream_jobs.transports.base import Backlog
from stream_jobs.transports.configured import transport

WAVE = 64
"""Payments scored side by side at the most."""

SENDERS = 4
"""Requests in flight at once."""

DEADLINE = 60.0
"""Seconds the stream job may take to catch up."""

Payment = dict[str, Any]


class ReplayFailed(RuntimeError):
    """A payment was refused, or the stream job does not keep up."""


@dataclass
class Pace:
    """Replays `speed` seconds of event time in a second of ours; 0 is as fast as it goes."""

    speed: float
    _began: tuple[float, datetime] | None = None

    def wait(self, at: datetime) -> None:
        """Sleep until it is time for a payment of `at`."""
        if self.speed <= 0:
            return
        now = time.monotonic()
        self._began = self._began or (now, at)
        due = self._began[0] + (at - self._began[1]).total_seconds() / self.speed
        if due > now:
            time.sleep(due - now)


def waves(payments: list[Payment], step: timedelta | None) -> Iterator[tuple[datetime | None, list[Payment]]]:
    """Runs of payments with different cards and merchants, in time order.

    Comes with the latest multiple of `step` (UTC) that lies at or before the wave but after the wave before it, if any.
    """
    wave: list[Payment] = []
    seen: set[str] = set()
    due: datetime | None = None
    last = _floor(payments[0]["timestamp"], step) if payments and step else None
    for payment in payments:
        keys = {"card " + payment["card_id"], "merchant " + payment["merchant_id"]}
        boundary = _floor(payment["timestamp"], step) if step else None
        if wave and (keys & seen or len(wave) == WAVE or boundary != last):
            yield due, wave
            wave, seen, due = [], set(), None
        if boundary != last:
            due, last = boundary, boundary
        wave.append(payment)
        seen |= keys
    if wave:
        yield due, wave


def _floor(at: datetime, step: timedelta) -> datetime:
    return at - timedelta(microseconds=to_us(at) % (step // timedelta(microseconds=1)))


@dataclass
class _Group:
    """A consumer group that is waited for."""

    name: str
    backlog: Backlog

    def settle(self) -> None:
        """Wait until the group has acknowledged everything that was appended before this call."""
        end = self.backlog.end()
        deadline = time.monotonic() + DEADLINE
        while left := self.backlog.lag(end):
            if time.monotonic() > deadline:
                raise ReplayFailed(
                    f"Consumer group '{self.name}' is still {left} records behind after {DEADLINE:.0f} s. "
                    "Is the stream job running?"
                )
            time.sleep(0.001)


class Replay:
    """One replay against a running service and stream job, over the transport of the settings."""

    def __init__(self, current: Settings, service: str) -> None:
        online, history = current.consumer_group, current.history_group
        self._publisher = transport(current, online).publisher()
        self._online = _Group(online, transport(current, online).backlog())
        self._history = _Group(history, transport(current, history).backlog())
        limits = httpx.Limits(max_connections=SENDERS, max_keepalive_connections=SENDERS)
        self._http = httpx.Client(base_url=service, timeout=30, limits=limits)

    def run(self, payments: list[Payment], out: TextIO, pace: Pace, step: timedelta | None, advance: Any) -> None:
        """Score and publish every payment; writes one line per answer to `out`.

        At each multiple of `step` it says so on standard output and waits for a line on standard input, so that whoever
        steers it can do what is due then.
        """
        day = payments[0]["timestamp"].date() if payments else None
        with ThreadPoolExecutor(SENDERS) as senders:
            for due, wave in waves(payments, step):
                if due is not None:
                    if due.date() != day:  # a day's batch reads what the stream wrote to history
                        self._history.settle()
                    day = due.date()
                    print(json.dumps({"due": due.isoformat()}), flush=True)
                    sys.stdin.readline()
                pace.wait(wave[-1]["timestamp"])
                for line in senders.map(self._score, wave):
                    out.write(line + "\n")
                bodies = [_body(payment) for payment in wave]
                instants = [to_us(payment["ingested_at"]) for payment in wave]
                self._publisher.publish(bodies, instants, [payment["card_id"].encode() for payment in wave])
                self._online.settle()
                advance(len(wave))
        self._history.settle()

    def _score(self, payment: Payment) -> str:
        began = time.perf_counter()
        reply = self._http.post("/predict", content=_body(payment), headers={"content-type": "application/json"})
        elapsed = (time.perf_counter() - began) * 1_000
        if reply.status_code != 200:
            raise ReplayFailed(f"Payment '{payment['transaction_id']}': HTTP {reply.status_code} {reply.text[:300]}")
        return json.dumps({"latency_ms": elapsed, "answer": reply.json()})


def _body(payment: Payment) -> bytes:
    return orjson.dumps({name: payment[name] for name in FIELDS if payment.get(name) is not None})


def main() -> None:
    """Replay a Parquet file of transactions (columns of `HISTORY_SCHEMA`)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("payments", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--service", default="http://127.0.0.1:3000")
    parser.add_argument("--speed", type=float, default=0.0, help="seconds of event time per second; 0: no waiting")
    parser.add_argument("--step", type=float, help="seconds of event time after which to wait for a line on stdin")
    arguments = parser.parse_args()
    payments = pq.read_table(arguments.payments).sort_by([("timestamp", "ascending")]).to_pylist()
    step = timedelta(seconds=arguments.step) if arguments.step else None
    replay = Replay(settings(), arguments.service)
    layout = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with arguments.answers.open("w") as out, Progress(*layout, console=Console(stderr=True)) as progress:
        task = progress.add_task("  replaying", total=len(payments))
        replay.run(payments, out, Pace(arguments.speed), step, lambda n: progress.advance(task, n))


if __name__ == "__main__":
    main()
