"""How the frauds of `training.scenarios` happen to the cards and merchants of a population.

Payments are frames as `draws.payments` makes them, in no particular order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from training.draws import (
    clock,
    draw_merchants,
    elapsed,
    episodes,
    lognormal,
    of_category,
    payments,
)
from training.population import COUNTRIES, DAY, HOUR, Population
from training.scenarios import NIGHT_HOURS, Scenarios

DAY_PEAK = 14.5
MIN_HISTORY = 3
"""Honest payments that a card must have made to have a usual amount."""


@dataclass(frozen=True)
class Scene:
    """What an attack draws on. `usual_amount` and `usual_rate` (payments a day) are by card, NaN without a history;
    `haunts` weighs the merchants (column) that fraudsters favour in each spell (row) of a part of `favoured_days`."""

    rng: np.random.Generator
    world: Population
    honest: pd.DataFrame
    usual_amount: np.ndarray
    usual_rate: np.ndarray
    haunts: np.ndarray
    table: Scenarios


def attack(
    rng: np.random.Generator, world: Population, honest: pd.DataFrame, rows: int, table: Scenarios
) -> pd.DataFrame:
    """Return `rows` fraudulent payments, shared out over the scenarios of the table."""
    scene = _scene(rng, world, honest, table)
    attacks: dict[str, tuple[float, Callable[[Scene, int], pd.DataFrame]]] = {
        "card_testing": (table.card_testing.share, _card_testing),
        "off_hours": (table.off_hours.share, _off_hours),
        "foreign": (table.foreign.share, _foreign),
        "velocity_burst": (table.velocity_burst.share, _velocity_burst),
        "compromised_merchant": (table.compromised_merchant.share, _compromised_merchant),
    }
    shares = np.cumsum([share for share, _ in attacks.values()])
    ends = np.round(shares / shares[-1] * rows).astype(int)
    counts = np.diff(ends, prepend=0)
    drawn = zip(attacks.items(), counts, strict=True)
    return pd.concat(
        [make(scene, int(count)).assign(scenario=name) for (name, (_, make)), count in drawn], ignore_index=True
    )


def _scene(rng: np.random.Generator, world: Population, honest: pd.DataFrame, table: Scenarios) -> Scene:
    by_card = honest.groupby("card")["amount"].agg(["mean", "size"]).reindex(range(len(world.cards)))
    known = (by_card["size"] >= MIN_HISTORY).to_numpy()
    open_days = world.days - world.cards["opened"].to_numpy() / DAY
    amount = np.where(known, by_card["mean"], np.nan)
    rate = np.where(known, by_card["size"], np.nan) / open_days
    online = np.where(world.merchants["channel"] == "online", 1.0, 1e-9)
    return Scene(rng, world, honest, amount, rate, _haunts(rng, world, table, online, table.favoured_merchants), table)


def _haunts(
    rng: np.random.Generator, world: Population, table: Scenarios, appeal: np.ndarray, favoured: float
) -> np.ndarray:
    """Weigh the merchants by spell: a few favoured ones take most of the payments, `appeal` divides the rest.

    From spell to spell a part of them is left for others, and each is so for as many spells.
    """
    spells = int(np.ceil(world.days / table.favoured_days * table.turnover)) + 1
    size = max(2, round(favoured * len(appeal)))
    share = appeal / appeal.sum()
    weights = np.tile((1.0 - table.favoured_share) * share, (spells, 1))
    now = rng.choice(len(appeal), size=size, replace=False, p=share)
    for number, spell in enumerate(weights):
        left = np.arange(size) % table.turnover == number % table.turnover
        now[left] = rng.choice(len(appeal), size=int(left.sum()), replace=False, p=share)
        np.add.at(spell, now, table.favoured_share / size)
    return weights


def _spell(scene: Scene, instant: np.ndarray) -> np.ndarray:
    length = scene.table.favoured_days / scene.table.turnover * DAY
    return (instant // length).astype("int64").clip(max=len(scene.haunts) - 1)


def _cash_out(scene: Scene, instant: np.ndarray) -> np.ndarray:
    return draw_merchants(scene.rng, scene.haunts, _spell(scene, instant))


def _victims(scene: Scene, count: int, highest_rate: float = np.inf) -> np.ndarray:
    fit = np.flatnonzero(scene.usual_rate <= highest_rate)
    return scene.rng.choice(fit, size=count)


def _begin(scene: Scene, card: np.ndarray) -> np.ndarray:
    """A day in the life of the card, and a time of day like anybody's."""
    opened = np.ceil(scene.world.cards["opened"].to_numpy()[card] / DAY)
    day = np.floor(opened + scene.rng.random(len(card)) * (scene.world.days - opened))
    peak = np.full(len(card), DAY_PEAK)
    return day * DAY + clock(scene.rng, peak, np.zeros(len(card), dtype=bool))


def _amount(scene: Scene, card: np.ndarray, factor: float) -> np.ndarray:
    return scene.usual_amount[card] * lognormal(scene.rng, factor, 0.35, len(card))


