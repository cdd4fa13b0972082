"""Generated payments in columns: millions in seconds, in time order, no two at the same instant.

Invariant: the same arguments give the same payments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.schema import CHANNELS, HISTORY_SCHEMA, MERCHANT_CATEGORIES
from feature_repo.window_state import from_us
from feature_repo.windows import DAY, HOUR

PER_DAY = 2
"""Payments of a card in a day, on average: the Handbook's cards have 1.9."""

DISTINCT_MERCHANTS = 0.4
"""Merchants for each card."""

ZIPF = 0.8
"""Exponent of the merchants' popularity: the first of 20,000 has 2.8 % of all payments. 0: all are alike."""

ALIKE: dict[str, Any] = {"zipf": 0.0, "merchants_per_card": 2.0}
"""Merchants as the Handbook has them: two for each card, all of them alike."""

COUNTRIES = ("GB", "FR", "DE", "ES", "NL", "US")
DELAY = 400_000
"""A payment is first had at most so many µs after it was made."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Payments:
    """Columns of payments; `card`, `merchant` and the like are numbers, made into names where they leave."""

    name: str
    ts: Ints
    ingested: Ints
    card: Ints
    merchant: Ints
    amount: npt.NDArray[np.float64]
    category: Ints
    country: Ints
    channel: Ints
    fraud: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ts)

    def bodies(self, begin: int, end: int) -> Iterator[bytes]:
        """The payments [begin, end) as a producer sends them."""
        part = slice(begin, end)
        stamps = np.datetime_as_string(self.ts[part].view("datetime64[us]"), unit="us").tolist()
        columns = (self.card, self.merchant, self.amount, self.category, self.country, self.channel)
        rows = zip(stamps, *(column[part].tolist() for column in columns), strict=True)
        for number, (at, card, merchant, amount, category, country, channel) in enumerate(rows, begin):
            yield (
                f'{{"transaction_id":"{self.name}{number}","timestamp":"{at}Z","card_id":"{card_id(card)}",'
                f'"merchant_id":"{merchant_id(merchant)}","amount":{amount},'
                f'"merchant_category":"{MERCHANT_CATEGORIES[category]}","country":"{COUNTRIES[country]}",'
                f'"channel":"{CHANNELS[channel]}","currency":"EUR"}}'
            ).encode()

    def frame(self, begin: int = 0, end: int | None = None) -> pd.DataFrame:
        """The payments [begin, end) with the columns of the history and `is_fraud`."""
        part = slice(begin, end)
        numbers = range(*part.indices(len(self)))
        rows = pd.DataFrame({"transaction_id": [f"{self.name}{number}" for number in numbers]})
        rows["timestamp"] = pd.to_datetime(self.ts[part], unit="us", utc=True).as_unit("us")
        rows["card_id"] = _names(card_id, self.card[part])
        rows["merchant_id"] = _names(merchant_id, self.merchant[part])
        rows["amount"] = self.amount[part]
        rows["merchant_category"] = np.array(MERCHANT_CATEGORIES, object)[self.category[part]]
        rows["country"] = np.array(COUNTRIES, object)[self.country[part]]
        rows["channel"] = np.array(CHANNELS, object)[self.channel[part]]
        rows["ingested_at"] = pd.to_datetime(self.ingested[part], unit="us", utc=True).as_unit("us")
        return rows.reindex(columns=HISTORY_SCHEMA.names).assign(is_fraud=self.fraud[part])


def card_id(number: int) -> str:
    """A card's name."""
    return f"card-{number:07d}"


def merchant_id(number: int) -> str:
    """A merchant's name."""
    return f"merchant-{number:06d}"


def _names(name: Callable[[int], str], numbers: Ints) -> npt.NDArray[np.object_]:
    """The numbers' names, one object for each different one."""
    found = np.empty(int(numbers.max(initial=-1)) + 1, object)
    found[:] = [name(number) for number in range(len(found))]
    return found[numbers]


def payments(
    count: int,
    cards: int,
    *,
    end: datetime | None = None,
    seed: int = 1,
    zipf: float = ZIPF,
    merchants_per_card: float = DISTINCT_MERCHANTS,
    name: str = "t",
) -> Payments:
    """`count` payments of so many cards at `PER_DAY` a day up to `end` (default: the last full hour)."""
    draw = np.random.default_rng(seed)
    last = int((end or last_hour()).timestamp()) * 1_000_000 - DELAY
    span = max(int(count / (cards * PER_DAY) * DAY), 10 * count)
    # Adding a payment's number to its sorted instant leaves no two at one instant.
    ts = last - span + np.sort(draw.integers(0, span - count, count)) + np.arange(count)
    merchants = max(int(cards * merchants_per_card), 10)
    popularity = np.cumsum(np.arange(1, merchants + 1) ** -zipf)
    merchant = np.searchsorted(popularity, draw.random(count) * popularity[-1])
    return Payments(
        name=name,
        ts=ts,
        ingested=ts + draw.integers(0, DELAY, count),
        card=draw.integers(0, cards, count),
        merchant=merchant.astype(np.int64),
        amount=np.maximum(np.round(draw.lognormal(3.2, 1.1, count), 2), 0.01),
        category=draw.integers(0, len(MERCHANT_CATEGORIES), count),
        country=draw.choice(len(COUNTRIES), count, p=[0.7, 0.1, 0.08, 0.05, 0.04, 0.03]),
        channel=draw.integers(0, len(CHANNELS), count),
        fraud=draw.random(count) < 0.008,
    )


def last_hour() -> datetime:
    """The last full hour."""
    now = int(datetime.now(UTC).timestamp()) * 1_000_000
    return from_us(now - now % HOUR)
