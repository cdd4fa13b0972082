"""The window that versions are judged on, from a real offline store: what is in it, and what is not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from feature_repo.schema import LABEL_DELAY
from feature_repo.settings import Settings
from feature_repo.store import apply
from training import backfill, batch
from training.datasets import synthetic
from training.verdicts import MissingEvidence
from training.window import LOOKED_BACK, later_window, midnight_after

DAY = timedelta(days=1)


@dataclass(frozen=True)
class History:
    """Payments of some weeks in an offline store, a few of the last day without a label."""

    store: Any
    settings: Settings
    payments: pd.DataFrame
    begin: datetime
    end: datetime


UNLABELLED = 5


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    current = Settings(home=tmp_path_factory.mktemp("window"))
    data = synthetic.load(4_000, seed=5, days=50)
    payments = data.transactions.sort_values("timestamp", ignore_index=True)
    store = apply(current)
    stamps = payments["timestamp"]
    begin, end = stamps.min().floor("D"), stamps.max().ceil("D")
    backfill.load(payments, current, "history")
    batch.publish(current, batch.midnights(begin.to_pydatetime(), end.to_pydatetime()), data.profiles, "history")
    labels = current.offline_folder / "labels"
    for path in labels.glob("*.parquet"):
        rows = pd.read_parquet(path)
        rows[~rows["transaction_id"].isin(payments["transaction_id"].tail(UNLABELLED))].to_parquet(path)
    return History(store, current, payments, begin, end)


def test_it_begins_when_a_model_can_go_live_and_ends_with_the_labels_that_are_known(history: History):
    seen, as_of = history.begin + 20 * DAY, history.end + 30 * DAY
    found = later_window(history.store, history.settings, seen, as_of, days=90)
    assert (found.begin, found.end, found.unlabelled) == (seen + LABEL_DELAY, history.end, UNLABELLED)
    assert found.data.rows["timestamp"].min() >= found.begin
    latest = later_window(history.store, history.settings, seen, as_of, days=5)
    assert (latest.begin, latest.end) == (history.end - 5 * DAY, history.end)
    earlier = later_window(history.store, history.settings, seen, history.end - DAY, days=90)
    assert earlier.end == midnight_after(history.end - DAY - LABEL_DELAY)
    assert (earlier.unlabelled, earlier.data.rows["timestamp"].max() < earlier.end) == (0, True)
    assert earlier.card().payments == len(earlier.data.rows)


def test_payments_of_cards_known_to_be_compromised_on_their_day_are_left_out(history: History):
    """Against the rule said plainly: a fraud since four weeks before the window, a label delay before the day."""
    seen = history.begin + 20 * DAY
    found = later_window(history.store, history.settings, seen, history.end + 30 * DAY, days=90)
    payments = history.payments[:-UNLABELLED]
    frauds = payments[(payments["is_fraud"] == 1) & (payments["timestamp"] >= found.begin - LOOKED_BACK * DAY)]

    def known(card: str, stamp: pd.Timestamp) -> bool:
        stamps = frauds["timestamp"][frauds["card_id"] == card]
        return bool((stamps.dt.floor("D") + LABEL_DELAY + DAY <= stamp.floor("D")).any())

    inside = payments[(payments["timestamp"] >= found.begin) & (payments["timestamp"] < found.end)]
    compromised = inside["card_id"].isin(frauds["card_id"])
    out = {
        row.transaction_id
        for row in inside[compromised].itertuples()
        if known(row.card_id, row.timestamp)
        or (frauds["timestamp"][frauds["card_id"] == row.card_id] < found.begin - LABEL_DELAY).any()
    }
    assert out
    assert set(inside["transaction_id"]) - set(found.data.rows["transaction_id"]) == out


def test_where_nothing_later_is_known_the_evidence_is_missing(history: History):
    with pytest.raises(MissingEvidence, match="no payment with a known label from"):
        later_window(history.store, history.settings, history.end, history.end + 30 * DAY)
    with pytest.raises(MissingEvidence, match="no payment with a known label from"):
        later_window(history.store, history.settings, history.begin + 20 * DAY, history.begin + 30 * DAY)
