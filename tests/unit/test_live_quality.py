"""Figures of decisions by the labels that have come: by hand, by maturity, and past the model's own declines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from feature_repo.settings import Settings
from monitoring.control_group import ControlGroup
from monitoring.cost_matrix import CostMatrix
from monitoring.live_quality import calibration_error, figures, periods

MATRIX = CostMatrix(20.0, 0.0, 3.0, 0.9, 0.5, 10.0, 0.03)
DECLINE, REVIEW = 0.3, 0.2


def decisions(rows: int = 20_000, seed: int = 1, amounts: float = 50.0) -> pd.DataFrame:
    """A world in which the score is the true probability of fraud; nobody is let pass."""
    random = np.random.default_rng(seed)
    score = random.beta(0.15, 3.0, rows)
    return pd.DataFrame(
        {
            "transaction_id": [f"t{place}" for place in range(rows)],
            "card_id": [f"c{card}" for card in random.integers(rows // 8, size=rows)],
            "amount": random.gamma(2.0, amounts / 2, rows),
            "score": score,
            "decision": np.select([score >= DECLINE, score >= REVIEW], ["decline", "review"], "approve"),
            "degraded_cause": None,
            "control_group": False,
            "is_fraud": (random.random(rows) < score).astype(float),
        }
    )


def with_control(rows: pd.DataFrame, share: float, cap: float) -> pd.DataFrame:
    """The same world where some would-be declines are let pass."""
    group = ControlGroup.of(Settings(control_share=share, control_max_amount=cap, control_key="k" * 16))
    assert group is not None
    chosen = [
        decision == "decline" and group.lets_pass(name, amount)
        for name, decision, amount in zip(rows["transaction_id"], rows["decision"], rows["amount"], strict=True)
    ]
    return rows.assign(control_group=chosen, decision=rows["decision"].mask(pd.Series(chosen), "approve"))


def as_seen(rows: pd.DataFrame) -> pd.DataFrame:
    """What the bank comes to know: nobody disputes a declined payment, and silence counts as legitimate."""
    return rows.assign(is_fraud=rows["is_fraud"].where(rows["decision"] != "decline", 0.0))


def test_figures_by_hand():
    rows = pd.DataFrame(
        {
            "card_id": list("abcdefgh"),
            "amount": [100.0] * 8,
            "score": [0.9, 0.8, 0.4, 0.35, 0.2, 0.1, 0.1, 0.05],
            "decision": ["decline", "decline", "review", "review", "approve", "approve", "approve", "approve"],
            "degraded_cause": None,
            "control_group": False,
            "is_fraud": [1, 0, 1, 0, 1, 0, 0, np.nan],
        }
    )
    found = figures(rows, MATRIX, days=2.0, cap=0.0)
    assert (found.payments, found.labelled, found.frauds, found.labelled_share) == (8, 7, 3, 7 / 8)
    assert (found.precision, found.recall) == (2 / 4, 2 / 3)
    declined, reviewed, missed = 10 + 0.03 * 100, (3 + 0.1 * 120) + (3 + 0.5), 120
    assert found.cost == pytest.approx((declined + reviewed + missed) / 2)
    known = rows[:-1]
    assert found.auc_roc == pytest.approx(roc_auc_score(known["is_fraud"], known["score"]))
    assert found.average_precision == pytest.approx(average_precision_score(known["is_fraud"], known["score"]))
    assert found.stands_for is None


def test_what_is_undefined_is_null():
    none = decisions(100).assign(is_fraud=np.nan)
    found = figures(none, MATRIX, 1.0, 0.0)
    figured = (found.precision, found.recall, found.auc_roc, found.cost, found.precision_interval)
    assert figured == (None, None, None, None, None)
    honest = figures(none.assign(is_fraud=0.0), MATRIX, 1.0, 0.0)
    assert (honest.recall, honest.auc_roc, honest.average_precision) == (None, None, None)
    assert figures(none.head(0), MATRIX, 1.0, 0.0).labelled_share is None


def test_calibration_error_is_training_s_where_weights_are_equal():
    rows = decisions()
    truth, scores = rows["is_fraud"].to_numpy() == 1, rows["score"].to_numpy()
    calm = calibration_error(truth, scores, np.ones(len(rows)))
    assert calm < 0.01
    assert calibration_error(truth, scores / 2, np.ones(len(rows))) == pytest.approx(scores.mean() / 2, abs=0.005)


def test_a_payment_is_full_only_when_its_label_is_due():
    at = datetime(2026, 3, 20, 12, tzinfo=UTC)
    asked = periods(at, days=7)
    assert asked["full"].end == asked["partial"].begin == at - timedelta(days=7, hours=1)
    assert (asked["full"].end - asked["full"].begin, asked["partial"].end) == (timedelta(days=7), at)
    assert at - timedelta(days=7) not in asked["full"]


def test_declines_blind_the_figures_and_the_control_group_gives_sight():
    rows = decisions()
    stopped = rows["decision"] != "approve"
    truth = rows["is_fraud"] == 1
    recall, precision = (truth & stopped).sum() / truth.sum(), (truth & stopped).sum() / stopped.sum()
    blind = figures(as_seen(rows), MATRIX, 7.0, cap=1e7)
    assert blind.recall is not None
    assert blind.precision is not None
    assert blind.recall < recall - 0.1
    assert blind.precision < precision - 0.1
    assert blind.recall_interval is not None
    assert blind.recall_interval[1] < recall, "and it is sure of it"
    seen = figures(as_seen(with_control(rows, share=0.2, cap=1e7)), MATRIX, 7.0, cap=1e7)
    assert seen.stands_for == pytest.approx(5.0, rel=0.2)
    assert seen.recall_interval is not None
    assert seen.precision_interval is not None
    assert seen.recall_interval[0] <= recall <= seen.recall_interval[1]
    assert seen.precision_interval[0] <= precision <= seen.precision_interval[1]
    assert seen.recall == pytest.approx(recall, abs=0.04)


def test_the_estimate_is_not_biased_over_many_weeks():
    off = []
    for seed in range(40):
        rows = decisions(6_000, seed)
        truth = rows["is_fraud"] == 1
        recall = (truth & (rows["decision"] != "approve")).sum() / truth.sum()
        seen = figures(as_seen(with_control(rows, 0.2, 1e7)), MATRIX, 7.0, 1e7)
        assert seen.recall is not None
        assert seen.recall_interval is not None
        off.append((seen.recall - recall, seen.recall_interval[0] <= recall <= seen.recall_interval[1]))
    errors = np.array([error for error, _ in off])
    assert abs(errors.mean()) < 3 * errors.std() / np.sqrt(len(errors))
    assert sum(inside for _, inside in off) >= 35, "of 40 intervals of 95 %"


def test_above_the_cap_nothing_is_known_and_it_says_so():
    rows = decisions()
    cap = 60.0
    control = with_control(rows, 0.3, cap)
    seen = figures(as_seen(control), MATRIX, 7.0, cap)
    degraded = control.assign(degraded_cause=np.where(control["control_group"], None, "stale_features"))
    assert figures(degraded, MATRIX, 7.0, cap).stands_for == 1.0, "who was never to be let pass is not stood for"
    declined = rows["decision"] == "decline"
    assert seen.uncovered == (declined & (rows["amount"] > cap)).sum() > 0
    inside = rows[~declined | (rows["amount"] <= cap)]
    truth, stopped = inside["is_fraud"] == 1, inside["decision"] != "approve"
    assert seen.recall == pytest.approx((truth & stopped).sum() / truth.sum(), abs=0.05)


def test_intervals_are_over_whole_cards():
    rows = decisions(4_000)
    apart = figures(rows, MATRIX, 7.0, 0.0).recall_interval
    together = figures(pd.concat([rows] * 4, ignore_index=True), MATRIX, 7.0, 0.0).recall_interval
    assert together == pytest.approx(apart), "the same payments four times are no more evidence"
