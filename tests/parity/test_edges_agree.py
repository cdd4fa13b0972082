"""One number everywhere on the edges: a case each, with the answer written down by hand beside SQL's.

Payments come as the text that a sender wrote and are streamed as soon as they are had; every question is asked online,
of history and of SQL. `None` is null.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from redis import Redis

from feature_repo.schema import HISTORY_SCHEMA, InvalidTransaction, parse_json
from tests.parity.test_stores_agree import VELOCITY, Stack, stack
from tests.parity.three_ways import disagreements, microseconds, offline, online, payment_events, specs, unequal
from training import backfill, batch

__all__ = ["stack"]

US = timedelta(microseconds=1)
NOON = datetime(2024, 5, 15, 12, 0, tzinfo=UTC)


@dataclass
class Said:
    """A payment: when it happened, as its sender wrote it, and how much later it was had."""

    at: str
    after: timedelta = timedelta(0)
    card: str = "c"
    merchant: str = "m"
    amount: float = 10.0
    id: str = ""
    more: dict[str, str] = field(default_factory=dict)

    @property
    def instant(self) -> datetime:
        """Python's own reading, cut to microseconds."""
        return datetime.fromisoformat(self.at).astimezone(UTC)


@dataclass
class Asked:
    at: datetime
    expected: dict[str, float | None]
    card: str = "c"
    merchant: str = "m"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def ago(*spans: timedelta, at: datetime = NOON) -> list[Said]:
    return [Said((at - span).isoformat()) for span in spans]


def counts(card_1h: int, card_24h: int, merchant_24h: int | None = None) -> dict[str, float | None]:
    merchant = {} if merchant_24h is None else {"merchant_count_24h": float(merchant_24h)}
    return {"card_count_1h": float(card_1h), "card_count_24h": float(card_24h)} | merchant


H, D = timedelta(hours=1), timedelta(days=1)
NOTHING: dict[str, float | None] = {
    "card_count_1h": 0.0,
    "card_sum_amount_24h": 0.0,
    "card_mean_amount_24h": None,
    "card_std_amount_24h": None,
    "card_max_amount_24h": None,
    "card_nunique_merchant_id_24h": 0.0,
    "card_seconds_since_last": None,
    "merchant_count_24h": 0.0,
    "merchant_mean_amount_24h": None,
    "merchant_seconds_since_last": None,
}

