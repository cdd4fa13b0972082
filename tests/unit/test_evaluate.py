"""Metrics against values worked out by hand, and card precision against a second, slower way of computing it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.evaluate import card_precision, metrics_of

NOON = pd.Timestamp("2024-03-04T12:00Z")


def payments(rows: list[tuple[str, int, int, float]]) -> tuple[pd.DataFrame, np.ndarray]:
    """Payments as (card, day, is_fraud, score)."""
    frame = pd.DataFrame(rows, columns=["card_id", "day", "is_fraud", "score"])
    frame["timestamp"] = NOON + pd.to_timedelta(frame.pop("day"), unit="D")
    return frame.drop(columns="score"), frame["score"].to_numpy(float)


def test_the_metrics_are_those_worked_out_by_hand():
    """Scores .9 F, .8, .7 F, .6, .1 with F a fraud.

    Of the 6 pairs of a fraud and a genuine payment 5 are in the right order: 5/6. The frauds are found at ranks 1 and
    3, where precision is 1 and 2/3: the average is 5/6. All frauds are found at rank 3: 2/3. One card of the two
    compromised ones is among the first 100: 2 found of 100.
    """
    rows, scores = payments([("a", 0, 1, 0.9), ("b", 0, 0, 0.8), ("c", 0, 1, 0.7), ("d", 0, 0, 0.6), ("e", 0, 0, 0.1)])
    found = metrics_of(rows, scores)
    assert found["auc_roc"] == pytest.approx(5 / 6)
    assert found["average_precision"] == pytest.approx(5 / 6)
    assert found["precision_at_90_recall"] == pytest.approx(2 / 3)
    assert found["recall_at_2_fpr"] == pytest.approx(1 / 2), "the second fraud comes behind a third of the genuine"
    assert found["card_precision_100"] == pytest.approx(2 / 100)


def test_precision_at_ninety_percent_recall_may_leave_one_fraud_of_ten():
    """Nine frauds score .9, six genuine payments .8 and .5, the tenth fraud .1: from .9 on 9 of 10 are found.

    With one of the nine at .2 it takes 9 of 15 payments to find nine, and 10 of 16, which is better, to find all.
    """
    rows = [(f"f{n}", 0, 1, 0.9) for n in range(9)] + [("g", 0, 0, 0.8), ("h", 0, 1, 0.1)]
    rows += [(f"g{n}", 0, 0, 0.5) for n in range(5)]
    assert metrics_of(*payments(rows))["precision_at_90_recall"] == 1.0
    missed_two = [row if row[0] != "f8" else ("f8", 0, 1, 0.2) for row in rows]
    assert metrics_of(*payments(missed_two))["precision_at_90_recall"] == pytest.approx(10 / 16)


def test_a_perfect_and_a_reversed_model_have_the_extreme_values():
    rows, scores = payments([("a", 0, 1, 0.9), ("b", 0, 0, 0.2), ("c", 0, 0, 0.1)])
    assert metrics_of(rows, scores)["auc_roc"] == 1.0
    assert metrics_of(rows, scores)["average_precision"] == 1.0
    assert metrics_of(rows, 1 - scores)["auc_roc"] == 0.0
    assert metrics_of(rows, 1 - scores)["average_precision"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("label", [0, 1])
def test_rows_of_one_class_are_refused(label: int):
    rows, scores = payments([("a", 0, label, 0.9), ("b", 0, label, 0.2)])
    with pytest.raises(ValueError, match=rf"All 2 rows have is_fraud = {label}; metrics need both classes"):
        metrics_of(rows, scores)


def test_a_card_is_as_suspect_as_its_worst_payment_of_the_day():
    rows, scores = payments([("a", 0, 1, 0.1), ("a", 0, 0, 0.9), ("b", 0, 0, 0.5)])
    assert card_precision(rows, scores, top=1) == 1.0


def test_a_card_that_was_caught_leaves_the_later_days():
    """Day 0 catches a. On day 1 a would come first again, but is gone, and b, compromised, takes its place."""
    rows, scores = payments([("a", 0, 1, 0.9), ("b", 0, 0, 0.5), ("a", 1, 0, 0.9), ("b", 1, 1, 0.5)])
    assert card_precision(rows, scores, top=1) == 1.0


def test_a_card_that_was_suspected_in_vain_stays():
    """Day 0 suspects a, which is sound that day; on day 1 it is compromised, suspected again, and found."""
    rows, scores = payments([("a", 0, 0, 0.9), ("b", 0, 1, 0.5), ("a", 1, 1, 0.9), ("b", 1, 0, 0.5)])
    assert card_precision(rows, scores, top=1) == 0.5


def test_days_are_those_of_utc_and_each_counts_alike():
    """One day with three payments and one with a single: the mean of 1/2 and 0/2, not of the payments."""
    rows, scores = payments([("a", 0, 1, 0.9), ("b", 0, 0, 0.8), ("c", 0, 1, 0.1), ("d", 1, 0, 0.9)])
    assert card_precision(rows, scores, top=2) == 0.25


def brute_force(rows: pd.DataFrame, scores: np.ndarray, top: int) -> float:
    """Card precision from the book's words alone: loops, no pandas."""
    taken: list[str] = []
    shares: list[float] = []
    listed = list(zip(rows["card_id"], rows["timestamp"], rows["is_fraud"], scores, strict=True))
    for day in sorted({at.date() for _, at, _, _ in listed}):
        suspicion: dict[str, float] = {}
        compromised: dict[str, bool] = {}
        for card, at, fraud, score in listed:
            if at.date() == day and card not in taken:
                suspicion[card] = max(score, suspicion.get(card, -1.0))
                compromised[card] = bool(fraud) or compromised.get(card, False)
        chosen = sorted(suspicion, key=lambda card: -suspicion[card])[:top]
        caught = [card for card in chosen if compromised[card]]
        shares.append(len(caught) / top)
        taken += caught
    return sum(shares) / len(shares)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcdefg"), st.integers(0, 4), st.integers(0, 1)), min_size=1, max_size=40),
    st.integers(1, 8),
    st.randoms(use_true_random=False),
)
def test_card_precision_equals_the_brute_force(drawn: list[tuple[str, int, int]], top: int, random) -> None:  # type: ignore[no-untyped-def]
    ranks = list(range(len(drawn)))  # all different: with equal scores the book leaves open who comes first
    random.shuffle(ranks)
    rows, scores = payments([(*row, rank / len(drawn)) for row, rank in zip(drawn, ranks, strict=True)])
    assert card_precision(rows, scores, top) == pytest.approx(brute_force(rows, scores, top), abs=1e-12)


