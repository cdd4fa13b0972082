"""A Redis, a Feast registry and the velocity job of a test's own, with payments to send through them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
import pandas as pd
from redis import Redis

from feature_repo.schema import FIELDS
from feature_repo.settings import Settings
from feature_repo.store import apply
from monitoring.processes import Platform
from monitoring.supervision import tail
from stream_jobs.transports.redis_streams import publish
from tests.parity.three_ways import disagreements, microseconds, offline, online, payment_events, specs, unequal
from training import backfill, batch

START = datetime(2026, 2, 1, tzinfo=UTC)
VELOCITY = ["card_velocity", "merchant_velocity"]
DEADLINE = 90.0


def payments(
    seed: int, count: int, begin: datetime, span: timedelta, cards: int, merchants: int, name: str = "t"
) -> pd.DataFrame:
    """Random payments with ties, microseconds, late arrivals (to ten minutes) and clock skew (to five)."""
    draw = np.random.default_rng(seed)
    offsets = np.sort(draw.integers(0, span // timedelta(microseconds=1), count))
    again = draw.random(count) < 0.1
    offsets[1:][again[1:]] = offsets[:-1][again[1:]]
    delay = np.where(draw.random(count) < 0.7, draw.integers(0, 3_000_000, count), draw.integers(0, 600_000_001, count))
    delay = np.where(draw.random(count) < 0.05, -draw.integers(0, 300_000_001, count), delay)
    at = pd.Series(pd.Timestamp(begin) + pd.to_timedelta(offsets, unit="us")).astype("datetime64[us, UTC]")
    return pd.DataFrame(
        {
            "transaction_id": [f"{name}{n}" for n in range(count)],
            "timestamp": at,
            "card_id": [f"c{n}" for n in draw.integers(0, cards, count)],
            "merchant_id": [f"m{n}" for n in draw.integers(0, merchants, count)],
            "amount": draw.integers(1, 100_000, count) / 100,
            "merchant_category": draw.choice(np.array(["grocery", "travel", None], object), count),
            "country": draw.choice(np.array(["GB", "FR", None], object), count),
            "channel": draw.choice(np.array(["pos", "online", None], object), count),
            "device_id": None,
            "ip": None,
            "currency": None,
            "ingested_at": at + pd.to_timedelta(delay, unit="us"),
            "is_fraud": draw.random(count) < 0.1,
        }
    )


def deliveries(seed: int, rows: pd.DataFrame, twice: float = 0.15, apart: float = 40.0) -> pd.DataFrame:
    """Payments as a careless producer sends them: some twice, and none quite in order."""
    draw = np.random.default_rng(seed)
    place = np.concatenate([np.arange(len(rows)), draw.choice(len(rows), int(twice * len(rows)), replace=False)])
    return rows.iloc[place[np.argsort(place + draw.normal(0, apart, len(place)))]]


def body(payment: Mapping[Any, Any]) -> bytes:
    given = {name: payment[name] for name in FIELDS if payment.get(name) is not None}
    return orjson.dumps(given, default=lambda instant: instant.isoformat())


def send(client: Redis, current: Settings, rows: pd.DataFrame) -> None:
    """Publish payments in the order of the rows."""
    publish(
        client,
        current.transactions_stream,
        [body(payment) for payment in rows.to_dict("records")],
        microseconds(rows["ingested_at"]).tolist(),
    )


def questions(rows: pd.DataFrame, at: Sequence[datetime]) -> pd.DataFrame:
    """A payment of every pair of card and merchant that the rows have, and of strangers, at each instant."""
    pairs = rows.drop_duplicates(["card_id", "merchant_id"]).head(60)
    asked = pd.concat([pairs, pairs.head(1).assign(card_id="stranger", merchant_id="nowhere")])
    moments = [asked.assign(timestamp=pd.Timestamp(instant).as_unit("us")) for instant in at]
    return pd.concat(moments, ignore_index=True)


class VelocityPlatform:
    """What a test of the job starts, sends to, waits for, and asks."""

    def __init__(self, platform: Platform, past: pd.DataFrame) -> None:
        self.platform = platform
        self.settings = platform.settings
        platform.start("redis")
        self.client = Redis.from_url(self.settings.redis_url)
        self.store = apply(self.settings)
        backfill.load(past, self.settings, "past")
        batch.publish(self.settings, [START], None)

    @property
    def groups(self) -> tuple[str, str]:
        group = self.settings.consumer_group
        return group, f"{group}.history"

    def send(self, rows: pd.DataFrame) -> None:
        send(self.client, self.settings, rows)

    def pending(self) -> dict[str, int]:
        """Records given to each group and not acknowledged."""
        found: Any = self.client.xinfo_groups(self.settings.transactions_stream)
        return {entry["name"].decode(): entry["pending"] for entry in found}

    def drained(self) -> bool:
        """Whether both groups have had everything in the log and have acknowledged it."""
        stream = self.settings.transactions_stream
        groups: Any = self.client.xinfo_groups(stream)
        whole: Any = self.client.xinfo_stream(stream)
        state = {entry["name"].decode(): (entry["pending"], entry["last-delivered-id"]) for entry in groups}
        return all(state.get(group) == (0, whole["last-generated-id"]) for group in self.groups)

    def drain(self) -> None:
        """Wait until the job has done everything; fails if the job ends, with the end of its log."""
        self.until(self.drained)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert self.platform.running["stream"].alive(), tail(self.platform.log("stream"), 40)
            assert time.monotonic() < deadline, f"{self.pending()}\n{tail(self.platform.log('stream'), 40)}"
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL to the job itself, and wait until it and its guard are gone."""
        running = self.platform.running["stream"]
        job = running.processes()[1:]
        for process in job:
            process.kill()
        self.platform.stop("stream")

    def wrong(self, rows: pd.DataFrame, asked: pd.DataFrame) -> list[str]:
        """Every difference between online, history and SQL over `rows`, all payments that there ever were."""
        found = online(self.store, asked)
        by_sql = disagreements(found, specs(self.store, VELOCITY), dict.fromkeys(VELOCITY, payment_events(rows)), asked)
        return by_sql + unequal(found, offline(self.store, asked))