CASES: dict[str, tuple[list[Said], list[Asked]]] = {
    "on the far edge of a window an event counts, a microsecond before it does not": (
        [*ago(H, H + US, H - US, D, D + US, D - US)],
        [Asked(NOON, counts(2, 5, 5)), Asked(NOON + US, counts(1, 4, 4)), Asked(NOON - US, counts(3, 6, 6))],
    ),
    "on the far edge of a long window its tile counts whole": (
        [*ago(7 * D, 7 * D + US, 7 * D + 2 * H, 30 * D, 30 * D + US, 30 * D + 12 * H + US)],
        [
            Asked(NOON, {"card_count_7d": 1.0, "card_count_30d": 4.0, "card_count_24h": 0.0}),
            Asked(NOON - US, {"card_count_7d": 3.0, "card_count_30d": 5.0, "card_count_24h": 0.0}),
        ],
    ),
    "an event of the question's own instant does not count, nor one after it": (
        [Said(NOON.isoformat()), *ago(-US, US)],
        [Asked(NOON, counts(1, 1) | {"card_seconds_since_last": 1e-6}), Asked(NOON + US, counts(2, 2))],
    ),
    "payments of one instant see nothing of each other and all count a microsecond later": (
        [Said(NOON.isoformat(), amount=amount) for amount in (1.0, 2.0, 6.0)],
        [
            Asked(NOON, NOTHING),
            Asked(NOON + US, counts(3, 3, 3) | {"card_sum_amount_24h": 9.0, "card_std_amount_24h": 7.0**0.5}),
        ],
    ),
    "an age is never 0: a microsecond is the least": (
        [Said((NOON - US).isoformat()), Said((NOON - 2 * US).isoformat(), merchant="other")],
        [Asked(NOON, {"card_seconds_since_last": 1e-6, "merchant_seconds_since_last": 1e-6})],
    ),
    "nobody and nowhere": (
        ago(H),
        [
            Asked(NOON, NOTHING, card="nobody", merchant="nowhere"),
            Asked(NOON, {"card_count_24h": 0.0, "merchant_count_24h": 1.0}, card="nobody"),
            Asked(NOON, {"card_count_24h": 1.0, "merchant_count_24h": 0.0}, merchant="nowhere"),
        ],
    ),
    "the spring hour that no clock shows takes no time": (
        [Said("2024-03-31T01:59:59.999999+01:00"), Said("2024-03-31T03:00:00+02:00")],
        [
            Asked(utc("2024-03-31T01:00:00Z"), {"card_seconds_since_last": 1e-6} | counts(1, 1)),
            Asked(utc("2024-03-31T01:59:59.999999Z"), counts(2, 2)),
            Asked(utc("2024-03-31T02:00:00Z"), counts(1, 2)),
        ],
    ),
    "the autumn hour that a clock shows twice takes two": (
        [Said("2024-10-27T02:30:00+02:00"), Said("2024-10-27T02:30:00+01:00"), Said("2024-10-26T02:30:00+02:00")],
        [
            Asked(utc("2024-10-27T02:30:00+01:00"), {"card_seconds_since_last": 3600.0} | counts(1, 1)),
            Asked(utc("2024-10-27T02:30:00+02:00"), {"card_seconds_since_last": 86_400.0} | counts(0, 1)),
        ],
    ),
    "an offset is a way of writing: the same instant five times is five ties": (
        [
            Said("2024-05-15T11:59:00Z"),
            Said("2024-05-15T13:59:00+02:00"),
            Said("2024-05-15T06:29:00-05:30"),
            Said("2024-05-15 11:59:00+00:00"),
            Said("2024-05-16T01:59:00.000000+14:00"),
        ],
        [Asked(utc("2024-05-15T11:59:00Z"), NOTHING), Asked(NOON, counts(5, 5) | {"card_seconds_since_last": 60.0})],
    ),
    "a day of a leap year's end of February has the 29th in it": (
        [Said("2024-02-28T12:00:00Z"), Said("2024-02-29T00:00:00Z"), Said("2024-02-29T23:59:59.999999Z")],
        [
            Asked(utc("2024-03-01T00:00:00Z"), counts(1, 2) | {"card_count_7d": 3.0}),
            Asked(utc("2024-02-29T12:00:00Z"), counts(0, 2)),
            Asked(utc("2024-03-01T12:00:00Z"), counts(0, 1)),
        ],
    ),
    "a year without one goes from the 28th to the 1st": (
        [Said("2023-02-28T23:59:59.999999Z"), Said("2023-02-28T00:00:00Z")],
        [Asked(utc("2023-03-01T00:00:00Z"), counts(1, 2) | {"card_seconds_since_last": 1e-6})],
    ),
    "a leap second is no time: beside it lie two neighbours": (
        [Said("2016-12-31T23:59:59.999999Z"), Said("2016-12-31T22:59:59.999999Z")],
        [Asked(utc("2017-01-01T00:00:00Z"), {"card_seconds_since_last": 1e-6} | counts(1, 2))],
    ),
    "what is finer than a microsecond is cut off, by stream and history alike": (
        [Said("2024-05-15T11:00:00.123456789Z"), Said("2024-05-15T11:00:00.123456Z")],
        [
            Asked(utc("2024-05-15T12:00:00.123456Z"), counts(2, 2)),
            Asked(utc("2024-05-15T12:00:00.123457Z"), counts(0, 2)),
        ],
    ),
    "a late event counts from when it was had, whatever came before it": (
        [
            Said((NOON - 9 * 60 * 10**6 * US).isoformat(), timedelta(minutes=10), amount=99.0),
            *ago(timedelta(minutes=5), timedelta(minutes=1)),
        ],
        [
            Asked(NOON, counts(2, 2) | {"card_max_amount_24h": 10.0}),
            Asked(NOON + timedelta(minutes=1) - US, counts(2, 2)),
            Asked(NOON + timedelta(minutes=1), counts(3, 3) | {"card_max_amount_24h": 99.0}),
        ],
    ),
    "an event ahead of the clock counts when its own time has passed": (
        [Said((NOON + timedelta(minutes=5)).isoformat(), timedelta(minutes=-5))],
        [
            Asked(NOON, NOTHING),
            Asked(NOON + timedelta(minutes=5), NOTHING),
            Asked(NOON + timedelta(minutes=5) + US, counts(1, 1)),
        ],
    ),
    "told twice, of another amount the second time, the first word counts": (
        [Said((NOON - H).isoformat(), id="t", amount=5.0), Said((NOON - H).isoformat(), US, id="t", amount=7.0)],
        [Asked(NOON, counts(1, 1, 1) | {"card_sum_amount_24h": 5.0})],
    ),
    "what a payment leaves out takes nothing from what it says": (
        [
            Said((NOON - H).isoformat(), more={"merchant_category": "grocery", "country": "GB", "channel": "pos"}),
            Said((NOON - 2 * H).isoformat()),
        ],
        [Asked(NOON, counts(1, 2, 2) | {"card_nunique_merchant_id_24h": 1.0})],
    ),
    "the smallest and the largest amount add up": (
        [Said((NOON - H).isoformat(), amount=1e7), Said((NOON - 2 * H).isoformat(), amount=5e-324)],
        [Asked(NOON, {"card_sum_amount_24h": 1e7, "card_max_amount_24h": 1e7, "card_mean_amount_24h": 5e6})],
    ),
}


