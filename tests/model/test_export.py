"""Every candidate as ONNX: the same scores, the promised form, and a loud refusal where the graph is another model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from feature_repo.contract import ONNX_INPUT, ONNX_OUTPUT
from training.export import TOLERANCE, ParityError, check_parity, onnx_scores, to_onnx
from training.models import CANDIDATES, CODED
from training.speed import inference

COLUMNS = ("amount", *CODED, "card_mean_amount_24h", "spare", "card_count_1h")
CUTS = (0.3, 0.7)
ROWS = 1_500

Vectors = npt.NDArray[np.float32]


def drawn(seed: int, rows: int = ROWS) -> tuple[Vectors, npt.NDArray[np.int8]]:
    """Vectors of `COLUMNS` with a tenth of nulls in every column but the amount, and labels that follow from them."""
    rng = np.random.default_rng(seed)
    vectors = np.column_stack(
        [
            rng.lognormal(3, 1.5, rows),
            rng.integers(0, 18, rows),
            rng.integers(0, 3, rows),
            rng.integers(0, 24, rows),
            rng.gamma(2, 20, rows),
            rng.normal(size=rows) * 1e6,
            rng.poisson(2, rows),
        ]
    ).astype(np.float32)
    log_odds = np.log(vectors[:, 0]) - 4 + (vectors[:, 1] == 5) + 0.4 * vectors[:, 6]
    fraud = (rng.random(rows) < 1 / (1 + np.exp(-log_odds))).astype(np.int8)
    unknown = rng.random(vectors.shape) < 0.1
    unknown[:, 0] = False
    vectors[unknown] = np.nan
    return vectors, fraud


def with_nulls(vectors: Vectors) -> None:
    """Nothing beyond the nulls that are there."""


def with_null_columns(vectors: Vectors) -> None:
    """A data set without categories, and a plain number that is null throughout."""
    vectors[:, [COLUMNS.index("category_code"), COLUMNS.index("spare")]] = np.nan


def with_constant_columns(vectors: Vectors) -> None:
    """A code and two numbers that never change, one of them 0."""
    vectors[:, COLUMNS.index("channel_code")] = 1
    vectors[:, COLUMNS.index("spare")] = 0
    vectors[:, COLUMNS.index("card_count_1h")] = 4


WORLDS = [with_nulls, with_null_columns, with_constant_columns]


def unfitted(name: str, **parameters: Any) -> Any:
    """A candidate on one thread: of so few rows, threads only wait for each other."""
    model = CANDIDATES[name](COLUMNS, **parameters)
    return model.set_params(**{key: 1 for key, value in model.get_params().items() if "n_jobs" in key and value == -1})


def fitted(name: str, spoil: Any = with_nulls) -> tuple[Any, Vectors, npt.NDArray[np.float64]]:
    """A candidate fitted on one draw, another draw, and the candidate's own scores of that."""
    vectors, fraud = drawn(1)
    spoil(vectors)
    model = unfitted(name).fit(vectors, fraud)
    unseen, _ = drawn(2)
    spoil(unseen)
    return model, unseen, np.asarray(model.predict_proba(unseen)[:, 1], np.float64)


@pytest.fixture(scope="module", params=CANDIDATES)
def candidate(request: pytest.FixtureRequest) -> tuple[bytes, Vectors, npt.NDArray[np.float64]]:
    """Each candidate as a graph, with vectors and the scores they have."""
    model, vectors, scores = fitted(request.param)
    return to_onnx(model, len(COLUMNS)), vectors, scores


@pytest.mark.parametrize("spoil", WORLDS, ids=lambda world: world.__name__)
@pytest.mark.parametrize("name", CANDIDATES)
def test_the_graph_gives_the_candidate_s_own_scores(name: str, spoil: Any):
    model, vectors, scores = fitted(name, spoil)
    parity = check_parity(to_onnx(model, len(COLUMNS)), vectors, scores, CUTS)
    assert (parity.rows, parity.flips) == (ROWS, 0)
    assert parity.largest_difference <= TOLERANCE
    assert scores.std() > 0.01, "scores that are all alike would agree with anything"


