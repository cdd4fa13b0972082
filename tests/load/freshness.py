"""How long after it was sent a payment is readable in Redis, at a steady rate.

Seen from outside: beside the producer that keeps the pace, payments of cards and merchants never seen before are sent
on a schedule of their own, and Redis is asked for their states until both are there. A probe counts from the instant at
which it was due, so that a pause of the prober hides nothing. What the job says of itself stands beside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from confluent_kafka import Producer
from redis import Redis

from feature_repo.online_states import OnlineStates
from feature_repo.settings import Settings
from feature_repo.store import feature_store
from feature_repo.windows import spec_of_view
from stream_jobs.transports.kafka import connect
from tests.load import pace
from tests.load.apart import apart
from tests.load.payments import payments
from tests.load.rig import Job, Topic, kafka, platform
from tests.load.sizes import Sizes

PROBES_PER_S = 50
PAUSE = 0.001
GIVE_UP = 20.0
BUCKET = "fraud_feature_freshness_seconds_bucket"


def measure(sizes: Sizes) -> dict[str, Any]:
    """Percentiles of the freshness at `sizes.rate` payments a second, probes included."""
    with platform() as current, kafka() as broker:
        topic = Topic.new(current, broker, "freshness")
        if sizes.warm_events:
            topic.fill(payments(sizes.warm_events, sizes.stream_cards, name="before"))
        with Job(topic) as job:
            job.until_opened()
            job.until_done(job.online)
            return _paced(topic, job, sizes)


def _paced(topic: Topic, job: Job, sizes: Sizes) -> dict[str, Any]:
    seconds = sizes.freshness_warm_seconds + sizes.freshness_seconds
    settings = topic.settings
    prober = _Prober(settings)
    with ThreadPoolExecutor(1) as pool:
        # The producer takes seconds to start: what is measured begins when its payments arrive.
        pacing = pool.submit(
            apart,
            pace.produce,
            bootstrap=settings.kafka_bootstrap,
            topic=topic.name,
            rate=sizes.rate - PROBES_PER_S,
            seconds=seconds,
            cards=sizes.stream_cards,
        )
        applied = _applied(job.metrics())
        while _applied(job.metrics()) == applied and not pacing.done():
            time.sleep(PAUSE)
        prober.run(sizes.freshness_warm_seconds)
        before = job.metrics()
        found = prober.run(sizes.freshness_seconds)
        after = job.metrics()
        paced = pacing.result()
    histogram = _difference(before, after)
    ms = np.array(found) * 1_000
    return {
        "rate": sizes.rate,
        "sent_per_s": round(paced["events_per_s"] + PROBES_PER_S),
        "p50_ms": round(float(np.percentile(ms, 50)), 1),
        "p99_ms": round(float(np.percentile(ms, 99)), 1),
        "max_ms": round(float(ms.max()), 1),
        "probes": len(ms),
        "job_p50_ms": _quantile(histogram, 0.5),
        "job_p99_ms": _quantile(histogram, 0.99),
    }


class _Prober:
    """Sends payments of new cards at new merchants, and watches for their states."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.transactions_stream
        self._producer: Producer = connect(settings.kafka_bootstrap)
        store, client = feature_store(settings), Redis.from_url(settings.redis_url)
        views = [store.get_stream_feature_view(name) for name in ("card_velocity", "merchant_velocity")]
        self._readers = [OnlineStates(client, store.config, view, spec_of_view(view)) for view in views]
        self._sent = 0

    def run(self, seconds: float) -> list[float]:
        """Probe for so long and wait for the last; seconds from when each was due until it was readable."""
        began = time.time()
        count = int(seconds * PROBES_PER_S)
        open_: dict[str, float] = {}
        found: list[float] = []
        next_one = 0
        while next_one < count or open_:
            now = time.time()
            while next_one < count and (due := began + next_one / PROBES_PER_S) <= now:
                open_[self._send()] = due
                next_one += 1
            self._producer.poll(0)
            there = self._readable(list(open_))
            now = time.time()
            found += [now - open_.pop(name) for name in there]
            if open_ and now - min(open_.values()) > GIVE_UP:
                raise TimeoutError(
                    f"{len(open_)} of {count} probes were not readable {GIVE_UP:g} s after they were due."
                )
            time.sleep(PAUSE)
        return found

    def _send(self) -> str:
        self._sent += 1
        name = f"probe-{self._sent}"
        body = pace.payment(name, f':"{name}","merchant_id":"{name}","amount":1.0}}'.encode())
        self._producer.produce(self._topic, body, name.encode())
        return name

    def _readable(self, names: list[str]) -> list[str]:
        """Those of the probes that have both states."""
        if not names:
            return []
        columns = [reader.read(names) for reader in self._readers]
        return [name for name, *states in zip(names, *columns, strict=True) if all(s is not None for s in states)]


def _applied(said: Mapping[tuple[str, tuple[str, ...]], float]) -> float:
    return said.get(("fraud_stream_events_total", ("applied",)), 0.0)


def _difference(
    before: Mapping[tuple[str, tuple[str, ...]], float], after: Mapping[tuple[str, tuple[str, ...]], float]
) -> list[tuple[float, float]]:
    """The histogram of what came between: upper bounds in seconds, and how many were at or below each."""
    bounds: Iterable[tuple[str, tuple[str, ...]]] = (key for key in after if key[0] == BUCKET)
    return sorted((float(key[1][-1]), after[key] - before.get(key, 0.0)) for key in bounds)


def _quantile(histogram: list[tuple[float, float]], share: float) -> float | None:
    """A quantile in ms, linear within its bucket as Prometheus has it; null where there is nothing."""
    total = histogram[-1][1] if histogram else 0.0
    lower, below = 0.0, 0.0
    for upper, count in histogram:
        if total and count >= share * total:
            inside = (share * total - below) / (count - below) if count > below else 1.0
            return round((lower if math.isinf(upper) else lower + (upper - lower) * inside) * 1_000, 1)
        lower, below = upper, count
    return None