def as_rows(said: list[Said]) -> pd.DataFrame:
    """Payments as history has them, by Python's reading of the stamps; the text stays in `said`."""
    frame = pd.DataFrame(
        {
            "transaction_id": [each.id or f"t{n}" for n, each in enumerate(said)],
            "card_id": [each.card for each in said],
            "merchant_id": [each.merchant for each in said],
            "amount": [each.amount for each in said],
            "is_fraud": False,
            "said": [each.at for each in said],
        }
    )
    instants = [pd.Timestamp(each.instant) for each in said]
    frame["timestamp"] = pd.Series(instants).astype("datetime64[us, UTC]")
    had = [pd.Timestamp(each.instant + each.after) for each in said]
    frame["ingested_at"] = pd.Series(had).astype("datetime64[us, UTC]")
    for name in HISTORY_SCHEMA.names:
        if name not in frame:
            frame[name] = pd.Series([each.more.get(name) for each in said], dtype=object)
    return frame


@pytest.fixture
def empty(stack: Stack) -> Iterator[Stack]:
    Redis.from_url(stack.current.redis_url).flushall()
    yield stack
    backfill.unload(stack.current, "history")


@pytest.mark.parametrize("name", CASES)
def test_on_the_edge(empty: Stack, name: str) -> None:
    said, asked = CASES[name]
    rows = as_rows(said)
    current, store = empty.current, empty.store
    backfill.load(rows, current, "history")
    batch.publish(current, [NOON], None, "profiles")
    streamed = rows.assign(timestamp=rows["said"].astype(object)).drop(columns="said")
    had = microseconds(rows["ingested_at"])
    order = np.argsort(had, kind="stable")
    told = payment_events(rows)
    wanted = specs(store, VELOCITY)
    names = [feature for spec in wanted.values() for feature in spec.names]
    stream, done = empty.stream(), 0
    for each in sorted(asked, key=lambda one: one.at):
        question = rows.head(1).assign(
            card_id=each.card, merchant_id=each.merchant, timestamp=pd.Timestamp(each.at).as_unit("us")
        )
        until = int(np.searchsorted(had[order], microseconds(question["timestamp"])[0], side="right"))
        for place in order[done:until]:
            stream.feed(streamed.iloc[[place]])
        done = until
        found = online(store, question)[names]
        got: dict[str, Any] = {feature: found[feature][0] for feature in each.expected}
        by_hand = {feature: np.nan if value is None else value for feature, value in each.expected.items()}
        assert got == pytest.approx(by_hand, rel=1e-12, abs=0, nan_ok=True), each.at
        assert unequal(found, offline(store, question)[names]) == []
        assert disagreements(found, wanted, dict.fromkeys(VELOCITY, told), question) == []


@pytest.mark.parametrize(
    "stamp",
    [
        "2016-12-31T23:59:60Z",
        "2023-02-29T12:00:00Z",
        "2024-02-30T12:00:00Z",
        "2024-05-15T24:00:00Z",
        "2024-05-15T12:00:00",
    ],
)
def test_a_stamp_that_is_no_instant_is_refused_and_not_guessed(stamp: str) -> None:
    body = f'{{"transaction_id": "t", "timestamp": "{stamp}", "card_id": "c", "merchant_id": "m", "amount": 1}}'
    with pytest.raises(InvalidTransaction, match="timestamp is"):
        parse_json(body)
