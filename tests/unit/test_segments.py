"""Segments, and figures with their bounds: by hand, and against the plain metrics."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from training.costs import CostMatrix, cost_saved
from training.evaluate import metrics_of
from training.measured import IN_SEGMENTS, by_segment, measure
from training.segments import segments

MATRIX = CostMatrix(20, 0, 3, 0.9, 0.5, 10, 0.03)
CUTS = (0.4, 0.8)


@pytest.fixture(scope="module")
def drawn() -> tuple[pd.DataFrame, np.ndarray]:
    """Two thousand payments of 200 cards over 10 days, one in ten a fraud, scores that tell them apart somewhat."""
    rng = np.random.default_rng(5)
    fraud = (rng.random(2_000) < 0.1).astype("int8")
    rows = pd.DataFrame(
        {
            "card_id": rng.integers(200, size=2_000).astype(str),
            "timestamp": pd.Timestamp("2024-03-04", tz="UTC")
            + pd.to_timedelta(rng.integers(240, size=2_000), unit="h"),
            "amount": rng.choice([5.0, 50.0, 250.0], size=2_000),
            "channel": rng.choice(["pos", "online"], size=2_000),
            "card_days": rng.choice([3.0, 90.0], size=2_000),
            "is_fraud": fraud,
        }
    )
    return rows, np.clip(rng.normal(0.3 + 0.35 * fraud, 0.15), 0, 1)


def test_every_payment_is_of_one_channel_one_band_and_new_or_known(drawn: tuple[pd.DataFrame, np.ndarray]):
    rows, _ = drawn
    found = segments(rows)
    assert set(found) == {
        "channel=online", "channel=pos", "amount 0 to 25", "amount 25 to 100", "amount 100 to 500",
        "card new (under 30 days)", "card known (30 days and more)",
    }  # fmt: skip
    for kind in ("channel", "amount", "card"):
        assert np.sum([mask for name, mask in found.items() if name.startswith(kind)], axis=0).tolist() == [1] * len(
            rows
        )
    assert found["amount 25 to 100"].tolist() == (rows["amount"] == 50).tolist()


def test_a_band_holds_its_lower_edge_and_what_is_unknown_is_of_no_segment():
    rows = pd.DataFrame({"channel": [None, "atm"], "amount": [25.0, 600.0], "card_days": [np.nan, 30.0]})
    found = {name: mask.tolist() for name, mask in segments(rows).items()}
    assert found == {
        "channel=atm": [False, True],
        "amount 25 to 100": [True, False],
        "amount from 500": [False, True],
        "card known (30 days and more)": [False, True],
    }


def test_measured_figures_are_the_plain_ones_within_their_bounds(drawn: tuple[pd.DataFrame, np.ndarray]):
    rows, scores = drawn
    found = measure(rows, scores, CUTS, MATRIX, repeats=100)
    for name, value in metrics_of(rows, scores).items():
        assert found[name].value == pytest.approx(value, abs=1e-9), name
        assert found[name].low < found[name].high
    stopped = scores >= CUTS[0]
    fraud = rows["is_fraud"] == 1
    assert found["precision"].value == pytest.approx(fraud[stopped].mean())
    assert found["recall"].value == pytest.approx(stopped[fraud].mean())
    assert found["stopped_share"].value == pytest.approx(stopped.mean())
    assert found["cost_saved"].value == pytest.approx(cost_saved(rows, scores, CUTS, MATRIX))
    assert found["cost_saved_share"].value == pytest.approx(found["cost_saved"].value / MATRIX.approved(rows).sum())


def test_bounds_are_the_same_each_time(drawn: tuple[pd.DataFrame, np.ndarray]):
    first, second = (measure(*drawn, CUTS, MATRIX, repeats=50) for _ in range(2))
    assert first == second


def test_a_segment_s_figures_are_those_of_its_payments_and_few_frauds_give_none(drawn: tuple[pd.DataFrame, np.ndarray]):
    rows, scores = drawn
    rows = rows.assign(is_fraud=rows["is_fraud"].where(rows["channel"] == "pos", 0).astype("int8"))
    found = by_segment(rows, scores, CUTS, MATRIX, repeats=50)
    pos = (rows["channel"] == "pos").to_numpy()
    assert (found["channel=online"].rows, found["channel=online"].frauds) == ((~pos).sum(), 0)
    assert found["channel=online"].figures == {}
    assert set(found["channel=pos"].figures) == set(IN_SEGMENTS)
    part = metrics_of(rows[pos].reset_index(drop=True), scores[pos])
    assert found["channel=pos"].figures["auc_roc"].value == pytest.approx(part["auc_roc"])
