"""The draws that honest and fraudulent payments share: who, where, when within an episode, and for how much.

Every function draws from the generator it is given and from nothing else. Cards and merchants are positions in the
population; instants are microseconds since the start of the history, as float64 (exact up to 2**53).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from training.population import CATEGORIES, COUNTRIES, DAY, HOUR, Population


def payments(card: np.ndarray, merchant: np.ndarray, instant: np.ndarray, amount: np.ndarray) -> pd.DataFrame:
    """Bring the columns of payments together."""
    return pd.DataFrame({"card": card, "merchant": merchant, "instant": instant, "amount": amount})


def draw_cards(rng: np.random.Generator, world: Population, count: int) -> np.ndarray:
    """Draw cards in proportion to how often they pay and how long they have been open."""
    open_share = 1.0 - world.cards["opened"].to_numpy() / (world.days * DAY)
    weight = world.cards["rate"].to_numpy() * open_share
    return rng.choice(len(weight), size=count, p=weight / weight.sum())


def draw_merchants(rng: np.random.Generator, weights: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Draw one merchant for each entry of `group`, which picks the row of `weights` (group, merchant)."""
    bounds = np.cumsum(weights, axis=1)
    drawn = np.empty(len(group), dtype="int64")
    for number in np.unique(group):
        here = group == number
        target = rng.random(int(here.sum())) * bounds[number, -1]
        drawn[here] = np.searchsorted(bounds[number], target, side="right")
    return np.minimum(drawn, weights.shape[1] - 1)


def weights_by_country(world: Population) -> np.ndarray:
    """How readily a holder who is in each country (row) pays at each merchant (column)."""
    merchants = world.merchants
    here = merchants["country"].to_numpy() == np.arange(len(COUNTRIES))[:, None]
    online = (merchants["channel"] == "online").to_numpy()
    # A small world may have no merchant in some country; whoever is there pays anywhere.
    reach = np.where(here, 1.0, np.where(online, 0.08, 1e-9))
    return reach * merchants["popularity"].to_numpy()


def of_category(world: Population, categories: Collection[str]) -> np.ndarray:
    """Return one weight per merchant: 1 within the categories, next to nothing outside."""
    names = CATEGORIES["category"].to_numpy()[world.merchants["category"].to_numpy()]
    return np.where(np.isin(names, list(categories)), 1.0, 1e-9)


def price(
    rng: np.random.Generator, world: Population, card: np.ndarray, merchant: np.ndarray, spread: float
) -> np.ndarray:
    """Return what the holder usually pays at that kind of merchant, log-normally spread."""
    factor = CATEGORIES["amount_factor"].to_numpy()[world.merchants["category"].to_numpy()[merchant]]
    return world.cards["level"].to_numpy()[card] * factor * lognormal(rng, 1.0, spread, len(card))


def lognormal(rng: np.random.Generator, mean: float, spread: float, count: int) -> np.ndarray:
    """Draw log-normal numbers with that mean; `spread` is the deviation of the logarithm."""
    return mean * np.exp(rng.normal(-spread * spread / 2, spread, count))


def clock(rng: np.random.Generator, peak: np.ndarray, night: np.ndarray) -> np.ndarray:
    """Return times of day in microseconds: about the peak hour, or between 22 and 4 o'clock where `night`."""
    hours = np.where(night, rng.uniform(22.0, 28.0, len(peak)), peak + rng.normal(0.0, 3.0, len(peak)))
    return np.round((hours % 24.0) * HOUR)


def episodes(rows: int, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (episode, place within it) of the first `rows` rows of episodes of those sizes."""
    episode = np.repeat(np.arange(len(sizes)), sizes)[:rows]
    place = np.arange(len(episode)) - np.searchsorted(episode, episode, side="left")
    return episode, place


def elapsed(rng: np.random.Generator, place: np.ndarray, gap: float | np.ndarray) -> np.ndarray:
    """Return each row's time since its episode began; gaps are exponential with that mean, the first is nothing."""
    gaps = np.round(rng.exponential(gap, len(place)) + np.asarray(gap) / 10)
    gaps[place == 0] = 0.0
    total = np.cumsum(gaps)
    starts = np.maximum.accumulate(np.where(place == 0, np.arange(len(place)), 0))
    return total - total[starts] if len(place) else total
