"""The cards and merchants of the generated world: who they are before anybody pays.

Every card lives in a country close to Greenwich, so that the hour in UTC is the hour on its holder's clock. Amounts
are in one unit of account whatever currency the merchant quotes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

DAY = 86_400_000_000
"""A day in microseconds, the unit of every instant and duration in the generator."""

HOUR = DAY // 24
MINUTE = HOUR // 60

LEGITIMATE = "legitimate"
"""The scenario of an honest payment."""

COUNTRIES = pd.DataFrame(
    [
        ("GB", "GBP", 52.5, -1.5, 0.35, 0.28),
        ("IE", "EUR", 53.3, -7.5, 0.10, 0.09),
        ("PT", "EUR", 39.6, -8.2, 0.12, 0.10),
        ("ES", "EUR", 40.3, -3.6, 0.20, 0.16),
        ("FR", "EUR", 46.6, 2.4, 0.23, 0.17),
        ("US", "USD", 39.0, -95.0, 0.0, 0.06),
        ("TR", "TRY", 39.0, 35.0, 0.0, 0.04),
        ("MX", "MXN", 23.0, -102.0, 0.0, 0.03),
        ("TH", "THB", 15.0, 101.0, 0.0, 0.04),
        ("AE", "AED", 24.0, 54.0, 0.0, 0.03),
    ],
    columns=["country", "currency", "lat", "long", "card_share", "merchant_share"],
)

CATEGORIES = pd.DataFrame(
    [
        ("grocery", 0.20, 0.9, 0.10),
        ("food_dining", 0.17, 0.6, 0.10),
        ("gas_transport", 0.10, 0.8, 0.05),
        ("shopping", 0.12, 1.4, 0.50),
        ("digital_goods", 0.07, 0.3, 1.00),
        ("electronics", 0.05, 3.0, 0.55),
        ("entertainment", 0.06, 0.8, 0.50),
        ("health_fitness", 0.05, 0.9, 0.15),
        ("home", 0.04, 1.8, 0.35),
        ("travel", 0.04, 3.5, 0.60),
        ("personal_care", 0.03, 0.7, 0.15),
        ("kids_pets", 0.03, 0.9, 0.30),
        ("cash", 0.02, 1.8, 0.00),
        ("jewelry", 0.01, 4.0, 0.30),
        ("gambling", 0.01, 0.9, 1.00),
    ],
    columns=["category", "share", "amount_factor", "online_share"],
)


@dataclass(frozen=True)
class Population:
    """`cards` and `merchants`, one row each, referred to by position; `days` is the length of the history."""

    cards: pd.DataFrame
    merchants: pd.DataFrame
    days: int


def populate(rng: np.random.Generator, *, cards: int, merchants: int, start: pd.Timestamp, days: int) -> Population:
    """Draw that many cards and merchants for a history that begins at `start` (UTC)."""
    return Population(_cards(rng, cards, start, days), _merchants(rng, merchants), days)


def _cards(rng: np.random.Generator, count: int, start: pd.Timestamp, days: int) -> pd.DataFrame:
    country = rng.choice(len(COUNTRIES), size=count, p=COUNTRIES["card_share"])
    # One card in ten is opened while the history runs: to the features it is a newcomer.
    opened_day = np.where(rng.random(count) < 0.1, rng.uniform(0, days * 0.8, count), -rng.gamma(2.0, 900.0, count))
    opened = np.round(opened_day * DAY).astype("int64")
    peak = rng.choice([9.0, 12.5, 17.5, 20.0], size=count, p=[0.2, 0.3, 0.3, 0.2]) + rng.normal(0, 0.8, count)
    home_lat = COUNTRIES["lat"].to_numpy()[country] + rng.normal(0, 1.2, count)
    home_long = COUNTRIES["long"].to_numpy()[country] + rng.normal(0, 1.5, count)
    return pd.DataFrame(
        {
            "card_id": numbered("c", count),
            "country": country,
            "account_opened": start + pd.to_timedelta(opened, unit="us"),
            "opened": np.maximum(opened, 0).astype("float64"),
            "birth_year": rng.integers(1940, 2006, count),
            "card_network": rng.choice(["visa", "mastercard", "amex"], size=count, p=[0.55, 0.38, 0.07]),
            "card_type": rng.choice(["debit", "credit", "prepaid"], size=count, p=[0.6, 0.35, 0.05]),
            "credit_limit": rng.choice([1000.0, 2500.0, 5000.0, 10000.0, 20000.0], size=count),
            "card_lat": home_lat.round(4),
            "card_long": home_long.round(4),
            "level": np.exp(rng.normal(np.log(28.0), 0.6, count)),
            "rate": rng.gamma(2.5, 1.0, count) + 0.15,
            "peak": peak,
            "owl": rng.random(count) < 0.08,
            "online_taste": rng.beta(2.0, 3.0, count),
        }
    )


def _merchants(rng: np.random.Generator, count: int) -> pd.DataFrame:
    country = rng.choice(len(COUNTRIES), size=count, p=COUNTRIES["merchant_share"])
    category = rng.choice(len(CATEGORIES), size=count, p=CATEGORIES["share"])
    online = rng.random(count) < CATEGORIES["online_share"].to_numpy()[category]
    cash = CATEGORIES["category"].to_numpy()[category] == "cash"
    return pd.DataFrame(
        {
            "merchant_id": numbered("m", count),
            "country": country,
            "category": category,
            "channel": np.select([cash, online], ["atm", "online"], default="pos"),
            "merchant_lat": (COUNTRIES["lat"].to_numpy()[country] + rng.normal(0, 1.5, count)).round(4),
            "merchant_long": (COUNTRIES["long"].to_numpy()[country] + rng.normal(0, 1.8, count)).round(4),
            "popularity": np.exp(rng.normal(0.0, 0.9, count)),
        }
    )


def numbered(prefix: str, count: int) -> list[str]:
    """Return `count` names from 1 on, of equal length, so that they sort as their numbers do."""
    width = len(str(count))
    return [f"{prefix}{number:0{width}d}" for number in range(1, count + 1)]