@pytest.mark.parametrize("name", CANDIDATES)
def test_what_training_never_saw_is_scored_alike(name: str):
    """Values beyond the training's range, codes that are new, columns that were full and are null now."""
    model, vectors, _ = fitted(name, with_constant_columns)
    vectors[::3, COLUMNS.index("category_code")] = 99
    vectors[1::3, COLUMNS.index("amount")] = 1e7
    vectors[2::3] = np.nan
    scores = np.asarray(model.predict_proba(vectors)[:, 1], np.float64)
    assert check_parity(to_onnx(model, len(COLUMNS)), vectors, scores, CUTS).rows == ROWS


def test_the_graph_has_the_form_that_the_contract_promises(candidate: Any):
    graph, vectors, _ = candidate
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.type) == (ONNX_INPUT, "tensor(float)")
    assert given.shape[1] == len(COLUMNS)
    assert not isinstance(given.shape[0], int), "any number of rows"
    assert ONNX_OUTPUT in [output.name for output in session.get_outputs()]
    for rows in (1, 2, ROWS):
        (found,) = session.run([ONNX_OUTPUT], {ONNX_INPUT: vectors[:rows]})
        assert (found.shape, found.dtype) == ((rows, 2), np.float32)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(onnx_scores(graph, vectors), found[:, 1].astype(np.float64))


def tampered(graph: bytes) -> bytes:
    """The graph with the first list of weights that its classifier has shifted by a little."""
    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("coefficients", "class_weights", "nodes_values", "target_weights"):
                attribute.floats[:] = [weight * 1.05 + 0.01 for weight in attribute.floats]
                return bytes(model.SerializeToString())
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size > 1:
            tensor.CopyFrom(numpy_helper.from_array(values * np.float32(1.05), tensor.name))
            return bytes(model.SerializeToString())
    raise AssertionError("The graph has no weights.")


def test_a_tampered_graph_is_refused_with_how_far_it_is_off(candidate: Any):
    graph, vectors, scores = candidate
    with pytest.raises(ParityError, match=r"differs from the model by up to \d\.\d\de[+-]\d\d .*Don't register it"):
        check_parity(tampered(graph), vectors, scores, (2.0, 2.0))  # cuts that no score reaches: no decision differs


def test_a_graph_of_other_columns_is_refused(candidate: Any):
    graph, vectors, scores = candidate
    swapped = vectors[:, ::-1].copy()
    with pytest.raises(ParityError):
        check_parity(graph, swapped, scores, CUTS)


@pytest.mark.parametrize("place", [0, 1])
def test_a_decision_that_flips_is_refused_however_near_the_scores_are(candidate: Any, place: int):
    """A cut just between a score of the graph and a score within tolerance of it."""
    graph, vectors, _ = candidate
    expected = onnx_scores(graph, vectors)
    cut = float(expected[7])
    expected[7] = np.nextafter(cut, 0)
    cuts = (cut, 2.0) if place == 0 else (2.0, cut)
    with pytest.raises(ParityError, match=rf"decides 1 of {ROWS} rows differently \(0 are allowed\)"):
        check_parity(graph, vectors, expected, cuts)
    assert check_parity(graph, vectors, expected, (2.0, 2.0)).largest_difference < 1e-12


def test_a_score_that_is_no_number_is_refused(candidate: Any):
    graph, vectors, scores = candidate
    broken = scores.copy()
    broken[3] = np.nan
    with pytest.raises(ParityError):
        check_parity(graph, vectors, broken, CUTS)


def test_no_rows_prove_nothing_and_harm_nothing(candidate: Any):
    graph, vectors, scores = candidate
    assert check_parity(graph, vectors[:0], scores[:0], CUTS).rows == 0


def test_the_speed_told_is_that_of_the_rows_asked_for(candidate: Any, monkeypatch: pytest.MonkeyPatch):
    """A clock that ticks 64 µs a run: a row alone takes all of it, one of 64 a 64th."""
    graph, vectors, _ = candidate
    ticks = iter(range(0, 1_000_000_000, 64_000))
    monkeypatch.setattr("training.speed.time.perf_counter_ns", lambda: next(ticks))
    told = inference(graph, vectors[:5], many=64, rounds=3)
    assert (told.one_row_us, told.row_of_many_us, 1e6 / told.row_of_many_us) == (64.0, 1.0, 1e6)
