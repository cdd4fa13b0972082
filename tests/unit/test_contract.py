"""A model's promise is held against the code before it may serve; nothing is decided on what is no probability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bentos.model import InvalidModel, InvalidScore, ModelFiles, read_contract, with_review_threshold
from feature_repo.contract import ContractMismatch
from tests.unit.stand_ins import COLUMNS, contract, model


class Gives:
    """A session that gives one output, whatever it is asked."""

    def __init__(self, output: Any) -> None:
        self.output = np.asarray(output, np.float32)

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
        return [self.output]


def test_a_model_of_the_codes_own_columns_is_taken():
    contract().require("fraud_v2", COLUMNS)


@pytest.mark.parametrize(
    ("service", "columns", "named"),
    [
        ("fraud_v3", COLUMNS, r"'fraud_v2'.*'fraud_v3'"),
        ("fraud_v2", ("score",), r"the code lacks \['other'\], the model lacks \[\]"),
        ("fraud_v2", (*COLUMNS, "new"), r"the code lacks \[\], the model lacks \['new'\]"),
        ("fraud_v2", COLUMNS[::-1], "their order differs"),
    ],
)
def test_a_mismatch_names_what_differs(service: str, columns: tuple[str, ...], named: str):
    with pytest.raises(ContractMismatch, match=named):
        contract().require(service, columns)


@pytest.mark.parametrize(
    ("probability", "expected"),
    [
        (0.0, ("approve", "low")),
        (0.4999, ("approve", "low")),
        (0.5, ("review", "medium")),
        (0.8999, ("review", "medium")),
        (0.9, ("decline", "high")),
        (1.0, ("decline", "high")),
    ],
)
def test_a_threshold_belongs_to_the_stricter_decision(probability: float, expected: tuple[str, str]):
    assert contract().decide(probability) == expected


def test_a_payment_may_be_of_medium_risk_though_nobody_has_the_time_to_look_at_it():
    wary = contract().model_copy(update={"medium_from": 0.2})
    given = [wary.decide(probability) for probability in (0.1999, 0.2, 0.5, 0.9)]
    assert given == [("approve", "low"), ("approve", "medium"), ("review", "medium"), ("decline", "high")]
    assert with_review_threshold(wary, 0.1).decide(0.15) == ("review", "medium")


def test_a_setting_may_move_the_review_threshold():
    assert with_review_threshold(contract(), None).review_from == 0.5
    assert with_review_threshold(contract(), 0.2).decide(0.3) == ("review", "medium")


@pytest.mark.parametrize("threshold", [0.91, -0.1, float("nan")])
def test_a_review_threshold_outside_its_range_is_refused(threshold: float):
    with pytest.raises(ContractMismatch, match=r"between 0 and the decline threshold 0\.9"):
        with_review_threshold(contract(), threshold)


@pytest.mark.parametrize("probability", [np.nan, -0.01, 1.01, np.inf])
def test_nothing_is_decided_on_a_score_that_is_no_probability(probability: float):
    with pytest.raises(InvalidScore, match="version 7"):
        model(session=Gives([[0.5, probability]])).score(np.zeros((1, 2), np.float32))


@pytest.mark.parametrize("output", [[0.5], [[0.5]], [[0.5, 0.5], [0.5, 0.5]]])
def test_an_output_of_another_shape_is_refused(output: Any):
    with pytest.raises(InvalidScore, match="shape"):
        model(session=Gives(output)).score(np.zeros((1, 2), np.float32))


def test_scores_are_float64_of_the_fraud_column():
    scores = model(session=Gives([[0.75, 0.25], [0.0, 1.0]])).score(np.zeros((2, 2), np.float32))
    assert scores.dtype == np.float64
    assert scores.tolist() == [0.25, 1.0]


@pytest.mark.parametrize(
    ("document", "named"),
    [({}, "no metadata 'tollgate'"), ({"metadata": {"tollgate": {"columns": []}}}, "its contract is invalid")],
)
def test_files_without_a_contract_are_no_model(tmp_path: Path, document: dict[str, Any], named: str):
    (tmp_path / "MLmodel").write_text(yaml.safe_dump(document))
    with pytest.raises(InvalidModel, match=f"version 3: .*{named}"):
        read_contract(ModelFiles("stand-in", "3", tmp_path, "registry"))


def test_a_contract_survives_its_yaml(tmp_path: Path):
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"metadata": {"tollgate": contract().model_dump(mode="json")}}))
    assert read_contract(ModelFiles("stand-in", "3", tmp_path, "registry")) == contract()


def test_a_contract_from_before_there_was_a_medium_risk_is_taken(tmp_path: Path):
    promised = {key: value for key, value in contract().model_dump(mode="json").items() if key != "medium_from"}
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"metadata": {"tollgate": promised}}))
    assert read_contract(ModelFiles("stand-in", "3", tmp_path, "registry")) == contract()