def _card_testing(scene: Scene, rows: int) -> pd.DataFrame:
    plan, rng = scene.table.card_testing, scene.rng
    tests = rng.integers(plan.tests[0], plan.tests[1] + 1, rows)
    large = rng.integers(plan.large[0], plan.large[1] + 1, rows)
    episode, place = episodes(rows, tests + large)
    victim = _victims(scene, rows)
    card = victim[episode]
    is_test = place < tests[episode]
    gap = np.where(is_test, plan.test_gap, plan.large_gap)
    instant = _begin(scene, victim)[episode] + elapsed(rng, place, gap)
    small = rng.uniform(*plan.test_amount, len(card))
    amount = np.where(is_test, small, _amount(scene, card, plan.large_factor))
    return payments(card, _cash_out(scene, instant), instant, amount)


def _off_hours(scene: Scene, rows: int) -> pd.DataFrame:
    plan, rng = scene.table.off_hours, scene.rng
    episode, place = episodes(rows, rng.integers(plan.size[0], plan.size[1] + 1, rows))
    victim = _victims(scene, rows)
    begin = _begin(scene, victim)
    by_night = begin // DAY * DAY + rng.uniform(0.0, NIGHT_HOURS - 2, rows) * HOUR
    # The share is one of rows, not of episodes: the night ends with the episode that holds the last nightly row.
    nightly = np.arange(rows) < (episode[int(rows * plan.night_share)] if rows else 0)
    begin = np.where(nightly, by_night, np.maximum(begin, begin // DAY * DAY + (NIGHT_HOURS + 1) * HOUR))
    instant = begin[episode] + elapsed(rng, place, plan.gap)
    card = victim[episode]
    return payments(card, _cash_out(scene, instant), instant, _amount(scene, card, plan.amount_factor))


def _foreign(scene: Scene, rows: int) -> pd.DataFrame:
    plan, rng, world = scene.table.foreign, scene.rng, scene.world
    episode, place = episodes(rows, rng.integers(plan.size[0], plan.size[1] + 1, rows))
    victim = _victims(scene, rows)
    card = victim[episode]
    instant = _begin(scene, victim)[episode] + elapsed(rng, place, plan.gap)
    abroad = rng.permutation(rows) < round(rows * plan.abroad_share)
    home = world.cards["country"].to_numpy()[card]
    here = world.merchants["country"].to_numpy() == np.arange(len(COUNTRIES))[:, None]
    appeal = of_category(world, plan.categories) * world.merchants["popularity"].to_numpy()
    ring = _haunts(rng, world, scene.table, appeal, plan.favoured_merchants)
    place_of = _spell(scene, instant) * len(COUNTRIES) + home
    reach = [np.where(side, ring[:, None, :], 1e-12).reshape(-1, ring.shape[1]) for side in (~here, here)]
    merchant = np.where(abroad, *(draw_merchants(rng, weights, place_of) for weights in reach))
    return payments(card, merchant, instant, _amount(scene, card, plan.amount_factor))


def _velocity_burst(scene: Scene, rows: int) -> pd.DataFrame:
    plan, rng = scene.table.velocity_burst, scene.rng
    victim = _victims(scene, rows, float(np.nanmedian(scene.usual_rate)))
    sizes = np.maximum(plan.least, np.ceil(plan.rate_factor * scene.usual_rate[victim])).astype(int)
    episode, place = episodes(rows, sizes)
    card = victim[episode]
    instant = _begin(scene, victim)[episode] + elapsed(rng, place, plan.gap)
    return payments(card, _cash_out(scene, instant), instant, _amount(scene, card, plan.amount_factor))


def _compromised_merchant(scene: Scene, rows: int) -> pd.DataFrame:
    plan, rng, world = scene.table.compromised_merchant, scene.rng, scene.world
    count = max(1, round(rows / plan.rows))
    visits = scene.honest[scene.honest["merchant"].isin(np.flatnonzero(world.merchants["channel"] == "pos"))]
    # A card opened while the history runs may have left its number after its merchant's spell.
    fit = ~np.isnan(scene.usual_amount) & (world.cards["opened"].to_numpy() == 0)
    visits = visits[fit[visits["card"]]].sort_values("merchant", kind="stable")
    merchants, first, visitors = np.unique(visits["merchant"], return_index=True, return_counts=True)
    crooked = rng.choice(len(merchants), size=count, replace=count > len(merchants))
    length = rng.uniform(*plan.days, count).clip(max=world.days / 2)
    begin = rng.uniform(0, world.days - length)
    which = np.arange(rows) % count
    spot = crooked[which]
    visit = first[spot] + np.floor(rng.random(rows) * visitors[spot]).astype(int)
    card = visits["card"].to_numpy()[visit]
    day = np.floor(begin[which] + rng.random(rows) * length[which])
    instant = day * DAY + clock(rng, np.full(rows, DAY_PEAK), np.zeros(rows, dtype=bool))
    return payments(card, merchants[spot], instant, _amount(scene, card, plan.amount_factor))
