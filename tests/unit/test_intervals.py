"""Weighted metrics against scikit-learn on repeated rows, and intervals against what statistics says of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from training import weighted
from training.evaluate import card_precision
from training.intervals import bootstrap, bootstrap_each, paired, paired_each, resamples

START = pd.Timestamp("2024-03-04T12:00Z")


def payments(count: int, cards: int, seed: int, decimals: int = 8) -> tuple[pd.DataFrame, np.ndarray]:
    """Payments of a week, a fifth of them fraud, with scores that know something; few decimals make ties."""
    random = np.random.default_rng(seed)
    fraud = random.random(count) < 0.2
    rows = pd.DataFrame(
        {
            "card_id": [f"c{card}" for card in random.integers(cards, size=count)],
            "timestamp": START + pd.to_timedelta(np.sort(random.integers(7, size=count)), unit="D"),
            "is_fraud": fraud.astype("int8"),
        }
    )
    return rows, np.clip(random.normal(0.3 + 0.3 * fraud, 0.2), 0, 1).round(decimals)


def plainly(name: str, rows: pd.DataFrame, scores: np.ndarray) -> float:
    """A metric by scikit-learn, on rows as they are."""
    fraud = rows["is_fraud"]
    precision, recall, _ = precision_recall_curve(fraud, scores)
    wrong, found, _ = roc_curve(fraud, scores, drop_intermediate=False)
    return {
        "auc_roc": lambda: roc_auc_score(fraud, scores),
        "average_precision": lambda: average_precision_score(fraud, scores),
        "precision_at_90_recall": lambda: precision[recall >= 0.9].max(),
        "recall_at_2_fpr": lambda: found[wrong <= 0.02].max(),
        "brier": lambda: ((scores - fraud) ** 2).mean(),
        "card_precision_100": lambda: card_precision(rows, scores),
    }[name]()


@pytest.mark.parametrize("name", weighted.METRICS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), decimals=st.sampled_from([1, 2, 8]))
def test_a_weighted_metric_is_the_plain_one_on_rows_repeated_as_often_as_their_card_weighs(
    name: str, seed: int, decimals: int
):
    rows, scores = payments(400, 60, seed, decimals)
    found = weighted.Payments(rows, scores)
    weights = np.random.default_rng(seed).integers(0, 4, size=(3, found.cards)).astype(float)
    for values, one in zip(weighted.METRICS[name].over(found, weights), weights, strict=True):
        times = one[found.card].astype(int)
        copies = np.repeat(np.arange(len(rows)), times)
        again = rows.iloc[copies].reset_index(drop=True)
        if name == "card_precision_100":  # a copy of a card is a card of its own
            number = np.concatenate([np.arange(count) for count in times])
            again["card_id"] += [f"#{one}" for one in number]
            if len(np.unique(scores)) < len(scores):  # between equals the order of the cards decides
                continue
        assert values == pytest.approx(plainly(name, again, scores[copies]), abs=1e-9)


def test_the_value_is_the_metric_itself_and_lies_in_its_interval():
    rows, scores = payments(3_000, 300, 1)
    for name, interval in bootstrap_each(rows, scores, weighted.METRICS).items():
        assert interval.value == pytest.approx(plainly(name, rows, scores))
        assert interval.low < interval.value < interval.high


def test_any_function_of_rows_and_scores_has_the_interval_of_its_weighted_form():
    rows, scores = payments(600, 80, 2)
    plain = bootstrap(rows, scores, lambda some, given: float(roc_auc_score(some["is_fraud"], given)), repeats=60)
    quick = bootstrap(rows, scores, weighted.AUC_ROC, repeats=60)
    assert (plain.value, plain.low, plain.high) == pytest.approx((quick.value, quick.low, quick.high))
    cards = bootstrap(rows, scores, card_precision, repeats=30)
    assert cards == bootstrap(rows, scores, weighted.CARD_PRECISION_100, repeats=30)


def test_cards_that_repeat_themselves_make_the_interval_no_narrower():
    """Each payment ten times over is no new evidence: by rows the interval would shrink by the root of ten."""
    rows, scores = payments(300, 300, 3)
    once = bootstrap(rows, scores, weighted.BRIER)
    ten = bootstrap(pd.concat([rows] * 10, ignore_index=True), np.tile(scores, 10), weighted.BRIER)
    assert ten.high - ten.low == pytest.approx(once.high - once.low, rel=1e-9)


def test_an_interval_covers_the_truth_as_often_as_it_says():
    """Of 200 samples of a population whose Brier score is known, some 95 % have an interval that holds it."""
    random = np.random.default_rng(4)
    held = 0
    for _ in range(200):
        scores = random.random(400)
        rows = pd.DataFrame({"card_id": np.arange(400), "is_fraud": random.random(400) < scores})
        rows["timestamp"] = START
        held += (interval := bootstrap(rows, scores, weighted.BRIER, 200)).low <= 1 / 6 <= interval.high
    assert 0.89 <= held / 200 <= 0.99  # E[p(1 - p)] of a uniform p is 1/6; 0.89 and 0.99 are 4 and 2.6 deviations off


def test_a_model_against_itself_differs_by_nothing():
    rows, scores = payments(500, 50, 5)
    assert all((one.low, one.high) == (0, 0) for one in paired_each(rows, scores, scores, weighted.METRICS).values())


def test_what_is_hard_for_both_cancels_out():
    rows, scores = payments(2_000, 200, 6)
    better = scores + 0.02 * rows["is_fraud"].to_numpy()
    difference = paired(rows, scores, better, weighted.AUC_ROC)
    alone = bootstrap(rows, scores, weighted.AUC_ROC)
    assert difference.low > 0
    assert difference.high - difference.low < (alone.high - alone.low) / 2


def test_a_metric_that_reads_thresholds_is_asked_of_each_model_with_its_own():
    rows, scores = payments(500, 50, 9)
    above = [weighted.mean_of("above", lambda some, cut=cut: (some.scores >= cut).astype(float)) for cut in (0.3, 0.6)]
    difference = paired_each(rows, scores, scores, {"above": (above[0], above[1])})["above"]
    assert difference.value == pytest.approx((scores >= 0.6).mean() - (scores >= 0.3).mean())
    assert difference.low < difference.value < difference.high < 0


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    rows, scores = payments(500, 50, 7)
    assert bootstrap(rows, scores, weighted.AUC_ROC) == bootstrap(rows, scores, weighted.AUC_ROC)
    assert bootstrap(rows, scores, weighted.AUC_ROC, seed=8) != bootstrap(rows, scores, weighted.AUC_ROC)
    assert (resamples(50, 3, 7).sum(1) == 50).all()


def test_where_one_class_is_missing_nothing_is_known():
    rows, scores = payments(50, 10, 8)
    interval = bootstrap(rows.assign(is_fraud=0), scores, weighted.AUC_ROC)
    assert not interval.known
    assert not bootstrap(rows.assign(is_fraud=0), scores, lambda some, given: 1.0).known
    with pytest.raises(ValueError, match="There are no rows"):
        bootstrap(rows.iloc[:0], scores[:0], weighted.AUC_ROC)
