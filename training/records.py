"""Generated payments as a bank records them: with names, places, devices and arrival times.

Nothing here decides whether a payment is a fraud, and no recorded column follows from the label alone.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from training.population import CATEGORIES, COUNTRIES, DAY, LEGITIMATE, Population, numbered

EARTH_RADIUS_KM = 6371.0
DEVICES_PER_CARD = 2
FRAUD_DEVICES = 60
"""Devices of fraudsters; a part of their payments comes from these, the rest from the holder's own or a fresh one."""


def record(rng: np.random.Generator, world: Population, payments: pd.DataFrame, start: pd.Timestamp) -> pd.DataFrame:
    """Return the payments in order of time, with every raw column.

    `payments`: card and merchant (positions), instant (microseconds since `start`), amount, scenario.
    """
    payments = _in_order(rng, payments, world.days * DAY)
    card = world.cards.iloc[payments["card"]].reset_index(drop=True)
    merchant = world.merchants.iloc[payments["merchant"]].reset_index(drop=True)
    timestamp = start + pd.to_timedelta(payments["instant"], unit="us")
    fraud = (payments["scenario"] != LEGITIMATE).to_numpy()
    online = (merchant["channel"] == "online").to_numpy()
    device, ip = _origin(rng, payments["card"].to_numpy(), online, fraud)
    frame = pd.DataFrame(
        {
            "transaction_id": numbered("t", len(payments)),
            "timestamp": timestamp.dt.as_unit("us"),
            "card_id": card["card_id"],
            "merchant_id": merchant["merchant_id"],
            "amount": payments["amount"].clip(lower=0.5).round(2),
            "merchant_category": CATEGORIES["category"].to_numpy()[merchant["category"]],
            "country": COUNTRIES["country"].to_numpy()[merchant["country"]],
            "channel": merchant["channel"],
            "device_id": device,
            "ip": ip,
            "currency": COUNTRIES["currency"].to_numpy()[merchant["country"]],
            "ingested_at": (timestamp + _delay(rng, len(payments))).dt.as_unit("us"),
            "is_fraud": fraud.astype("int8"),
            "scenario": payments["scenario"],
            "home_country": COUNTRIES["country"].to_numpy()[card["country"]],
            "entry_mode": _entry_mode(rng, merchant["channel"].to_numpy(), fraud),
            "merchant_lat": merchant["merchant_lat"],
            "merchant_long": merchant["merchant_long"],
            "distance_km": _distance_km(card, merchant),
            "hour": timestamp.dt.hour.astype("int8"),
            "weekday": timestamp.dt.weekday.astype("int8"),
        }
    )
    known = ["account_opened", "birth_year", "card_network", "card_type", "credit_limit", "card_lat", "card_long"]
    return frame.join(card[known])


def _in_order(rng: np.random.Generator, payments: pd.DataFrame, end: int) -> pd.DataFrame:
    moment = payments["instant"].to_numpy() + rng.integers(0, 1_000_000, len(payments))
    # An episode that begins on the last evening stays within the history.
    moment = np.where(moment >= end, moment - DAY, moment).astype("int64")
    return payments.assign(instant=moment).sort_values("instant", kind="stable", ignore_index=True)


def _origin(
    rng: np.random.Generator, card: np.ndarray, online: np.ndarray, fraud: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the device and address of each payment; a card terminal gives neither."""
    count = len(card)
    own = card * DEVICES_PER_CARD + (rng.random(count) < 0.3)
    fresh = rng.integers(10_000_000, 99_999_999, count)
    gang = rng.integers(0, FRAUD_DEVICES, count)
    luck = rng.random(count)
    # Holders buy new telephones; fraudsters share devices, fake new ones and take over the holder's.
    device = np.where(luck < 0.04, fresh, own + 1_000_000)
    device = np.where(fraud, np.select([luck < 0.4, luck < 0.8], [gang, fresh], default=device), device)
    # 198.18.0.0/15 is set aside for tests: no address here is anybody's.
    host = np.where(rng.random(count) < 0.1, rng.integers(0, 2**17, count), (device * 2_654_435_761) % 2**17)
    names = np.array([f"d{number:08d}" for number in device.tolist()], dtype=object)
    addresses = np.array([f"198.{18 + (n >> 16)}.{(n >> 8) & 255}.{n & 255}" for n in host.tolist()], dtype=object)
    names[~online] = addresses[~online] = None
    return names, addresses


def _delay(rng: np.random.Generator, count: int) -> pd.Series:
    """The journey from till to platform: some 80 ms, never more than 2 s."""
    milliseconds = np.exp(rng.normal(np.log(80.0), 0.6, count)).clip(1.0, 2_000.0)
    return pd.Series(pd.to_timedelta(np.round(milliseconds * 1_000).astype("int64"), unit="us"))


def _entry_mode(rng: np.random.Generator, channel: np.ndarray, fraud: np.ndarray) -> np.ndarray:
    luck = rng.random(len(channel))
    swiped = luck < np.where(fraud, 0.2, 0.05)
    return np.select(
        [channel == "online", swiped, luck < 0.7, channel == "atm"],
        ["ecommerce", "magstripe", "chip", "chip"],
        default="contactless",
    )


def _distance_km(card: pd.DataFrame, merchant: pd.DataFrame) -> np.ndarray:
    """Great-circle distance between the holder's home and the merchant (haversine)."""
    lat, long = np.radians(card["card_lat"].to_numpy()), np.radians(card["card_long"].to_numpy())
    there_lat = np.radians(merchant["merchant_lat"].to_numpy())
    there_long = np.radians(merchant["merchant_long"].to_numpy())
    chord = np.sin((there_lat - lat) / 2) ** 2
    chord += np.cos(lat) * np.cos(there_lat) * np.sin((there_long - long) / 2) ** 2
    return (2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(chord))).round(2)
