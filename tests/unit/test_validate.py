"""Each gate passes good data, fails on the bad data planted for it, and names the rows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feature_repo.schema import FIELDS
from training.datasets import synthetic
from training.datasets.dataset import Dataset
from training.datasets.rules import LABELLED_SCHEMA
from training.transaction_schema import ARRIVAL, broken_rules, transaction_schema
from training.validate import DataQualityError, Gate, main, require, validate


@pytest.fixture(scope="module")
def good() -> Dataset:
    return synthetic.load(rows=2_000)


def planted(good: Dataset, column: str, values: dict[int, Any]) -> Dataset:
    """The good data set with some values of one column replaced, by position."""
    rows = good.transactions.copy()
    for place, value in values.items():
        rows.iloc[place, rows.columns.get_loc(column)] = value
    return dataclasses.replace(good, transactions=rows)


def with_rows(good: Dataset, rows: pd.DataFrame) -> Dataset:
    return dataclasses.replace(good, transactions=rows)


def only_failure(dataset: Dataset) -> Gate:
    failed = validate(dataset).failed
    assert len(failed) == 1, failed
    return failed[0]


def ids(good: Dataset, *places: int) -> tuple[str, ...]:
    return tuple(good.transactions["transaction_id"].iloc[list(places)])


def test_good_data_pass_every_gate(good: Dataset) -> None:
    report = validate(good)
    assert report.passed
    assert [gate.name for gate in report.gates] == [
        "schema",
        "nulls in required fields",
        "duplicate transaction ids",
        "timestamps out of order",
        "fraud rate",
        "amount outliers",
    ]
    require(report)


def test_the_pandera_schema_has_every_field_of_the_schema_and_its_nullability() -> None:
    columns = transaction_schema().columns
    assert set(FIELDS) < set(columns)
    assert {name: column.nullable for name, column in columns.items()} == {f.name: f.nullable for f in LABELLED_SCHEMA}


@pytest.mark.parametrize(
    ("column", "bad", "rule"),
    [
        ("amount", -4.0, "amount must be > 0"),
        ("amount", 2e7, "amount must be <= 10,000,000"),
        ("merchant_category", "space", "merchant_category must be one of the 18 merchant categories"),
        ("country", "gbr", "country must match ^[A-Z]{2}$"),
        ("channel", "phone", "channel must be one of pos, online, atm"),
        ("currency", "€", "currency must match ^[A-Z]{3}$"),
        ("card_id", "x" * 65, "card_id must have at most 64 characters"),
        ("is_fraud", 3, "is_fraud must be 0 or 1"),
    ],
)
def test_a_value_outside_the_schema_fails_with_rule_and_rows(good: Dataset, column: str, bad: Any, rule: str) -> None:
    gate = only_failure(planted(good, column, {4: bad, 9: bad}))
    assert gate.name == f"schema: {rule}"
    assert gate.value == 2
    assert gate.rows == ids(good, 4, 9)


def test_an_arrival_before_the_event_fails_with_the_row(good: Dataset) -> None:
    gate = only_failure(planted(good, "ingested_at", {7: good.transactions["timestamp"].iloc[7] - pd.Timedelta("1us")}))
    assert ARRIVAL in gate.name
    assert gate.rows == ids(good, 7)


@pytest.mark.parametrize(("column", "kind"), [("amount", object), ("is_fraud", "float64"), ("card_id", "category")])
def test_a_column_of_another_type_fails_as_a_whole(good: Dataset, column: str, kind: Any) -> None:
    rows = good.transactions.astype({column: kind})
    if column == "amount":
        rows["amount"] = rows["amount"].astype(str)
    broken = broken_rules(rows)
    if kind == "category":
        assert broken == {}  # the same text, stored otherwise
    else:
        assert list(broken) == [f"{column} must be {LABELLED_SCHEMA.field(column).type}"]


def test_all_broken_rules_are_found_in_one_pass(good: Dataset) -> None:
    rows = planted(planted(good, "amount", {1: -1.0}), "country", {2: "x"}).transactions
    assert broken_rules(rows) == {"amount must be > 0": [1], "country must match ^[A-Z]{2}$": [2]}


@pytest.mark.parametrize("column", ["card_id", "amount", "merchant_id"])
def test_a_null_in_a_required_field_fails_with_the_row(good: Dataset, column: str) -> None:
    gate = only_failure(planted(good, column, {5: None}))
    assert (gate.name, gate.value, gate.rows) == ("nulls in required fields", 1, ids(good, 5))


def test_a_null_in_an_optional_field_passes(good: Dataset) -> None:
    assert validate(planted(good, "country", {5: None})).passed


def test_a_duplicate_id_fails_with_the_id(good: Dataset) -> None:
    first = good.transactions["transaction_id"].iloc[3]
    gate = only_failure(planted(good, "transaction_id", {8: first}))
    assert (gate.name, gate.value, gate.rows) == ("duplicate transaction ids", 1, (first,))


def test_rows_out_of_order_fail_with_the_row_that_goes_back(good: Dataset) -> None:
    order = np.arange(len(good.transactions))
    order[[10, 11]] = [11, 10]
    gate = only_failure(with_rows(good, good.transactions.iloc[order]))
    assert (gate.name, gate.value, gate.rows) == ("timestamps out of order", 1, ids(good, 10))


def relabelled(good: Dataset, frauds: int) -> Dataset:
    labels = (np.arange(len(good.transactions)) < frauds).astype("int8")
    return with_rows(good, good.transactions.assign(is_fraud=labels))


@pytest.mark.parametrize(("frauds", "passes"), [(1, False), (2, True), (100, True), (101, False)])
def test_the_fraud_rate_must_lie_between_a_thousandth_and_a_twentieth(good: Dataset, frauds: int, passes: bool) -> None:
    report = validate(relabelled(good, frauds))
    assert report.passed is passes
    assert [gate.name for gate in report.failed] == ([] if passes else ["fraud rate"])


def test_too_high_a_fraud_rate_shows_the_first_frauds(good: Dataset) -> None:
    assert only_failure(relabelled(good, 500)).rows == ids(good, *range(10))


@pytest.mark.parametrize(("share", "passes"), [(0.04, True), (0.06, False)])
def test_one_row_in_twenty_may_have_an_outlying_amount(good: Dataset, share: float, passes: bool) -> None:
    count = int(share * len(good.transactions))
    amounts = good.transactions["amount"].clip(5, 100).to_numpy().copy()
    amounts[:count] = 9_000_000.0
    report = validate(with_rows(good, good.transactions.assign(amount=amounts)))
    assert report.passed is passes
    if not passes:
        assert report.failed[0].name == "amount outliers"
        assert report.failed[0].value == pytest.approx(share)
        assert report.failed[0].rows == ids(good, *range(10))


def test_equal_amounts_are_no_outliers(good: Dataset) -> None:
    assert validate(with_rows(good, good.transactions.assign(amount=9.99))).passed


def test_an_empty_set_and_one_without_columns_are_not_fit(good: Dataset) -> None:
    assert only_failure(with_rows(good, good.transactions.head(0))).name == "rows"
    assert "card_id" in only_failure(with_rows(good, good.transactions.drop(columns="card_id"))).way_out


def test_require_raises_with_gate_value_rule_rows_and_way_out(good: Dataset) -> None:
    report = validate(planted(good, "amount", {4: -4.0}))
    with pytest.raises(DataQualityError) as caught:
        require(report)
    message = str(caught.value)
    assert "Gate 'schema: amount must be > 0': value is 1; must be 0 rows." in message
    assert f"Transactions: {ids(good, 4)[0]}." in message
    assert "Correct these rows or take them out." in message
    assert caught.value.report is report


def test_the_command_passes_good_data_and_exits_with_1_on_bad(
    good: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dataset", "synthetic", "--rows", "2000"]) == 0
    assert "passed" in capsys.readouterr().out
    path = tmp_path / "honest.parquet"
    good.transactions.assign(is_fraud=0).to_parquet(path)
    assert main(["--dataset", str(path)]) == 1
    assert "Gate 'fraud rate': value is 0; must be from 0.001 to 0.05" in capsys.readouterr().err


def test_the_command_says_why_a_data_set_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dataset", "nothing"]) == 1
    assert "no such name" in capsys.readouterr().err
