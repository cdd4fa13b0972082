"""Features of the payment against its card's and merchant's past are what their definition says, by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import definitions
from feature_repo.context import AT, card_change, merchant_past_fraud
from feature_repo.window_state import Events, to_us, update
from feature_repo.windows import WindowSpec

NOW = to_us(datetime(2026, 3, 31, 12, 0, tzinfo=UTC))
DAY = timedelta(days=1) // timedelta(microseconds=1)
CARD, RISK = definitions.card_spec, definitions.risk_spec
TO_MEAN, ZSCORE = "card_amount_to_mean_30d_before_7d", "card_amount_zscore_30d_before_7d"
MEAN, MOST = "card_mean_amount_7d_to_30d_before_7d", "card_max_amount_7d_to_30d_before_7d"
PAST = "merchant_frauds_30d_before_21d"


def state(spec: WindowSpec, events: list[tuple[float, float]]) -> bytes:
    """Events as (days ago, value)."""
    at = np.array([NOW - round(days * DAY) for days, _ in events], np.int64)
    ids = np.arange(1, len(events) + 1)
    values = np.array([[value for _, value in events]])
    distinct = np.ones((len(spec.distinct), len(events)), np.int64)
    return update(spec, None, Events(at, ids, values, distinct, at)).state


def change(events: list[tuple[float, float]], amount: float) -> dict[str, float]:
    columns = {AT: [NOW], "amount": [amount], "s": [state(CARD, events) if events else None]}
    return {name: float(column[0]) for name, column in card_change(columns, CARD.dumps(), "s").items()}


def past(events: list[tuple[float, float]]) -> float:
    columns = {AT: [NOW], "s": [state(RISK, events) if events else None]}
    return float(merchant_past_fraud(columns, RISK.dumps(), "s")[PAST][0])


def test_the_card_s_earlier_payments_are_those_before_the_last_week():
    found = change([(20, 10.0), (15, 30.0), (10, 20.0), (3, 100.0), (1, 300.0)], 60.0)
    assert found[TO_MEAN] == pytest.approx(60 / 20)
    assert found[ZSCORE] == pytest.approx((60 - 20) / 10)
    assert found[MEAN] == pytest.approx(200 / 20)
    assert found[MOST] == pytest.approx(300 / 20)


@pytest.mark.parametrize("events", [[], [(3, 10.0)], [(40, 10.0)]])
def test_without_an_earlier_payment_nothing_is_known(events: list[tuple[float, float]]):
    assert all(np.isnan(value) for value in change(events, 60.0).values())


def test_one_earlier_payment_has_a_mean_and_no_spread_and_a_quiet_week_no_ratio():
    found = change([(20, 10.0)], 60.0)
    assert found[TO_MEAN] == pytest.approx(6.0)
    assert np.isnan([found[ZSCORE], found[MEAN], found[MOST]]).all()


def test_equal_amounts_have_no_spread_whatever_was_spent_lately():
    assert np.isnan(change([(20, 10.1), (19, 10.1), (18, 10.1), (1, 9_999.9)], 60.0)[ZSCORE])


amounts = st.floats(0.01, 10_000, allow_nan=False)
past_days = st.integers(9, 28)  # clear of the windows' edges, which are rounded


@given(
    st.lists(st.tuples(past_days, amounts), min_size=3, max_size=12, unique_by=lambda event: event[0]),
    st.lists(st.tuples(st.integers(1, 5), amounts), max_size=5, unique_by=lambda event: event[0]),
    amounts,
)
def test_what_was_spent_lately_does_not_change_what_was_spent_earlier(
    earlier: list[tuple[float, float]], lately: list[tuple[float, float]], amount: float
):
    values = np.array([value for _, value in earlier])
    found = change([*earlier, *lately], amount)
    assert found[TO_MEAN] == pytest.approx(amount / values.mean(), rel=1e-6)
    if values.std() > 0.01 * max(v for _, v in [*earlier, *lately]):
        assert found[ZSCORE] == pytest.approx((amount - values.mean()) / values.std(ddof=1), rel=1e-4, abs=1e-6)


def test_past_frauds_are_those_known_long_ago():
    assert past([(29, 1.0), (25, 1.0), (24, 0.0), (20, 1.0), (1, 1.0)]) == 2.0
    assert past([(20, 1.0), (1, 1.0)]) == 0.0
    assert past([(40, 1.0)]) == 0.0
    assert past([]) == 0.0


def test_the_first_version_s_columns_are_among_the_second_s_in_their_order():
    first, second = ([f.name for p in s.feature_view_projections for f in p.features] for s in SERVICES)
    assert len(first) == 63
    assert [name for name in second if name in first] == first
    assert {TO_MEAN, ZSCORE, MEAN, MOST, PAST} <= set(second) - set(first)


SERVICES = (definitions.fraud_v1, definitions.fraud_v2)
