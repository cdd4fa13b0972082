"""Splits in time: where each period begins and ends, which cards leave the test days, and the published counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from feature_repo.settings import settings
from training.split import HANDBOOK, Protocol, default_protocol

START = datetime(2024, 3, 4, tzinfo=UTC)
PROTOCOL = Protocol(START, train_days=7, delay_days=7, test_days=7)
US = timedelta(microseconds=1)
DAY = timedelta(days=1)


def frame(*rows: tuple[str, datetime, int]) -> pd.DataFrame:
    """Payments as (card, instant, is_fraud)."""
    columns = pd.DataFrame(list(rows), columns=["card_id", "timestamp", "is_fraud"])
    return columns.astype({"timestamp": "datetime64[us, UTC]"})


def kept_for_test(*rows: tuple[str, datetime, int]) -> list[bool]:
    return PROTOCOL.test(frame(*rows)).tolist()


def test_the_periods_follow_one_another():
    protocol = Protocol(START, train_days=5, delay_days=3, test_days=2)
    assert protocol.train_end == datetime(2024, 3, 9, tzinfo=UTC)
    assert protocol.test_start == datetime(2024, 3, 12, tzinfo=UTC)
    assert protocol.test_end == datetime(2024, 3, 14, tzinfo=UTC)


def test_training_begins_with_its_first_instant_and_ends_before_its_last():
    end = PROTOCOL.train_end
    rows = frame(*(("a", at, 0) for at in (START - US, START, end - US, end)))
    assert PROTOCOL.train(rows).tolist() == [False, True, True, False]


def test_testing_begins_with_its_first_instant_and_ends_before_its_last():
    begin, end = PROTOCOL.test_start, PROTOCOL.test_end
    assert kept_for_test(*(("a", at, 0) for at in (begin - US, begin, end - US, end))) == [False, True, True, False]


def test_no_row_is_both_trained_and_tested_on_and_the_delay_is_neither():
    rows = frame(*(("a", START + n * timedelta(hours=7), 0) for n in range(100)))
    train, test = PROTOCOL.train(rows), PROTOCOL.test(rows)
    waiting = (rows["timestamp"] >= PROTOCOL.train_end) & (rows["timestamp"] < PROTOCOL.test_start)
    assert train.sum() == 24
    assert test.sum() == 24
    assert not (train & test).any()
    assert not ((train | test) & waiting).any()


@pytest.mark.parametrize("days", [(7, 7, 7), (20, 3, 5), (1, 0, 30)])
def test_the_earlier_fold_is_tested_on_the_training_days_and_trained_on_as_many_before(days: tuple[int, int, int]):
    protocol = Protocol(START, *days)
    fold = protocol.earlier()
    assert (fold.test_start, fold.test_end) == (protocol.train_start, protocol.train_end)
    assert (fold.train_days, fold.delay_days) == (protocol.train_days, protocol.delay_days)
    assert fold.train_end == protocol.train_start - fold.delay_days * DAY


def test_a_card_with_a_fraud_in_the_training_days_is_known_on_every_test_day():
    begin = PROTOCOL.test_start
    last_day = begin + 6 * DAY
    for at in (START, PROTOCOL.train_end - US):
        assert kept_for_test(("a", at, 1), ("a", begin, 0), ("a", last_day, 1), ("b", begin, 0))[1:] == [
            False,
            False,
            True,
        ]


def test_a_card_with_a_fraud_before_the_training_days_is_not_known():
    assert kept_for_test(("a", START - US, 1), ("a", PROTOCOL.test_start, 0)) == [False, True]


@pytest.mark.parametrize("waited", range(7))
def test_a_fraud_in_the_delay_is_known_from_the_day_after_its_label_is(waited: int):
    """Its label is known `delay` after it, in the course of a day: the card leaves with the next midnight."""
    fraud = PROTOCOL.train_end + waited * DAY + timedelta(hours=15)
    test_days = [PROTOCOL.test_start + n * DAY for n in range(7)]
    kept = kept_for_test(("a", fraud, 1), *(("a", day + timedelta(hours=1), 0) for day in test_days))[1:]
    assert kept == [n <= waited for n in range(7)]


def test_it_is_the_midnight_that_counts_and_not_the_hour():
    first, last = PROTOCOL.train_end, PROTOCOL.train_end + DAY - US
    asked = PROTOCOL.test_start + DAY
    for fraud in (first, last):
        kept = kept_for_test(("a", fraud, 1), ("a", asked - US, 0), ("a", asked, 0))
        assert kept[1:] == [True, False]


def test_a_fraud_on_a_test_day_removes_nothing_of_the_days_before_its_label():
    begin = PROTOCOL.test_start
    assert kept_for_test(("a", begin, 1), ("a", begin + DAY, 0), ("a", begin + 6 * DAY, 1)) == [True, True, True]


def test_the_first_fraud_counts_and_later_ones_do_not_bring_the_card_back():
    fraud, again = PROTOCOL.train_end, PROTOCOL.train_end + 5 * DAY
    asked = [PROTOCOL.test_start, PROTOCOL.test_start + DAY]
    rows = [("a", again, 1), ("a", fraud, 1), *(("a", at, 0) for at in asked)]
    assert kept_for_test(*rows)[2:] == [True, False]


def test_the_default_leaves_room_for_the_earlier_fold_and_ends_with_the_data():
    stamps = pd.Series(pd.date_range("2024-01-01T05:00Z", "2024-05-29T20:00Z", freq="5h"))
    protocol = default_protocol("mine", stamps)
    assert protocol.test_end == datetime(2024, 5, 30, tzinfo=UTC)
    assert protocol.test_days == 30, "a fifth of 150 days"
    assert protocol.delay_days == 7
    assert protocol.earlier().train_start >= datetime(2024, 1, 31, tzinfo=UTC), "30 days fill the windows"


def test_the_default_of_a_long_history_tests_thirty_days_and_trains_sixty():
    protocol = default_protocol("mine", pd.Series(pd.date_range("2019-01-01", "2020-12-31", freq="D", tz="UTC")))
    assert (protocol.train_days, protocol.test_days) == (60, 30)


@pytest.mark.parametrize("days", [1, 7, 20, 23, 25])
def test_a_history_that_is_too_short_is_refused_with_its_length(days: int):
    stamps = pd.Series(pd.date_range("2024-01-01", periods=days * 24, freq="h", tz="UTC"))
    with pytest.raises(ValueError, match=rf"Data set 'brief' spans {days} days; training with a 7-day label delay"):
        default_protocol("brief", stamps)


@pytest.mark.parametrize("days", [26, 27, 30, 31, 45, 60])
def test_a_short_history_that_is_accepted_is_not_left_by_any_fold(days: int):
    stamps = pd.Series(pd.date_range("2024-01-01", periods=days * 24, freq="h", tz="UTC"))
    protocol = default_protocol("brief", stamps)
    assert protocol.earlier().train_start >= stamps.min()
    assert protocol.test_end == datetime(2024, 1, 1, tzinfo=UTC) + days * DAY
    assert min(protocol.train_days, protocol.test_days) >= 1


def test_the_handbook_s_own_protocol_is_taken_where_its_days_are_there():
    whole = pd.Series(pd.date_range("2018-04-01", "2018-08-14T23:00", freq="h", tz="UTC"))
    assert default_protocol("handbook", whole) == HANDBOOK
    assert default_protocol("handbook", whole[whole < "2018-07-15"]) != HANDBOOK
    assert default_protocol("another", whole) != HANDBOOK


def published() -> tuple[pd.DataFrame, tuple[int, int], tuple[int, int]]:
    """The Handbook's payments, and the rows and frauds that it reports for its training and its test days."""
    from training.datasets.catalogue import load_dataset

    rows = load_dataset("handbook", settings().data).transactions
    return rows, (67_240, 598), (58_264, 385)


def in_small() -> tuple[pd.DataFrame, tuple[int, int], tuple[int, int]]:
    """Three cards that pay at noon of each day from 25 July to 14 August 2018, counted by hand.

    `early` has a fraud in training and so is not tested. `late` has one on 3 August, known at the end of the 10th, and
    is tested on the 8th to the 10th. `sound` has one on 9 August, unknown to the end, and is tested on all 7 days.
    """
    frauds = {("early", 26, 7), ("late", 3, 8), ("sound", 9, 8)}
    noons = [datetime(2018, 7, 25, 12, tzinfo=UTC) + n * DAY for n in range(21)]
    rows = [(card, at, int((card, at.day, at.month) in frauds)) for at in noons for card in ("early", "late", "sound")]
    return frame(*rows), (21, 1), (10, 1)


HISTORIES = [in_small]
if (settings().data / "handbook.parquet").is_file():
    HISTORIES.append(published)


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.__name__)
def test_the_handbook_s_protocol_gives_the_counts_that_are_known(history):
    rows, train, test = history()
    for picked, known in ((HANDBOOK.train(rows), train), (HANDBOOK.test(rows), test)):
        chosen = rows[picked]
        assert (len(chosen), int(chosen["is_fraud"].sum())) == known
