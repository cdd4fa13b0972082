"""Time-ordered splits under a label delay: nothing is trained on that was not known when the model would go live.

Source: Fraud Detection Handbook, chapters 3 and 5 (train, delay, test; known cards leave the test set).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pandas as pd


@dataclass(frozen=True)
class Protocol:
    """Train on `train_days` from `train_start` (UTC midnight), wait `delay_days`, test on `test_days`."""

    train_start: datetime
    train_days: int
    delay_days: int
    test_days: int

    @property
    def train_end(self) -> datetime:
        return self.train_start + timedelta(days=self.train_days)

    @property
    def test_start(self) -> datetime:
        """When the model goes live: every label of the training days is known by then."""
        return self.train_end + timedelta(days=self.delay_days)

    @property
    def test_end(self) -> datetime:
        return self.test_start + timedelta(days=self.test_days)

    def earlier(self) -> Protocol:
        """The fold whose test days are this one's training days: what a model is chosen and its threshold set on."""
        start = self.train_start - timedelta(days=self.train_days + self.delay_days)
        return Protocol(start, self.train_days, self.delay_days, self.train_days)

    def train(self, rows: pd.DataFrame) -> pd.Series:
        """Which rows are trained on; `rows` has `timestamp`."""
        return (rows["timestamp"] >= self.train_start) & (rows["timestamp"] < self.train_end)

    def test(self, rows: pd.DataFrame) -> pd.Series:
        """Which rows are tested on: those of the test days whose card is not known to be compromised.

        A card is known on a test day if it had a fraud from the start of training to the label delay before that day.
        `rows` has `timestamp`, `card_id` and `is_fraud`.
        """
        inside = (rows["timestamp"] >= self.test_start) & (rows["timestamp"] < self.test_end)
        frauds = rows[(rows["is_fraud"] == 1) & (rows["timestamp"] >= self.train_start)]
        first = frauds.groupby("card_id")["timestamp"].min()
        known_from = rows["card_id"].map(first).dt.floor("D") + timedelta(days=self.delay_days + 1)
        in_training = rows["card_id"].map(first) < self.train_end
        day = rows["timestamp"].dt.floor("D")
        return inside & ~(in_training | (known_from <= day))


HANDBOOK = Protocol(datetime(2018, 7, 25, tzinfo=UTC), train_days=7, delay_days=7, test_days=7)
"""Chapter 3 of the Fraud Detection Handbook."""


def default_protocol(dataset: str, timestamps: pd.Series) -> Protocol:
    """The published protocol where there is one; else the last fifth (at most 30 days) tests what came before."""
    if dataset == "handbook" and timestamps.max() >= pd.Timestamp(HANDBOOK.test_end - timedelta(days=1)):
        return HANDBOOK
    first, last = timestamps.min().floor("D"), timestamps.max().ceil("D")
    days = (last - first) // timedelta(days=1)
    delay = 7
    test = min(30, days // 5)
    # Two training periods must fit one after the other, each with its delay, behind 30 days that fill the windows.
    train = min(60, (days - test - 2 * delay - min(30, days // 5)) // 2)
    if train < 1 or test < 1:
        raise ValueError(f"Data set '{dataset}' spans {days} days; training with a {delay}-day label delay needs 26.")
    start = last - timedelta(days=test + delay + train)
    return Protocol(start.to_pydatetime(), train, delay, test)
