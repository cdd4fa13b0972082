"""Costs worked out by hand, and thresholds against a second, slower way of finding them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.settings import Settings
from training.costs import NEVER, CostMatrix, Terms, by_threshold, choose, cost_saved, medium_from, saved

MATRIX = CostMatrix(
    chargeback_fee=20,
    recovered=0.25,
    review_cost=3,
    review_caught=0.9,
    review_insult=1,
    insult_cost=10,
    insult_share=0.1,
)
NOON = pd.Timestamp("2024-03-04T12:00Z")
MANY = 1e6


def payments(*rows: tuple[float, int, float], days: int = 1) -> tuple[pd.DataFrame, np.ndarray]:
    """Payments as (amount, is_fraud, score), spread evenly over so many days."""
    frame = pd.DataFrame(list(rows), columns=["amount", "is_fraud", "score"])
    frame["timestamp"] = NOON + pd.to_timedelta(np.arange(len(frame)) % days, unit="D")
    return frame.drop(columns="score"), frame["score"].to_numpy(float)


def test_what_each_decision_costs_is_as_worked_out_by_hand():
    """A fraud of 100 passed: 75 and 20. Reviewed: 3 and a tenth of 95. An honest 100 declined: 10 and a tenth of it."""
    rows, _ = payments((100, 1, 0), (100, 0, 0))
    assert MATRIX.approved(rows).tolist() == [95, 0]
    assert MATRIX.reviewed(rows) == pytest.approx([12.5, 4])
    assert MATRIX.declined(rows).tolist() == [0, 20]


def test_what_is_saved_follows_the_decision_and_a_threshold_belongs_to_the_stricter_one():
    rows, scores = payments((100, 1, 0.9), (100, 0, 0.9), (100, 1, 0.5), (100, 0, 0.5), (100, 1, 0.4), (100, 0, 0.4))
    assert saved(rows, scores, (0.5, 0.9), MATRIX) == pytest.approx([95, -20, 82.5, -4, 0, 0])
    assert cost_saved(rows, scores, (0.5, 0.9), MATRIX) == pytest.approx(153.5)
    assert cost_saved(rows, scores, (NEVER, NEVER), MATRIX) == 0


def test_frauds_are_declined_where_they_are_many_and_reviewed_where_they_are_few():
    """From .9 on all are frauds, at .5 one of three: reviewing each saves, declining each costs 100 and saves 95."""
    rows, scores = payments((100, 1, 0.9), (100, 1, 0.9), (400, 0, 0.5), (100, 1, 0.5), (400, 0, 0.5), (100, 0, 0.1))
    review, decline = choose(rows, scores, MATRIX, MANY)
    assert (review, decline) == (pytest.approx(0.3), pytest.approx(0.7))


TOO_DEAR_TO_DECLINE = replace(MATRIX, insult_share=1.0)


def alternately(days: int = 1) -> tuple[pd.DataFrame, np.ndarray]:
    """Forty payments, a fraud of 1,000 after an honest one of 2,000: reviewing all saves, declining any does not."""
    return payments(*((1_000.0 if n % 2 else 2_000.0, n % 2, 1 - n / 40) for n in range(40)), days=days)


def test_people_look_at_no_more_than_they_can_in_the_mean_of_the_days():
    """2 a day over 3 days are 6; with people enough they look at all 40."""
    rows, scores = alternately(days=3)
    for capacity, looked_at in ((2, 6), (MANY, 40)):
        review, decline = choose(rows, scores, TOO_DEAR_TO_DECLINE, capacity)
        assert decline == NEVER
        assert (scores >= review).sum() == looked_at


def test_without_people_what_is_bad_enough_is_declined_and_nothing_reviewed():
    rows, scores = payments((100, 1, 0.9), (100, 0, 0.6), (100, 1, 0.5), (100, 0, 0.1))
    review, decline = choose(rows, scores, MATRIX, 0)
    assert review == decline == pytest.approx(0.3)


def test_where_nothing_saves_nothing_is_stopped():
    rows, scores = payments((5, 0, 0.9), (5, 0, 0.8), (1, 1, 0.1))
    dear = CostMatrix(0, 0, 3, 0.9, 1, 10, 0.1)
    assert choose(rows, scores, dear, MANY) == (NEVER, NEVER)
    assert cost_saved(rows, scores, (NEVER, NEVER), dear) == 0


def test_equal_scores_are_decided_alike():
    rows, scores = payments((1_000, 1, 0.5), (1_000, 0, 0.5), (1_000, 0, 0.5), (10, 0, 0.1))
    assert choose(rows, scores, MATRIX, 2) != (0.5, NEVER), "three share the score, and two can be looked at"
    assert choose(rows, scores, MATRIX, 3)[0] == pytest.approx(0.3)


def test_risk_is_medium_where_a_review_would_pay_even_if_nobody_has_the_time():
    rows, scores = alternately()
    review, _ = choose(rows, scores, TOO_DEAR_TO_DECLINE, 4)
    medium = medium_from(rows, scores, TOO_DEAR_TO_DECLINE, review)
    assert (scores >= review).sum() == 4
    assert (scores >= medium).sum() == 40


def slowly(rows: pd.DataFrame, scores: np.ndarray, capacity: float) -> float:
    """The most that any two thresholds save: every pair is tried."""
    places = sorted({0.0, *scores, 2.0})
    days = (rows["timestamp"].max().normalize() - rows["timestamp"].min().normalize()).days + 1
    tried = []
    for review in places:
        for decline in (place for place in places if place >= review):
            if ((scores >= review) & (scores < decline)).sum() <= capacity * days:
                tried.append(cost_saved(rows, scores, (review, decline), MATRIX))
    return max(tried)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 1), st.integers(0, 9)), min_size=1, max_size=25),
    st.sampled_from([0, 0.5, 1, 3, MANY]),
    st.integers(1, 4),
)
def test_no_other_thresholds_save_more(drawn: list[tuple[int, int, int]], capacity: float, days: int):
    rows, scores = payments(*((float(amount), fraud, score / 10) for amount, fraud, score in drawn), days=days)
    cuts = choose(rows, scores, MATRIX, capacity)
    assert cuts[0] <= cuts[1]
    assert ((scores >= cuts[0]) & (scores < cuts[1])).sum() <= capacity * days
    assert cost_saved(rows, scores, cuts, MATRIX) == pytest.approx(slowly(rows, scores, capacity), abs=1e-5)


def test_the_table_says_what_each_threshold_catches_and_costs():
    listed = [(100.0, int(n < 10), 1 - n / 1_000) for n in range(1_000)]
    rows, scores = payments(*listed, days=10)
    table = by_threshold(rows, scores, (0.985, NEVER), MATRIX, 2)
    one = table.loc["1.00% of payments"]
    assert (one["stopped_per_day"], one["frauds_caught"], one["precision"]) == (1, 1, 1)
    assert one["saved_if_declined"] == pytest.approx(10 * 95)
    assert one["saved_if_reviewed"] == pytest.approx(10 * 82.5)
    five = table.loc["5.00% of payments"]
    assert (five["frauds_caught"], five["precision"]) == (1, pytest.approx(0.2))
    assert five["false_positive_rate"] == pytest.approx(40 / 990)
    assert (one["within_capacity"], five["within_capacity"]) == (True, False)
    assert table.loc["review_from", "threshold"] == 0.985
    assert all(high >= low for high, low in pairwise(table["threshold"]))


def test_costs_and_capacity_are_settings():
    rows, _ = payments(*[(10.0, 0, 0.1)] * 1_000, days=10)
    assert Terms.of(Settings()).capacity(rows) == pytest.approx(1.0), "one in a hundred"
    assert Terms.of(Settings(review_capacity=7)).capacity(rows) == 7
    assert CostMatrix.of(Settings(insult_cost=99, recovered=0.5)) == CostMatrix(20, 0.5, 3, 0.9, 0.5, 99, 0.03)
