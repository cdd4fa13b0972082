"""A generated world that changes on a planted day: the same cards and merchants, other habits and frauds.

Invariant: both halves are generated from one seed, so that nothing but what is planted tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pandas as pd

from training.datasets.dataset import Dataset
from training.datasets.synthetic import adapt
from training.generate import START, generate
from training.scenarios import SCENARIOS, Scenarios
from training.spending import Habits

TRAIN_DAYS, DELAY_DAYS, TEST_DAYS = 14, 7, 7
BEFORE = 2 * (TRAIN_DAYS + DELAY_DAYS) + TEST_DAYS + 2 * 7
"""Days of history before the first live day: the first champion's protocol and its earlier fold, the week whose labels
are not known yet, and one to fill windows."""

FRAUD_SHARE = 0.04
"""Many, so that a week of few payments has frauds on cards enough for the gates; validation allows 5 %."""

AMOUNTS = 2.0
HABITS = Habits(favourite_share=0.35, spree_share=0.12, game_share=0.06, large_share=0.03, owl_night_share=0.7)


@dataclass(frozen=True)
class World:
    """The payments with their labels, when they go live, when the world changes (null: never), and when they end."""

    dataset: Dataset
    live: datetime
    changes: datetime | None
    end: datetime


def world(weeks: int, per_day: int, changes_after: int | None, seed: int = 7) -> World:
    """`weeks` live weeks of `per_day` payments, changed after so many of them; raises `ValueError` for too few."""
    days = BEFORE + 7 * weeks
    live = START.to_pydatetime() + timedelta(days=BEFORE)
    before = generate(days * per_day, seed, days, fraud_share=FRAUD_SHARE)
    changes = None if changes_after is None else live + timedelta(days=7 * changes_after)
    if changes is not None:
        after = generate(days * per_day, seed, days, fraud_share=FRAUD_SHARE, scenarios=other_frauds(), habits=HABITS)
        after["amount"] = (after["amount"] * AMOUNTS).round(2)
        after["transaction_id"] = "n" + after["transaction_id"].astype(str)
        before = pd.concat(
            [before[before["timestamp"] < changes], after[after["timestamp"] >= changes]], ignore_index=True
        )
    return World(adapt(before), live, changes, live + timedelta(days=7 * weeks))


def other_frauds() -> Scenarios:
    """Numbers used abroad and crooked tills take the place of tests, nights and bursts."""
    return replace(
        SCENARIOS,
        card_testing=replace(SCENARIOS.card_testing, share=0.06),
        off_hours=replace(SCENARIOS.off_hours, share=0.05),
        velocity_burst=replace(SCENARIOS.velocity_burst, share=0.05),
        foreign=replace(SCENARIOS.foreign, share=0.30, amount_factor=1.2),
        compromised_merchant=replace(SCENARIOS.compromised_merchant, share=0.54, amount_factor=1.0),
    )
