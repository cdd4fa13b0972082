"""One number everywhere, through the real parts: Redis behind Feast, Parquet behind Feast, and SQL over the raw events.

A slice of the Handbook set where `FRAUD_DATA` holds it, else generated payments, is walked in time order: each payment
is asked about before it enters the stream's steps, and the hourly batch runs where it is due. The same for random
histories, which begin with states rebuilt from history and go on with what the stream delivers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from redis import Redis

from feature_repo.schema import FIELDS, HISTORY_SCHEMA
from feature_repo.settings import Settings
from feature_repo.store import apply
from feature_repo.window_state import from_us
from stream_jobs.blocks import fan_out
from stream_jobs.engine import Plan, ShardLogic
from stream_jobs.payments import read
from stream_jobs.transports.base import Record
from stream_jobs.velocity import STREAM_SOURCE
from tests.parity.test_windows_agree import AROUND, offsets
from tests.parity.three_ways import (
    disagreements,
    label_events,
    microseconds,
    offline,
    online,
    payment_events,
    specs,
    unequal,
)
from training import backfill, batch
from training.datasets.catalogue import load_dataset

VELOCITY = ["card_velocity", "merchant_velocity"]
VIEWS = [*VELOCITY, *batch.BATCH_VIEWS]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LATENESS, SKEW = timedelta(minutes=10), timedelta(minutes=5)
ASKED = 300
SLICE = timedelta(hours=36)


@dataclass
class Stack:
    """Feast over a Redis and a folder of this module's own."""

    current: Settings
    store: Any

    def stream(self) -> Stream:
        return Stream(Plan(lambda: self.store, STREAM_SOURCE))


class Stream:
    """The stream job's steps, run here."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._shards: dict[str, ShardLogic] = {}

    def feed(self, rows: pd.DataFrame) -> None:
        found = read(records(rows), LATENESS, SKEW)
        assert found.dead == []
        for shard, part in fan_out(self._plan.specs, found.block("transactions", FIELDS)):
            logic = self._shards.setdefault(shard, ShardLogic(self._plan))
            for written in logic.on_batch([part])[0]:
                self._plan.write(written.view, written.entities, written.states, written.stamps)


def records(rows: pd.DataFrame) -> list[Record]:
    found = []
    for payment, at in zip(rows.to_dict("records"), microseconds(rows["ingested_at"]).tolist(), strict=True):
        given = {name: payment[name] for name in FIELDS if payment[name] is not None}
        body = orjson.dumps(given, default=lambda instant: instant.isoformat())
        found.append(Record("transactions", "1-0", body, at, at))
    return found


@pytest.fixture(scope="module")
def stack(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    current = Settings(home=tmp_path_factory.mktemp("stores"), redis_url=redis_server)
    Redis.from_url(redis_server).flushall()
    yield Stack(current, apply(current))
    Redis.from_url(redis_server).flushall()


@pytest.fixture(scope="module")
def world() -> tuple[pd.DataFrame, pd.DataFrame | None, datetime]:
    """Payments of some cards and at some merchants, all of each; the cards' profiles; where the slice begins."""
    dataset = load_dataset(None, Settings().data, rows=40_000)
    rows = dataset.transactions
    draw = np.random.default_rng(8)
    if dataset.name == "handbook":
        begin = datetime(2018, 8, 7, 12, tzinfo=UTC)
        cards = draw.choice(rows["card_id"].unique(), 500, replace=False)
        merchants = draw.choice(rows["merchant_id"].unique(), 500, replace=False)
        rows = rows[rows["card_id"].isin(cards) | rows["merchant_id"].isin(merchants)]
    else:
        begin = (rows["timestamp"].max() - 10 * DAY).floor("h").to_pydatetime()
    rows = rows[rows["timestamp"] < begin + SLICE].reset_index(drop=True)
    return rows, dataset.profiles, begin


