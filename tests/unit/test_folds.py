"""Prequential folds: in time's order, with the delay between, nothing of the model's own test days in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from training.dataset import TrainingSet
from training.folds import NoFolds, prequential, split
from training.split import Protocol

START, DAY = datetime(2024, 3, 1, tzinfo=UTC), timedelta(days=1)
PROTOCOL = Protocol(START, train_days=7, delay_days=5, test_days=3)


def test_the_last_fold_tests_the_training_days_and_each_before_is_earlier_by_as_much():
    folds = prequential(PROTOCOL, 3)
    assert [fold.test_start for fold in folds] == [START - 14 * DAY, START - 7 * DAY, START]
    assert folds[-1].test_end == PROTOCOL.train_end
    for fold in folds:
        assert fold.test_start - fold.train_end == 5 * DAY
        assert (fold.train_days, fold.test_days) == (7, 7)
        assert fold.test_end <= PROTOCOL.test_start - PROTOCOL.delay_days * DAY, "all labels are known by then"


def test_folds_are_the_earlier_fold_and_those_before_it():
    assert prequential(PROTOCOL, 1) == [PROTOCOL.earlier()]


def test_folds_are_shorter_where_the_history_is():
    first = prequential(PROTOCOL, 3)[0].train_start
    assert prequential(PROTOCOL, 3, first) == prequential(PROTOCOL, 3)
    shorter = prequential(PROTOCOL, 3, first + DAY)
    assert {(fold.train_days, fold.test_days, fold.delay_days) for fold in shorter} == {(6, 6, 5)}
    assert shorter[-1].test_end == PROTOCOL.train_end
    assert shorter[0].train_start >= first + DAY


def test_a_history_without_room_is_refused():
    since = PROTOCOL.train_end - 9 * DAY
    assert prequential(PROTOCOL, 3, since)[0].train_start == since
    with pytest.raises(NoFolds, match="Between 2024-02-29 and the last training day, 2024-03-07, there is no room for"):
        prequential(PROTOCOL, 3, since + DAY)
    with pytest.raises(NoFolds, match="0 folds were asked for"):
        prequential(PROTOCOL, 0)


def hourly(cards: int = 5) -> TrainingSet:
    """A payment an hour; card `a` has a fraud on each first of its days, and on no other card's hours."""
    at = pd.date_range(START - 40 * DAY, START + 7 * DAY, freq="h", inclusive="left")
    card = np.arange(len(at)) % cards
    fraud = (card == (np.arange(len(at)) // 24) % cards) & (np.arange(len(at)) % 24 < cards)
    rows = pd.DataFrame({"timestamp": at, "card_id": card.astype(str), "is_fraud": fraud.astype("int8")})
    return TrainingSet(rows, np.zeros((len(rows), 1), np.float32), ("amount",))


def test_a_card_known_to_be_compromised_is_trained_on_and_not_tested():
    data = hourly(40)
    for fold in split(data, prequential(PROTOCOL, 2)):
        known = set(fold.train.rows.loc[fold.train.rows["is_fraud"] == 1, "card_id"])
        assert known
        assert not known & set(fold.test.rows["card_id"])
        assert fold.train.rows["timestamp"].max() < fold.protocol.train_end
        assert fold.test.rows["timestamp"].min() >= fold.protocol.test_start


def test_a_fold_without_frauds_is_refused():
    data = hourly(40)
    data.rows["is_fraud"] = data.rows["is_fraud"].where(data.rows["timestamp"] >= START, 0)
    with pytest.raises(NoFolds, match=r"training days of the fold from 2024-02-\d\d hold \d+ payments and 0 frauds"):
        split(data, prequential(PROTOCOL, 2))
