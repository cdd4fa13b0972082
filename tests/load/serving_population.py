"""Who pays and where: cards of unequal activity (gamma), merchants of equal or unequal popularity (Zipf).

A payment's price depends on it: a merchant's state in Redis holds what its windows need, 1 kB for 30 payments in 30
days and 65 kB for 2,000. The default has the proportions of the Fraud Detection Handbook's data, twice as many
terminals as cards; `BUSY` has ten cards for a merchant, and most payments are made at a few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feature_repo.schema import CHANNELS, MERCHANT_CATEGORIES
from tests.load.payments import COUNTRIES, DELAY, ZIPF, Ints, Payments

ACTIVITY = 2.0
"""Shape of the cards' activity: one in ten pays less than .27, one in ten more than 1.9 times the average."""

COUNTRY_SHARES = (0.7, 0.1, 0.08, 0.05, 0.04, 0.03)
FRAUD_SHARE = 0.008


@dataclass(frozen=True)
class Population:
    """So many cards and merchants, with `per_card` payments a card on average within the last `days`.

    Merchants' popularity falls with their rank to the power `zipf`; 0: all are alike.
    """

    cards: int = 10_000
    merchants: int = 20_000
    per_card: int = 58
    days: int = 30
    zipf: float = 0.0

    def payments(self, ts: Ints, seed: int, name: str) -> Payments:
        """A payment at each of these instants (µs since 1970 UTC), numbered on under `name`."""
        draw, count = np.random.default_rng(seed), len(ts)
        activity = np.cumsum(np.random.default_rng(0).gamma(ACTIVITY, size=self.cards))
        popularity = np.cumsum(np.arange(1, self.merchants + 1) ** -self.zipf)
        card = np.searchsorted(activity, draw.random(count) * activity[-1])
        merchant = np.searchsorted(popularity, draw.random(count) * popularity[-1])
        return Payments(
            name=name,
            ts=ts,
            ingested=ts + draw.integers(0, DELAY, count),
            card=card.astype(np.int64),
            merchant=merchant.astype(np.int64),
            amount=np.maximum(np.round(draw.lognormal(3.2, 1.1, count), 2), 0.01),
            category=draw.integers(0, len(MERCHANT_CATEGORIES), count),
            country=draw.choice(len(COUNTRIES), count, p=COUNTRY_SHARES),
            channel=draw.integers(0, len(CHANNELS), count),
            fraud=draw.random(count) < FRAUD_SHARE,
        )


BUSY = Population(cards=20_000, merchants=2_000, per_card=60, zipf=ZIPF)