def test_every_payment_of_a_slice_gets_the_same_features_online_offline_and_from_sql(
    stack: Stack, world: tuple[pd.DataFrame, pd.DataFrame | None, datetime]
):
    rows, profiles, begin = world
    current, store = stack.current, stack.store
    backfill.load(rows, current, "history")
    batch.publish(current, batch.midnights(begin, begin), profiles)
    batch.put_online(store, rows["timestamp"].min().to_pydatetime(), begin, VIEWS)
    slice_ = rows[rows["timestamp"] >= begin].sort_values("timestamp", kind="stable")
    assert len(slice_) > 300
    arrivals = rows[rows["ingested_at"] > begin].sort_values("ingested_at", kind="stable")
    arrived = microseconds(arrivals["ingested_at"])
    sample = slice_.sample(min(ASKED, len(slice_)), random_state=4).sort_values("timestamp", kind="stable")

    stream, done, due, answers = stack.stream(), 0, begin + HOUR, []
    for place, at in enumerate(microseconds(sample["timestamp"]).tolist()):
        while due <= from_us(at):
            batch.run(current, store, due - HOUR, due, profiles)
            due += HOUR
        until = int(np.searchsorted(arrived, at, side="right"))
        stream.feed(arrivals.iloc[done:until])
        done = until
        answers.append(online(store, sample.iloc[place : place + 1]))
    found = pd.concat(answers, ignore_index=True)
    sample = sample.reset_index(drop=True)

    assert unequal(found, offline(store, sample)) == []
    told = dict.fromkeys(VELOCITY, payment_events(rows))
    told["merchant_risk"] = label_events(backfill.label_rows(rows).to_pandas())
    assert disagreements(found, specs(store, told), told, sample) == []
    # A comparison of nothing with nothing would agree as well.
    for name in ("card_count_24h", "card_std_amount_7d", "merchant_count_30d", "merchant_count_is_fraud_30d"):
        assert found[name].nunique() > 3, name


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, int, pd.DataFrame]:
    """A question's instant, when the states were last rebuilt from history, and payments around both."""
    at = draw(st.sampled_from(AROUND)) + draw(st.integers(0, 3_600_000_000))
    cut = at - draw(st.sampled_from([0, 1, 600_000_000, 3 * 3_600_000_000, 8 * 24 * 3_600_000_000]))
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["c1", "c1", "c2"]),
                st.sampled_from(["m1", "m1", "m2"]),
                offsets,
                st.integers(-300_000_000, 600_000_000),
                st.one_of(st.integers(1, 10**9).map(lambda cents: cents / 100), st.floats(1e-3, 1e7)),
                st.booleans(),
            ),
            min_size=1,
            max_size=30,
        )
    )
    return at, cut, payments(at, rows)


def payments(at: int, rows: list[tuple[str, str, int, int, float, bool]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["card_id", "merchant_id", "ago", "delay", "amount", "is_fraud"])
    ts = at - frame.pop("ago").to_numpy(np.int64)
    created = ts + frame.pop("delay").to_numpy(np.int64)
    frame["transaction_id"] = [f"t{n}" for n in range(len(frame))]
    frame["timestamp"] = pd.to_datetime(ts, unit="us", utc=True).as_unit("us")
    frame["ingested_at"] = pd.to_datetime(created, unit="us", utc=True).as_unit("us")
    for name in HISTORY_SCHEMA.names:
        if name not in frame:
            frame[name] = None
    return frame


@settings(max_examples=max(settings.default.max_examples * 3 // 20, 1), phases=[Phase.explicit, Phase.generate])
@given(cases(), st.randoms(use_true_random=False))
@example(
    (AROUND[0], AROUND[0] - 1, payments(AROUND[0], [("c1", "m1", -1, -5, 1.0, True), ("c1", "m1", 0, 0, 2.0, False)])),
    None,
).via("an event ahead of the clock when the states are rebuilt")
def test_random_histories_rebuilt_and_streamed_give_the_same_features(stack: Stack, case: Any, shuffler: Any) -> None:
    at, cut, rows = case
    current, store, now = stack.current, stack.store, from_us(at)
    Redis.from_url(current.redis_url).flushall()
    created = microseconds(rows["ingested_at"])
    backfill.load(rows[created <= cut], current, "history")  # what history has when the states are rebuilt
    first = min(rows["timestamp"].min().to_pydatetime(), from_us(cut)) - 3 * DAY
    # An event may be ahead of the clock, so a rebuild reaches as far as one is allowed to.
    batch.put_online(store, first, from_us(cut) + SKEW, VELOCITY)
    backfill.load(rows, current, "history")
    batch.publish(current, batch.midnights(now, now), None, "profiles")
    hour = from_us(at - at % 3_600_000_000)
    batch.put_online(store, first, hour, batch.BATCH_VIEWS)

    coming = [*np.flatnonzero((created > cut) & (created <= at))]
    if shuffler is not None:
        coming += shuffler.sample(range(len(rows)), len(rows) // 3)  # delivered once more, whenever it came first
        coming = [place for place in coming if created[place] <= at]
        shuffler.shuffle(coming)
    stream = stack.stream()
    for begin in range(0, len(coming), 7):
        stream.feed(rows.iloc[coming[begin : begin + 7]])

    asked = pd.concat([rows.head(1)] * 3, ignore_index=True).assign(
        card_id=["c1", "c2", "nobody"], merchant_id=["m1", "m2", "nowhere"], timestamp=pd.Timestamp(now).as_unit("us")
    )
    found = online(store, asked)
    assert unequal(found, offline(store, asked)) == []
    told = dict.fromkeys(VELOCITY, payment_events(rows))
    told["merchant_risk"] = label_events(backfill.label_rows(rows).to_pandas())
    assert disagreements(found, specs(store, told), told, asked) == []


def test_the_data_of_a_user_is_used_where_there_is_any(tmp_path: Path):
    assert load_dataset(None, tmp_path, rows=2_000).name == "synthetic"
