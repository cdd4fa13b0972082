"""The payments that a version is judged on: later than all it has seen, with labels that are known by now.

As in every evaluation here, payments of cards known to be compromised by their day are left out (`split.Protocol`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from feature_repo import sources
from feature_repo.schema import LABEL_DELAY
from feature_repo.settings import Settings
from monitoring.labels import known_labels
from training.dataset import TrainingSet, training_set
from training.split import Protocol
from training.verdicts import MissingEvidence, WindowCard

DAYS = 30
"""Days of a window, at most: the latest ones whose labels are known."""

LOOKED_BACK = 28
"""Days before a window in which a fraud makes its card a known one."""

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Window:
    """The payments of [begin, end) with their labels and vectors; `unlabelled` more have no label, as of `as_of`."""

    begin: datetime
    end: datetime
    data: TrainingSet
    unlabelled: int
    as_of: datetime

    def card(self) -> WindowCard:
        """What a verdict keeps of it."""
        rows = self.data.rows
        frauds, cards = int(rows["is_fraud"].sum()), int(rows["card_id"].nunique())
        return WindowCard(begin=self.begin, end=self.end, payments=len(rows), frauds=frauds, cards=cards)


def of_data(data: TrainingSet, begin: datetime, end: datetime, as_of: datetime) -> Window:
    """The window whose payments these are, every one of them with its label."""
    return Window(begin, end, data, 0, as_of)


def of_test_days(test: TrainingSet, protocol: Protocol, as_of: datetime) -> Window:
    """The window of a protocol's test days, of which `test` are the payments."""
    return of_data(test, protocol.test_start, protocol.test_end, as_of)


def later_window(
    store: Any,
    current: Settings,
    seen_until: datetime,
    as_of: datetime,
    days: int = DAYS,
    end: datetime | None = None,
    before: Callable[[datetime, datetime], object] = lambda begin, end: None,
) -> Window:
    """The last `days` before `end` (default: where the labels known by `as_of` end) of what the models have not seen.

    It begins a label delay after `seen_until` at the earliest, when a model trained until then can go live. `before` is
    told its days before the vectors are made. Raises `MissingEvidence` where no such payment is in history.
    """
    payments = sources.read(
        store.get_data_source("transactions"), current.offline_path, ["transaction_id", "card_id", "timestamp"]
    ).to_pandas()
    live = midnight_after(seen_until + LABEL_DELAY)
    known = payments["timestamp"][payments["timestamp"] <= as_of - LABEL_DELAY]
    if known.empty or known.max() < live:
        raise MissingEvidence(
            f"history has no payment with a known label from {live:%F} on: {LABEL_DELAY.days} days after the models' "
            f"own data, which end {seen_until:%F}"
        )
    end = end or midnight_after(known.max().to_pydatetime())
    begin = max(live, end - days * DAY)
    before(begin, end)
    data = training_set(store, current, begin, end)
    asked = (payments["timestamp"] >= begin) & (payments["timestamp"] < end)
    unlabelled = int(payments["transaction_id"][asked].nunique()) - len(data.rows)
    earlier = payments[(payments["timestamp"] < begin) & (payments["timestamp"] >= begin - LOOKED_BACK * DAY)]
    rows = earlier.drop_duplicates("transaction_id").merge(known_labels(store, current, as_of), on="transaction_id")
    return Window(begin, end, _unknown_cards(data, rows, begin, end), unlabelled, as_of)


def _unknown_cards(data: TrainingSet, earlier: pd.DataFrame, begin: datetime, end: datetime) -> TrainingSet:
    """Without the payments of cards that were known to be compromised on their day."""
    delay, days = LABEL_DELAY // DAY, -((begin - end) // DAY)
    protocol = Protocol(begin - LOOKED_BACK * DAY, LOOKED_BACK - delay, delay, days)
    columns = ["card_id", "timestamp", "is_fraud"]
    every = pd.concat([earlier[columns], data.rows[columns]], ignore_index=True)
    return data.where(protocol.test(every).iloc[len(earlier) :])


def midnight_after(instant: datetime) -> datetime:
    """The first midnight (UTC) that is not before the instant."""
    return pd.Timestamp(instant).ceil("D").to_pydatetime()