def test_recall_is_that_of_the_last_threshold_at_which_two_in_a_hundred_genuine_payments_are_stopped():
    """100 genuine payments at .01 to 1.00, four frauds at .995, .985, .975, .5: three genuine ones lie above .975."""
    rows = [(f"g{n}", 0, 0, n / 100) for n in range(1, 101)]
    rows += [(f"f{n}", 0, 1, score) for n, score in enumerate((0.995, 0.985, 0.975, 0.5))]
    assert metrics_of(*payments(rows))["recall_at_2_fpr"] == 2 / 4


def test_probabilities_are_measured_by_brier_score_log_loss_and_calibration_error():
    rows, scores = payments([("a", 0, 1, 0.8), ("b", 0, 0, 0.4)])
    found = metrics_of(rows, scores)
    assert found["brier"] == pytest.approx((0.04 + 0.16) / 2)
    assert found["log_loss"] == pytest.approx(-(np.log(0.8) + np.log(0.6)) / 2)
    assert found["ece"] == pytest.approx((0.2 + 0.4) / 2), "each payment is a group of its own"


def test_calibration_error_is_nought_where_each_group_s_share_of_frauds_is_its_score():
    """Fifteen groups of 30: of those that score n / 30 n are frauds. Twice such scores are off by the score."""
    scores = np.repeat(np.arange(1, 16) / 30, 30)
    fraud = np.concatenate([[1] * n + [0] * (30 - n) for n in range(1, 16)])
    rows = pd.DataFrame({"card_id": "a", "timestamp": NOON, "is_fraud": fraud})
    assert metrics_of(rows, scores)["ece"] == pytest.approx(0.0, abs=1e-12)
    assert metrics_of(rows, scores * 2)["ece"] == pytest.approx(scores.mean())
