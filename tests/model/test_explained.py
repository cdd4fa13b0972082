"""Every candidate explained from its ONNX graph: the same contributions as the library that fitted it gives."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import xgboost

from bentos.explainer import Explainer, Walk
from bentos.trees import NotExplainable
from feature_repo.contract import EFFECTS_KEY
from tests import shapley
from tests.model import test_export
from tests.model.test_export import COLUMNS, WORLDS, drawn, with_nulls
from training import explained, export
from training.export import onnx_scores, to_onnx
from training.models import CANDIDATES

Vectors = npt.NDArray[np.float32]
WIDTH = len(COLUMNS)


# Fitted once for all tests, which only read it.
fitted = lru_cache(maxsize=None)(test_export.fitted)


def booster(**changed: Any) -> Any:
    """The XGBoost candidate, smaller: what is compared is each tree."""
    return CANDIDATES["xgboost"](COLUMNS).set_params(n_estimators=40, learning_rate=0.3, n_jobs=1, **changed)


def plain(model: Any, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The model's graph as the converter makes it."""
    monkeypatch.setattr(export, "explain", lambda *_: None)
    graph = to_onnx(model, WIDTH)
    monkeypatch.undo()
    return graph


def log_odds(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.log(probabilities / (1 - probabilities))


@pytest.mark.parametrize("spoil", WORLDS)
@pytest.mark.parametrize("name", ["logistic_regression", "random_forest", "xgboost"])
def test_what_is_written_for_the_reasons_changes_no_score(name: str, spoil: Any, monkeypatch: pytest.MonkeyPatch):
    model, vectors, _ = fitted(name, spoil)
    before = plain(model, monkeypatch)
    after = to_onnx(model, WIDTH, drawn(1)[0])
    assert before != after
    np.testing.assert_array_equal(onnx_scores(after, vectors), onnx_scores(before, vectors))


@pytest.mark.parametrize("spoil", WORLDS)
@pytest.mark.parametrize("name", CANDIDATES)
def test_contributions_add_up_to_the_score(name: str, spoil: Any):
    model, vectors, scores = fitted(name, spoil)
    fitted_on = drawn(1)[0]
    spoil(fitted_on)
    graph = to_onnx(model, WIDTH, fitted_on)
    explainer = Explainer.of(graph, COLUMNS)
    some = vectors[:50]
    contributions = explainer.contributions(some)
    explainer.check(some, onnx_scores(graph, some))
    total = contributions.sum(axis=1) + explainer.base
    own = scores[:50] if name == "random_forest" else log_odds(scores[:50])
    np.testing.assert_allclose(total, own, atol=2e-5)
    assert explainer.output == ("probability" if name == "random_forest" else "log-odds")
    assert explainer.quick == (name != "random_forest")


@pytest.mark.parametrize("depth", [2, 4, 6])
@pytest.mark.parametrize("base_score", [0.5, 0.03])
def test_the_booster_s_contributions_are_xgboost_s_own(depth: int, base_score: float):
    fitted_on, fraud = drawn(1)
    model = booster(max_depth=depth, base_score=base_score).fit(fitted_on, fraud)
    vectors, _ = drawn(2)
    assert np.isnan(vectors).any()
    own = model.get_booster().predict(xgboost.DMatrix(vectors), pred_contribs=True)
    explainer = Explainer.of(to_onnx(model, WIDTH), COLUMNS)
    np.testing.assert_allclose(explainer.contributions(vectors), own[:, :-1], atol=1e-5)
    assert explainer.base == pytest.approx(float(own[0, -1]), abs=1e-5)


def test_a_booster_that_stopped_early_is_explained_by_the_trees_that_are_left():
    fitted_on, fraud = drawn(1)
    vectors, seen = drawn(2)
    model = booster(early_stopping_rounds=3)
    model.fit(fitted_on, fraud, eval_set=[(vectors, seen)], verbose=False)
    assert model.best_iteration < 36
    kept = (0, model.best_iteration + 1)
    own = model.get_booster().predict(xgboost.DMatrix(vectors), pred_contribs=True, iteration_range=kept)
    np.testing.assert_allclose(
        Explainer.of(to_onnx(model, WIDTH), COLUMNS).contributions(vectors), own[:, :-1], atol=1e-5
    )


def as_split(tree: Any, filled: float, node: int = 0) -> Any:
    """A fitted tree of scikit-learn in the oracle's form, unknown values filled in ahead of it."""
    cover = float(tree.weighted_n_node_samples[node])
    if tree.children_left[node] < 0:
        return shapley.Leaf(float(tree.value[node][0][1]), cover)
    threshold = float(tree.threshold[node])
    sides = (as_split(tree, filled, int(side[node])) for side in (tree.children_left, tree.children_right))
    return shapley.Split(int(tree.feature[node]), threshold, True, filled <= threshold, *sides)


def test_a_deep_forest_s_contributions_are_the_shapley_values_of_their_definition():
    fitted_on, fraud = drawn(1)
    model = CANDIDATES["random_forest"](COLUMNS).set_params(classify__n_estimators=4, classify__n_jobs=1)
    model.fit(fitted_on, fraud)
    trees = [as_split(each.tree_, -1e6) for each in model[-1].estimators_]
    assert max(each.get_depth() for each in model[-1].estimators_) > 8
    explainer = Explainer.of(to_onnx(model, WIDTH), COLUMNS)
    assert isinstance(explainer.method, Walk)
    vectors = drawn(2)[0][:8]
    by_definition = [np.mean([shapley.shapley(tree, row) for tree in trees], axis=0) for row in vectors]
    np.testing.assert_allclose(explainer.contributions(vectors), by_definition, atol=1e-6)


def test_a_linear_model_s_contributions_are_its_effects_against_their_mean():
    """With one column changed, the log-odds change by the difference of that column's contributions alone."""
    fitted_on, fraud = drawn(1)
    model = CANDIDATES["logistic_regression"](COLUMNS).fit(fitted_on, fraud)
    explainer = Explainer.of(to_onnx(model, WIDTH, fitted_on), COLUMNS)
    rng = np.random.default_rng(3)
    vectors = drawn(2)[0][:200]
    assert abs(explainer.contributions(fitted_on).mean(axis=0)).max() < 1e-5
    for column in range(WIDTH):
        changed = vectors.copy()
        changed[:, column] = rng.permutation(fitted_on[:, column])[:200]
        contributions = explainer.contributions(changed) - explainer.contributions(vectors)
        own = model.decision_function(changed) - model.decision_function(vectors)
        np.testing.assert_allclose(contributions[:, column], own, atol=1e-5)
        assert not np.delete(contributions, column, axis=1).any()


def test_a_code_never_seen_contributes_what_its_absence_means():
    model, vectors, _ = fitted("logistic_regression", with_nulls)
    fitted_on = drawn(1)[0]
    graph = to_onnx(model, WIDTH, fitted_on)
    vectors = vectors.copy()
    vectors[:, COLUMNS.index("category_code")] = 99
    Explainer.of(graph, COLUMNS).check(vectors, onnx_scores(graph, vectors))


def test_a_linear_model_exported_without_the_rows_it_was_fitted_on_has_no_reasons():
    graph = to_onnx(fitted("logistic_regression", with_nulls)[0], WIDTH)
    with pytest.raises(NotExplainable, match=EFFECTS_KEY):
        Explainer.of(graph, COLUMNS)


@pytest.mark.parametrize("name", ["random_forest", "xgboost"])
def test_a_version_registered_before_there_were_covers_is_no_less_a_model(name: str, monkeypatch: pytest.MonkeyPatch):
    graph = plain(fitted(name, with_nulls)[0], monkeypatch)
    with pytest.raises(NotExplainable, match="Register the model anew through training"):
        Explainer.of(graph, COLUMNS)


def test_covers_of_another_model_are_refused_at_export():
    proto = onnx.load_from_string(to_onnx(fitted("xgboost", with_nulls)[0], WIDTH))
    other = booster(max_depth=3).fit(*drawn(3))
    with pytest.raises(explained.CoverMismatch, match="tree by tree"):
        explained.explain(proto, other, None)
