"""How honest holders pay: favourites, habits of the clock, journeys, sprees and the odd large purchase.

Each habit is here because a fraud looks like it. Payments are frames as `draws.payments` makes them; cards and
merchants are positions in the population, instants microseconds since the start of the history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from training.draws import (
    clock,
    draw_cards,
    draw_merchants,
    elapsed,
    episodes,
    of_category,
    payments,
    price,
    weights_by_country,
)
from training.population import COUNTRIES, DAY, HOUR, LEGITIMATE, MINUTE, Population


@dataclass(frozen=True)
class Habits:
    """What honest payments are made of. Shares are of the honest rows unless they say otherwise."""

    favourites: int = 12
    favourite_share: float = 0.75
    amount_spread: float = 0.5
    large_share: float = 0.008
    large_factor: tuple[float, float] = (3.0, 8.0)
    owl_night_share: float = 0.4
    trips: float = 0.8
    trip_days: tuple[float, float] = (3.0, 12.0)
    trip_pull: float = 0.08
    spree_share: float = 0.036
    spree_size: tuple[int, int] = (3, 10)
    spree_hours: float = 3.0
    game_share: float = 0.012
    game_size: tuple[int, int] = (2, 8)
    game_minutes: float = 20.0
    game_amount: tuple[float, float] = (0.8, 6.0)
    weekend_pull: float = 0.35


HABITS = Habits()
MAX_TRIPS = 3
SPREE_CATEGORIES = ("shopping", "electronics", "home", "kids_pets", "grocery", "food_dining", "jewelry")


def spend(rng: np.random.Generator, world: Population, rows: int, habits: Habits = HABITS) -> pd.DataFrame:
    """Return `rows` honest payments in no particular order."""
    routine_rows = rows - round(rows * habits.spree_share) - round(rows * habits.game_share)
    routine = _routine(rng, world, routine_rows, habits)
    spree = _spree(rng, world, round(rows * habits.spree_share), habits)
    game = _game(rng, world, round(rows * habits.game_share), habits)
    return pd.concat([routine, spree, game], ignore_index=True).assign(scenario=LEGITIMATE)


def _routine(rng: np.random.Generator, world: Population, rows: int, habits: Habits) -> pd.DataFrame:
    card = draw_cards(rng, world, rows)
    cards = world.cards
    instant = _instants(rng, world, card, habits)
    instant, destination = _travel(rng, world, card, instant, habits)
    weights = weights_by_country(world)
    country = cards["country"].to_numpy()
    favourites = draw_merchants(rng, weights, np.repeat(country, habits.favourites))
    # Some favourites are dearer than others: the smaller of two ranks is the more likely one.
    rank = np.minimum(*rng.integers(0, habits.favourites, size=(2, rows)))
    usual = favourites[card * habits.favourites + rank]
    fresh = draw_merchants(rng, weights, country[card])
    merchant = np.where(rng.random(rows) < habits.favourite_share, usual, fresh)
    at_counter = (world.merchants["channel"] != "online").to_numpy()[merchant]
    abroad = (destination >= 0) & at_counter
    merchant[abroad] = draw_merchants(rng, weights, destination[abroad])
    amount = price(rng, world, card, merchant, habits.amount_spread)
    large = rng.random(rows) < habits.large_share
    amount[large] *= rng.uniform(*habits.large_factor, int(large.sum()))
    return payments(card, merchant, instant, amount)


def _spree(rng: np.random.Generator, world: Population, rows: int, habits: Habits) -> pd.DataFrame:
    """An afternoon of shopping: several shops within hours, at the usual prices."""
    card, instant = _bout(rng, world, rows, habits.spree_size, habits.spree_hours * HOUR, habits)
    weights = weights_by_country(world) * of_category(world, SPREE_CATEGORIES)
    merchant = draw_merchants(rng, weights, world.cards["country"].to_numpy()[card])
    return payments(card, merchant, instant, price(rng, world, card, merchant, habits.amount_spread))


def _game(rng: np.random.Generator, world: Population, rows: int, habits: Habits) -> pd.DataFrame:
    """Small purchases one after the other in an online game: what card testing looks like at first."""
    card, instant = _bout(rng, world, rows, habits.game_size, habits.game_minutes * MINUTE, habits)
    weights = weights_by_country(world) * of_category(world, ("digital_goods",))
    merchant = draw_merchants(rng, weights, world.cards["country"].to_numpy()[card])
    return payments(card, merchant, instant, rng.uniform(*habits.game_amount, rows))


def _bout(
    rng: np.random.Generator, world: Population, rows: int, size: tuple[int, int], length: float, habits: Habits
) -> tuple[np.ndarray, np.ndarray]:
    sizes = rng.integers(size[0], size[1] + 1, rows)
    episode, place = episodes(rows, sizes)
    holder = draw_cards(rng, world, rows)
    begin = _instants(rng, world, holder, habits)
    return holder[episode], begin[episode] + elapsed(rng, place, length / size[1])


def _instants(rng: np.random.Generator, world: Population, card: np.ndarray, habits: Habits) -> np.ndarray:
    opened = world.cards["opened"].to_numpy()[card] / DAY
    first, second = np.floor(opened + rng.random((2, len(card))) * (world.days - opened))
    weekend = (second % 7 >= 5) & (rng.random(len(card)) < habits.weekend_pull)
    night = world.cards["owl"].to_numpy()[card] & (rng.random(len(card)) < habits.owl_night_share)
    day = np.where(weekend, second, first)
    instant = day * DAY + clock(rng, world.cards["peak"].to_numpy()[card], night)
    return np.maximum(instant, world.cards["opened"].to_numpy()[card])


def _travel(
    rng: np.random.Generator, world: Population, card: np.ndarray, instant: np.ndarray, habits: Habits
) -> tuple[np.ndarray, np.ndarray]:
    """Give each card its journeys; return the instants, some pulled into a journey, and the country then (-1: home)."""
    count = len(world.cards)
    trips = np.minimum(rng.poisson(habits.trips, count), MAX_TRIPS)
    begin = rng.uniform(0, max(world.days - habits.trip_days[1], 1.0), (MAX_TRIPS, count)) * DAY
    begin = np.maximum(begin, world.cards["opened"].to_numpy())
    length = rng.uniform(*habits.trip_days, (MAX_TRIPS, count)) * DAY
    country = rng.choice(len(COUNTRIES), size=(MAX_TRIPS, count), p=COUNTRIES["merchant_share"])
    destination = np.full(len(card), -1)
    for trip in range(MAX_TRIPS):
        travels = (trips > trip)[card]
        pulled = travels & (rng.random(len(card)) < habits.trip_pull)
        within = begin[trip][card] + rng.random(len(card)) * length[trip][card]
        # The day moves into the journey, the time of day stays.
        instant = np.where(pulled, within // DAY * DAY + instant % DAY, instant)
        away = travels & (instant >= begin[trip][card]) & (instant < (begin + length)[trip][card])
        destination = np.where(away, country[trip][card], destination)
    return np.maximum(instant, world.cards["opened"].to_numpy()[card]), destination
