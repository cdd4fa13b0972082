"""Contributions against the definition of the Shapley value, on small random trees; and which graphs are refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from bentos.explainer import Explainer
from bentos.tree_tables import Tables
from bentos.trees import NotExplainable
from feature_repo.contract import EFFECTS_KEY, ONNX_INPUT, ONNX_OUTPUT
from tests import shapley, tiny_model

COLUMNS = tuple("abcde")
WIDTH = len(COLUMNS)


def graph(attributes: dict[str, Any], transform: str = "LOGISTIC") -> bytes:
    """A model that is one ensemble of trees."""
    node = helper.make_node(
        "TreeEnsembleClassifier", [ONNX_INPUT], ["label", ONNX_OUTPUT], domain="ai.onnx.ml",
        post_transform=transform, **attributes,
    )  # fmt: skip
    inputs = [helper.make_tensor_value_info(ONNX_INPUT, TensorProto.FLOAT, [None, WIDTH])]
    outputs = [helper.make_tensor_value_info(ONNX_OUTPUT, TensorProto.FLOAT, [None, 2])]
    opsets = [helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("", 18)]
    made = helper.make_model(helper.make_graph([node], "trees", inputs, outputs), opset_imports=opsets)
    return bytes(made.SerializeToString())


def forest(seed: int, depth: int, count: int = 6) -> tuple[list[Any], dict[str, Any]]:
    rng = np.random.default_rng(seed)
    trees = [shapley.grow(rng, WIDTH, depth) for _ in range(count)]
    return trees, shapley.attributes(trees, rng)


def whole(rows: int, seed: int = 5) -> Any:
    return shapley.rows(np.random.default_rng(seed), rows, WIDTH)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6, 7, 9])
@pytest.mark.parametrize("seed", [1, 2])
def test_contributions_are_the_shapley_values_of_their_definition(seed: int, depth: int):
    trees, attributes = forest(seed, depth)
    explainer = Explainer.of(graph(attributes | {"base_values": [0.25]}), COLUMNS)
    assert explainer.quick == (depth <= 8)
    vectors = whole(20)
    by_definition = [sum(shapley.shapley(tree, row) for tree in trees) for row in vectors]
    np.testing.assert_allclose(explainer.contributions(vectors), by_definition, atol=2e-6)
    mean = sum(shapley.expected(tree, vectors[0], frozenset()) for tree in trees)
    assert explainer.base == pytest.approx(mean + 0.25, abs=1e-6)
    np.testing.assert_allclose(
        explainer.contributions(vectors).sum(axis=1) + explainer.base,
        [0.25 + sum(shapley.expected(tree, row, frozenset(range(WIDTH))) for tree in trees) for row in vectors],
        atol=1e-5,
    )


@pytest.mark.parametrize("depth", [4, 6, 9])
def test_a_row_s_contributions_do_not_depend_on_the_rows_beside_it(depth: int):
    explainer = Explainer.of(graph(forest(3, depth)[1]), COLUMNS)
    vectors = whole(50)
    together = explainer.contributions(vectors)
    for rows in (1, 2, 7, 8, 9, 33):
        np.testing.assert_array_equal(explainer.contributions(vectors[:rows]), together[:rows])
    np.testing.assert_array_equal(explainer.contributions(vectors[::-1]), together[::-1])
    np.testing.assert_array_equal(explainer.contributions(np.asfortranarray(vectors)), together)


def test_no_rows_have_no_contributions():
    assert Explainer.of(graph(forest(3, 4)[1]), COLUMNS).contributions(whole(0)).shape == (0, WIDTH)


def test_a_tree_without_a_test_only_moves_the_base():
    trees = [shapley.Leaf(0.5, 10.0), shapley.grow(np.random.default_rng(1), WIDTH, 2)]
    explainer = Explainer.of(graph(shapley.attributes(trees, np.random.default_rng(2))), COLUMNS)
    vectors = whole(5)
    np.testing.assert_allclose(
        explainer.contributions(vectors), [shapley.shapley(trees[1], row) for row in vectors], atol=1e-6
    )
    assert explainer.base == pytest.approx(0.5 + shapley.expected(trees[1], vectors[0], frozenset()), abs=1e-6)


def test_trees_alone_that_have_no_test_contribute_nothing():
    explainer = Explainer.of(graph(shapley.attributes([shapley.Leaf(0.5, 10.0)], np.random.default_rng(2))), COLUMNS)
    assert not explainer.contributions(whole(3)).any()
    assert explainer.base == 0.5


def test_an_infinite_value_goes_where_the_graph_sends_it():
    split = shapley.Split(0, 1.0, True, True, shapley.Leaf(-1.0, 1.0), shapley.Leaf(1.0, 3.0))
    explainer = Explainer.of(graph(shapley.attributes([split], np.random.default_rng(2))), COLUMNS)
    vectors = np.zeros((2, WIDTH), np.float32)
    vectors[:, 0] = np.inf, -np.inf
    np.testing.assert_allclose(explainer.contributions(vectors)[:, 0], [0.5, -1.5])


def test_trees_too_wide_for_tables_are_walked_with_the_same_result(monkeypatch: pytest.MonkeyPatch):
    attributes = forest(4, 6)[1]
    tabulated = Explainer.of(graph(attributes), COLUMNS)
    monkeypatch.setattr("bentos.tree_tables.LARGEST", 100)
    walked = Explainer.of(graph(attributes), COLUMNS)
    assert isinstance(tabulated.method, Tables)
    assert not walked.quick
    vectors = whole(40)
    np.testing.assert_allclose(walked.contributions(vectors), tabulated.contributions(vectors), atol=1e-6)


def without_covers(given: dict[str, Any]) -> None:
    del given["nodes_hitrates"]


def with_covers_of_one(given: dict[str, Any]) -> None:
    given["nodes_hitrates"] = [1.0] * len(given["nodes_hitrates"])


def with_another_test(given: dict[str, Any]) -> None:
    given["nodes_modes"] = ["BRANCH_EQ" if mode != "LEAF" else mode for mode in given["nodes_modes"]]


def with_two_classes(given: dict[str, Any]) -> None:
    given["class_ids"] = [i % 2 for i in range(len(given["class_ids"]))]


def with_a_column_too_many(given: dict[str, Any]) -> None:
    given["nodes_featureids"] = [WIDTH] * len(given["nodes_featureids"])


def with_a_node_of_two_parents(given: dict[str, Any]) -> None:
    given["nodes_falsenodeids"] = given["nodes_truenodeids"]


def with_a_node_that_is_not_there(given: dict[str, Any]) -> None:
    given["nodes_falsenodeids"] = [9_999 if number else 0 for number in given["nodes_falsenodeids"]]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without_covers, r"have no covers \(nodes_hitrates\).*Register the model anew"),
        (with_covers_of_one, r"covers \(nodes_hitrates\) are not those of its trees.*Register the model anew"),
        (with_another_test, "tests .*BRANCH_EQ.*must be BRANCH_LT or BRANCH_LEQ"),
        (with_two_classes, "must weigh fraud alone"),
        (with_a_column_too_many, f"tests column {WIDTH}; the model has {WIDTH}"),
        (with_a_node_of_two_parents, "a node has two parents"),
        (with_a_node_that_is_not_there, "name a node that is not there"),
    ],
)
def test_trees_that_cannot_be_explained_say_why(spoil: Any, reason: str):
    _, attributes = forest(1, 4)
    spoil(attributes)
    with pytest.raises(NotExplainable, match=reason):
        Explainer.of(graph(attributes), COLUMNS)


def test_trees_of_another_end_are_refused():
    with pytest.raises(NotExplainable, match="end in b'SOFTMAX'; must be LOGISTIC or NONE"):
        Explainer.of(graph(forest(1, 2)[1], "SOFTMAX"), COLUMNS)


def test_a_graph_of_another_kind_is_refused():
    with pytest.raises(NotExplainable, match=r"The graph is made of IsNaN, Where, MatMul.*only trees"):
        Explainer.of(tiny_model.graph(COLUMNS).SerializeToString(), COLUMNS)


def test_bytes_that_are_no_graph_are_refused():
    with pytest.raises(NotExplainable, match="no ONNX model"):
        Explainer.of(b"\xffnothing", COLUMNS)


def stated(**changed: Any) -> bytes:
    """A graph that states effects: a slope on `a` to `d`, a code in `e`."""
    numbers = {"column": [0, 1, 2, 3], "unknown": [0, 0, 0, 7], "mean": [1, 2, 3, 4], "slope": [1, 2, 0, -1]}
    code = {"column": 4, "values": [0.0, 1.0], "effects": [0.5, -0.5], "otherwise": 0.1, "unknown": 1.0}
    made = tiny_model.graph(COLUMNS)
    entry = made.metadata_props.add()
    entry.key, entry.value = EFFECTS_KEY, json.dumps({"base": 0.0, "numbers": numbers, "codes": [code]} | changed)
    return bytes(made.SerializeToString())


def test_stated_effects_are_given_against_their_mean_and_the_unknown_is_filled_in():
    explainer = Explainer.of(stated(), COLUMNS)
    nan = np.nan
    vectors = np.array([[1, 3, 9, 4, 0], [2, nan, 9, nan, nan], [1, 2, 3, 4, 5]], np.float32)
    assert explainer.quick
    np.testing.assert_allclose(
        explainer.contributions(vectors), [[0, 2, 0, 0, 0.5], [1, -4, 0, -3, -0.5], [0, 0, 0, 0, 0.1]]
    )


@pytest.mark.parametrize("changed", [{"codes": []}, {"base": "much"}, {"numbers": {"column": [0]}}])
def test_effects_that_are_not_those_of_every_column_are_refused(changed: dict[str, Any]):
    with pytest.raises(NotExplainable, match="effects of"):
        Explainer.of(stated(**changed), COLUMNS)


def test_contributions_that_miss_the_scores_are_found():
    explainer = Explainer.of(graph(forest(1, 4)[1]), COLUMNS)
    vectors = whole(10)
    scores = explainer.probabilities(explainer.contributions(vectors))
    explainer.check(vectors, scores)
    with pytest.raises(NotExplainable, match=r"miss the graph's own scores by up to 1\.0\de-02"):
        explainer.check(vectors, scores + 0.01)
