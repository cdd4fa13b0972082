"""Trees written as ONNX, split by split: rows on a threshold, and rows of which a library has an opinion of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.model.test_export import COLUMNS, CUTS, drawn, unfitted
from training.export import check_parity, to_onnx
from training.tree_graph import rounded_down

NAMES = ("hist_gradient_boosting", "lightgbm")
MORE = {"hist_gradient_boosting": {"max_iter": 30}, "lightgbm": {"n_estimators": 30}}
WIDTH = len(COLUMNS)


def thresholds(model: Any) -> Any:
    """(column, threshold in float64) of every split, as the library has them."""
    if hasattr(model, "booster_"):
        frame = model.booster_.trees_to_dataframe().dropna(subset="threshold")
        return frame["split_feature"].str.removeprefix("Column_").astype(int).to_numpy(), frame["threshold"].to_numpy()
    nodes = np.concatenate([stage[0].nodes for stage in model._predictors])
    inner = nodes[nodes["is_leaf"] == 0]
    return inner["feature_idx"], inner["num_threshold"]


@pytest.mark.parametrize("name", NAMES)
def test_rows_at_a_threshold_go_the_library_s_way(name: str):
    """Thresholds lie between float32 numbers here: rounded to the nearest, half of them would turn rows round."""
    vectors, fraud = drawn(1)
    model = unfitted(name, **MORE[name]).fit(vectors, fraud)
    column, edge = thresholds(model)
    finite = np.abs(edge) < 1e30
    column, edge = column[finite], edge[finite]
    asked = np.repeat(vectors[:1], 3 * len(column), axis=0)
    near = edge.astype(np.float32)
    assert (near > edge).any(), "no threshold would be rounded up: the test shows nothing"
    around = np.stack([np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))])
    asked[np.arange(len(asked)), np.tile(column, 3)] = around.ravel()
    check_parity(to_onnx(model, WIDTH), asked, np.asarray(model.predict_proba(asked)[:, 1], np.float64), CUTS)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_always_known_and_is_unknown_now_goes_the_library_s_way(name: str):
    vectors, fraud = drawn(1)
    known = np.nan_to_num(vectors, nan=-1.0)
    known[:, 4] -= 30.0  # so that 0, for which LightGBM takes it, lies within the column's range
    model = unfitted(name, **MORE[name]).fit(known, fraud)
    unseen, _ = drawn(2)
    for column in range(WIDTH):
        unseen[column::11, column] = np.nan
    check_parity(to_onnx(model, WIDTH), unseen, np.asarray(model.predict_proba(unseen)[:, 1], np.float64), CUTS)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_found_no_split_says_its_base(name: str):
    vectors = np.zeros((200, WIDTH), np.float32)
    fraud = (np.arange(200) % 4 == 0).astype(np.int8)
    model = unfitted(name).fit(vectors, fraud)
    scores = np.asarray(model.predict_proba(vectors)[:, 1], np.float64)
    assert scores == pytest.approx(0.25)
    check_parity(to_onnx(model, WIDTH), vectors, scores, CUTS)


def test_thresholds_are_rounded_down():
    wanted = np.array([0.1, 1.0, -0.1, 1e300, 16_777_217.0])
    found = rounded_down(wanted)
    assert found.dtype == np.float32
    assert (found.astype(np.float64) <= wanted).all()
    assert (np.nextafter(found[:3], np.float32(np.inf)).astype(np.float64) > wanted[:3]).all()
    assert found[4] == 16_777_216.0
    assert np.isfinite(found).all()
