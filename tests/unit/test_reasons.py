"""The reasons of a decision: which columns are named, in which order, and how each of the model's columns is put."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from bentos.reasons import Reason, Reasons
from bentos.wordings import CODES, wording
from feature_repo import definitions
from feature_repo.schema import CHANNELS, MERCHANT_CATEGORIES
from feature_repo.vector import columns

COLUMNS = columns(definitions.fraud_v2)
FALLBACK = columns(definitions.fraud_request_v1)
FEW = ("amount", "card_count_1h", "card_count_24h", "merchant_mean_is_fraud_7d", "channel_code")


def given(
    contributions: list[float], *, adverse: bool = True, values: list[float] | None = None, top: int = 3
) -> list[Reason]:
    """The reasons of one payment with these contributions and values of `FEW`."""
    vectors = np.array([values or [1.0] * len(FEW)], np.float32)
    (reasons,) = Reasons.of(FEW).give(np.array([contributions]), vectors, [adverse], top)
    return reasons


def told(column: str, value: float) -> str:
    return wording(column, COLUMNS).text(value)


def features(reasons: list[Reason]) -> list[str]:
    return [reason.feature for reason in reasons]


def test_a_decision_against_the_payment_is_given_what_points_towards_fraud_strongest_first():
    assert features(given([0.1, 0.5, 0.0, -9.0, 0.3])) == ["card_count_1h", "channel_code", "amount"]


def test_an_approval_is_given_what_weighed_most_either_way():
    reasons = given([0.1, 0.5, 0.0, -9.0, 0.3], adverse=False)
    assert features(reasons) == ["merchant_mean_is_fraud_7d", "card_count_1h", "channel_code"]
    assert [reason.contribution for reason in reasons] == [-9.0, 0.5, 0.3]


def test_a_code_is_named_once_by_its_strongest_column():
    reasons = given([0.1, 0.4, 0.5, -1.0, 0.0])
    assert features(reasons) == ["card_count_24h", "amount"]
    assert [reason.code for reason in reasons] == ["CARD_VELOCITY", "AMOUNT"]


def test_what_contributes_nothing_is_no_reason():
    assert given([0.0] * len(FEW)) == given([0.0] * len(FEW), adverse=False) == []


def test_of_equal_contributions_the_model_s_first_column_comes_first():
    assert features(given([0.2, 0.2, 0.2, 0.2, 0.2])) == ["amount", "card_count_1h", "merchant_mean_is_fraud_7d"]


def test_no_more_reasons_are_given_than_asked_for():
    assert features(given([0.1, 0.5, 0.4, 0.3, 0.2], top=1)) == ["card_count_1h"]
    assert len(given([0.1, 0.5, 0.4, 0.3, 0.2], top=9)) == 4, "two columns have one code"


def test_a_reason_is_rounded_and_encodes_as_the_answer_says_it():
    (reason,) = given([0.0, 0.123456, 0.0, 0.0, 0.0], values=[1, 12, 20, 0, 0])
    assert msgspec.json.encode(reason) == (
        b'{"code":"CARD_VELOCITY","feature":"card_count_1h","contribution":0.1235,'
        b'"text":"12 payments with this card in the last hour"}'
    )


def test_a_row_s_reasons_do_not_depend_on_the_rows_beside_it():
    rng = np.random.default_rng(1)
    contributions, vectors = (
        rng.normal(size=(40, len(COLUMNS))),
        rng.normal(5, 2, (40, len(COLUMNS))).astype(np.float32),
    )
    vectors[rng.random(vectors.shape) < 0.2] = np.nan
    adverse = (rng.random(40) < 0.5).tolist()
    reasons = Reasons.of(COLUMNS)
    together = reasons.give(contributions, vectors, adverse)
    alone = [reasons.give(contributions[i : i + 1], vectors[i : i + 1], adverse[i : i + 1])[0] for i in range(40)]
    assert together == alone
    assert all(len(each) == 3 for each in together)


def test_no_rows_have_no_reasons():
    assert Reasons.of(FEW).give(np.empty((0, len(FEW))), np.empty((0, len(FEW)), np.float32), []) == []


@pytest.mark.parametrize("ordered", [COLUMNS, FALLBACK])
def test_every_column_of_the_model_has_a_code_of_the_catalogue(ordered: tuple[str, ...]):
    assert {
        column: wording(column, ordered).code for column in ordered if wording(column, ordered).code not in CODES
    } == {}


def test_every_code_but_those_of_sums_is_used_by_the_model():
    assert set(CODES) - {wording(column, COLUMNS).code for column in COLUMNS} == {"MERCHANT_SPENDING"}


def texts(value: float) -> Iterator[tuple[str, str]]:
    for column in COLUMNS:
        yield column, told(column, value)


def test_no_text_is_a_column_s_name_or_shows_a_missing_value_as_a_number():
    for column, text in texts(math.nan):
        assert not re.search(r"nan|_", text), column
        assert re.search(r"\bno\b|too few|unknown", text), column


@pytest.mark.parametrize("value", [-1e30, -3.0, -0.0, 0.0, 0.4, 1.0, 2.0, 12.0, 1e30, math.inf, -math.inf])
def test_no_value_is_without_words(value: float):
    for column, text in texts(value):
        assert len(text) > 8, column


def test_columns_of_different_value_are_told_apart():
    windowed = [column for column in COLUMNS if re.search(r"_\d+[mhd]$", column) and not column.endswith("_90d")]
    assert len({told(column, 3.0) for column in windowed}) == len(windowed)


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("amount", 1234.5, "amount is 1,234.50"),
        ("amount", 123456.78, "amount is 123,457"),
        ("hour", 2, "payment at night (02 h UTC)"),
        ("hour", 6, "payment at night (06 h UTC)"),
        ("hour", 7, "payment by day (07 h UTC)"),
        ("is_weekend", 1, "payment at the weekend (UTC)"),
        ("is_weekend", 0, "payment on a working day (UTC)"),
        ("category_code", MERCHANT_CATEGORIES.index("gas_transport"), "merchant category is gas transport"),
        ("channel_code", CHANNELS.index("atm"), "channel is atm"),
        ("channel_code", math.nan, "channel unknown"),
        ("card_count_5m", 1, "1 payment with this card in the last 5 minutes"),
        ("card_count_1h", 12, "12 payments with this card in the last hour"),
        ("card_count_24h", 0, "no payment with this card in the last 24 hours"),
        ("card_count_90d", 40, "40 payments with this card in the last 90 days"),
        ("card_sum_amount_1h", 450, "450.00 spent with this card in the last hour"),
        ("card_mean_amount_7d", math.nan, "no payment with this card in the last 7 days"),
        ("card_amount_mean_90d", 20.5, "payments with this card in the last 90 days were 20.50 on average"),
        ("card_std_amount_30d", 3, "amounts with this card in the last 30 days varied by 3.00"),
        ("card_max_amount_24h", 99.9, "largest payment with this card in the last 24 hours was 99.90"),
        ("card_nunique_merchant_id_1h", 3, "3 different merchants paid with this card in the last hour"),
        ("card_seconds_since_last", 40, "40 seconds since the previous payment with this card"),
        ("card_seconds_since_last", 7_300, "2 hours since the previous payment with this card"),
        ("card_seconds_since_last", math.nan, "no earlier payment with this card known"),
        ("card_amount_to_mean_30d", 8.3, "amount is 8.3 times the card's usual in the last 30 days"),
        ("card_amount_to_max_30d", 2, "amount is 2.0 times the card's largest in the last 30 days"),
        (
            "card_amount_zscore_90d",
            -1.26,
            "amount is 1.3 standard deviations below the card's mean in the last 90 days",
        ),
        ("merchant_count_1h", 1, "1 payment at this merchant in the last hour"),
        ("merchant_nunique_card_id_24h", 1, "1 different card used at this merchant in the last 24 hours"),
        (
            "merchant_mean_is_fraud_7d",
            0.14,
            "14 % fraud among this merchant's payments whose labels became known in the last 7 days",
        ),
        ("merchant_count_is_fraud_24h", 1, "1 label of this merchant's payments became known in the last 24 hours"),
        ("card_is_international", 1, "payment outside the card's home country"),
        ("card_is_international", 0, "payment in the card's home country"),
        ("card_account_age_days", 12.3, "account is 12 days old"),
        ("card_account_age_days", 0.2, "account is less than a day old"),
        ("card_holder_age_years", 67, "card holder is 67 years old"),
    ],
)
def test_a_feature_is_put_in_words(column: str, value: float, text: str):
    assert told(column, value) == text


def test_what_is_derived_from_a_column_is_told_by_that_column_s_value():
    vectors = np.zeros((1, len(COLUMNS)), np.float32)
    vectors[0, COLUMNS.index("amount")], vectors[0, COLUMNS.index("hour")] = 250, 3
    contributions = np.zeros(vectors.shape)
    contributions[0, [COLUMNS.index("amount_log"), COLUMNS.index("is_night")]] = 2, 1
    (reasons,) = Reasons.of(COLUMNS).give(contributions, vectors, [True])
    assert [(reason.feature, reason.text) for reason in reasons] == [
        ("amount_log", "amount is 250.00"),
        ("is_night", "payment at night (03 h UTC)"),
    ]


def test_a_column_of_an_unknown_kind_speaks_for_itself():
    unknown = wording("terminal_age", ["terminal_age"])
    assert (unknown.code, unknown.text(2.5)) == ("TERMINAL_AGE", "terminal_age is 2.5")
    alone = wording("amount_log", ["amount_log"])
    assert (alone.code, alone.reads, alone.text(math.nan)) == ("AMOUNT", "amount_log", "amount_log is unknown")
