"""Calibrated candidates: probabilities that are true, the same order, the same graph to explain."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest

from bentos.explainer import Explainer
from bentos.trees import NotExplainable
from feature_repo.contract import CALIBRATION_KEY, ONNX_INPUT, ONNX_OUTPUT
from tests.model.test_export import COLUMNS, CUTS, Vectors, drawn, unfitted
from training.calibrate import Calibrated, Curve, NotCalibrated, calibrated, margins, reliability, taken_over
from training.calibration_graph import NoMargin
from training.export import check_parity, onnx_scores, to_onnx
from training.models import CANDIDATES

METHODS = ("sigmoid", "isotonic")
SMALL = {
    "random_forest": {"n_estimators": 10, "max_depth": 6},
    "hist_gradient_boosting": {"max_iter": 30},
    "xgboost": {"n_estimators": 30},
    "lightgbm": {"n_estimators": 30},
}


@cache
def weighted(name: str) -> Any:
    """A candidate fitted with frauds that count tenfold: its scores are far too high."""
    return unfitted(name, **SMALL.get(name, {}), imbalance="weight", fraud_weight=10.0).fit(*drawn(1))


@cache
def behind(name: str, method: Any) -> Calibrated:
    return calibrated(weighted(name), *drawn(2), method=method)


def scores(model: Any, vectors: Vectors) -> npt.NDArray[np.float64]:
    return np.asarray(model.predict_proba(vectors)[:, 1], np.float64)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CANDIDATES)
def test_probabilities_come_true_and_keep_their_order(name: str, method: str):
    vectors, fraud = drawn(3)
    before, after = scores(weighted(name), vectors), scores(behind(name, method), vectors)
    was, now = reliability(fraud, before), reliability(fraud, after)
    assert now.brier < was.brier
    assert now.error < was.error / 3
    assert after.mean() == pytest.approx(fraud.mean(), abs=0.04)
    by_margin = np.argsort(margins(weighted(name), vectors), kind="stable")
    assert (np.diff(after[by_margin]) >= 0).all()
    distinct = [len(np.unique(found)) for found in (after, margins(weighted(name), vectors))]
    assert distinct[0] >= distinct[1] - 2, "none are made equal, but by float64 where they are all but 1"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CANDIDATES)
def test_the_calibrated_graph_gives_the_same_probabilities_and_is_explained(name: str, method: str):
    model, (vectors, _) = behind(name, method), drawn(3)
    graph = to_onnx(model, len(COLUMNS), drawn(1)[0])
    check_parity(graph, vectors, scores(model, vectors), CUTS)
    explainer = Explainer.of(graph, COLUMNS)
    some = vectors[:40]
    explainer.check(some, onnx_scores(graph, some))
    straight = method == "sigmoid"
    assert (explainer.calibration is None) == straight
    total = explainer.contributions(some).sum(axis=1) + explainer.base
    margin = margins(weighted(name), some)
    np.testing.assert_allclose(total, model.curve(margin) if straight else margin, atol=1e-4)
    assert explainer.output == ("probability" if name == "random_forest" and not straight else "log-odds")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["hist_gradient_boosting", "lightgbm", "random_forest", "xgboost"])
def test_a_row_s_score_does_not_depend_on_the_rows_beside_it(name: str, method: str):
    vectors, _ = drawn(3)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # as the service runs it
    graph = to_onnx(behind(name, method), len(COLUMNS))
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def asked(rows: Vectors) -> Any:
        return session.run([ONNX_OUTPUT], {ONNX_INPUT: rows})[0]

    together = asked(vectors)
    for rows in (1, 2, 3, 7, 8, 31, 64, 65):
        parts = [asked(vectors[begin : begin + rows]) for begin in range(0, 260, rows)]
        np.testing.assert_array_equal(np.concatenate(parts)[:260], together[:260])


def test_a_straight_curve_adds_no_operator():
    before, after = (
        onnx.load_from_string(to_onnx(model, len(COLUMNS))).graph.node
        for model in (weighted("xgboost"), behind("xgboost", "sigmoid"))
    )
    assert [node.op_type for node in after] == [node.op_type for node in before]


def test_the_curve_of_a_twin_goes_over_to_another_model():
    twin = behind("xgboost", "sigmoid")
    model = unfitted("xgboost", n_estimators=20).fit(*drawn(4))
    vectors, _ = drawn(3)
    given = scores(taken_over(twin, model), vectors)
    np.testing.assert_allclose(np.log(given / (1 - given)), twin.curve(margins(model, vectors)), atol=1e-9)


@pytest.mark.parametrize("imbalance", ["none", "weight", "smote"])
@pytest.mark.parametrize("name", CANDIDATES)
def test_no_graph_holds_what_the_frauds_were_multiplied_with(name: str, imbalance: str):
    vectors, fraud = drawn(1)
    few = (fraud == 0) | (np.arange(len(fraud)) % 5 == 0)
    made = unfitted(name, **SMALL.get(name, {}), imbalance=imbalance, fraud_weight=4.0, fraud_share=0.5)
    model = made.fit(vectors[few], fraud[few])
    unseen, _ = drawn(3)
    graph = to_onnx(model, len(COLUMNS), vectors[few])
    check_parity(graph, unseen, scores(model, unseen), CUTS)
    Explainer.of(graph, COLUMNS).check(unseen[:20], onnx_scores(graph, unseen[:20]))


def test_what_cannot_be_calibrated_is_refused():
    model, (vectors, fraud) = weighted("xgboost"), drawn(2)
    with pytest.raises(NotCalibrated, match="have one class"):
        calibrated(model, vectors, np.zeros(len(vectors)))
    with pytest.raises(NotCalibrated, match="Method is 'none'; must be 'sigmoid' or 'isotonic'"):
        calibrated(model, vectors, fraud, method="none")  # type: ignore[arg-type]
    with pytest.raises(NotCalibrated, match="must be above 0"):
        calibrated(model, vectors, 1 - fraud)
    with pytest.raises(NotCalibrated, match="made of a fitted one"):
        behind("xgboost", "sigmoid").fit(vectors, fraud)


def test_a_graph_without_a_margin_is_refused():
    from tests import tiny_model
    from training.calibration_graph import put_behind

    with pytest.raises(NoMargin, match="has 0 of TreeEnsembleClassifier and LinearClassifier"):
        put_behind(tiny_model.graph(COLUMNS), Curve(0.0, 1.0))


def test_a_curve_goes_through_its_points_and_on_beyond_them():
    curve = Curve.through([0.0, 1.0, 3.0], [-4.0, -1.0, 0.0])
    asked = np.array([-3.0, 0.0, 0.5, 1.0, 2.0, 3.0, 6.0])
    np.testing.assert_allclose(curve(asked), [-8, -4, -2.5, -1, -0.5, 0, 4], atol=1e-12)
    with pytest.raises(NotCalibrated, match="must all be above 0"):
        Curve.through([0.0, 1.0], [1.0, 1.0])


def test_reliability_is_the_distance_of_what_is_said_from_what_is_true():
    """Two groups: said 0.1 and 0.8, true 0 and 0.5. Brier: (0.01 × 2 + 0.04 + 0.64) / 4."""
    found = reliability(np.array([0, 0, 1, 0]), np.array([0.1, 0.1, 0.8, 0.8]), bins=2)
    assert (found.said, found.true, found.rows) == ((0.1, 0.8), (0.0, 0.5), (2, 2))
    assert found.error == pytest.approx((0.1 + 0.3) / 2)
    assert found.brier == pytest.approx(0.175)


def stated(text: str | None = None, without_last: bool = False) -> bytes:
    made = onnx.load_from_string(to_onnx(behind("xgboost", "isotonic"), len(COLUMNS)))
    (entry,) = [entry for entry in made.metadata_props if entry.key == CALIBRATION_KEY]
    entry.value = text or entry.value
    if without_last:
        del made.graph.node[-1]
    return bytes(made.SerializeToString())


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (lambda: stated("{}"), "calibration cannot be read"),
        (
            lambda: stated('{"margin":"log-odds","intercept":0,"slope":1,"knots":[0],"bends":[]}'),
            "1 knots and 0 bends",
        ),
        (lambda: stated(without_last=True), "ends in .*must have as many of both"),
    ],
)
def test_a_calibration_that_the_graph_does_not_have_is_not_explained(graph: Any, reason: str):
    with pytest.raises(NotExplainable, match=reason):
        Explainer.of(graph(), COLUMNS)


def test_a_calibration_with_other_numbers_than_the_graph_s_is_found_out():
    graph = stated('{"margin":"log-odds","intercept":0,"slope":1,"knots":[0],"bends":[0.1]}')
    vectors = drawn(3)[0][:20]
    with pytest.raises(NotExplainable, match="miss the graph's own scores"):
        Explainer.of(graph, COLUMNS).check(vectors, onnx_scores(graph, vectors))
