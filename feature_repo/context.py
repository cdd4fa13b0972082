"""Features of the transaction itself, alone or against the card's history and profile. Vectorised over rows.

Each function takes columns (lists from Feast's online path, Arrow or numpy from the offline one) and gives float64
arrays, null as NaN. Ratios against a history that isn't there are null, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.schema import CHANNELS, MERCHANT_CATEGORIES
from feature_repo.window_state import Floats, finish, to_list
from feature_repo.windows import DAY, HOUR, WindowedFeature, label, loads

Columns = Mapping[str, Any]

AT = "timestamp_us"
"""The request's event time, integer microseconds since 1970-01-01 UTC (Feast's own timestamps stop at seconds)."""

NIGHT_UNTIL = 6
"""Hours 0 to 6 are night (UTC), as in the Fraud Detection Handbook."""

_CATEGORIES = pa.array(MERCHANT_CATEGORIES)
_CHANNELS = pa.array(CHANNELS)
_YEAR = 365.25 * DAY


def request_context(columns: Columns) -> dict[str, Floats]:
    """What the payment says of itself: size, time of day, category and channel as codes (null where unknown)."""
    at = np.asarray(columns[AT], np.int64)
    amount = number(columns["amount"])
    hour = (at // HOUR) % 24
    weekday = (at // DAY + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    return {
        "amount": amount,
        "amount_log": np.log1p(amount),
        "hour": hour.astype(np.float64),
        "is_night": (hour <= NIGHT_UNTIL).astype(np.float64),
        "is_weekend": (weekday >= 5).astype(np.float64),
        "category_code": _code(columns["merchant_category"], _CATEGORIES, other=len(MERCHANT_CATEGORIES) - 1),
        "channel_code": _code(columns["channel"], _CHANNELS, other=None),
    }


def card_spending(columns: Columns, spec_text: str, state_column: str) -> dict[str, Floats]:
    """The amount against what this card has spent per payment before: ratio to its mean and maximum, z-score."""
    spec = loads(spec_text)
    found = finish(spec, columns[state_column], np.asarray(columns[AT], np.int64))
    longest = spec.windows[-1]
    mean, std, largest = (
        found[WindowedFeature(function, "amount", longest).name(spec.entity)] for function in ("mean", "std", "max")
    )
    amount = number(columns["amount"])
    return {
        f"card_amount_to_mean_{label(longest)}": _ratio(amount, mean),
        f"card_amount_to_max_{label(longest)}": _ratio(amount, largest),
        f"card_amount_zscore_{label(longest)}": _ratio(amount - mean, std),
    }


def card_context(columns: Columns, profile: str) -> dict[str, Floats]:
    """The payment against the card's daily profile: abroad, ages, and the amount against 90 days of spending."""
    at = np.asarray(columns[AT], np.int64)
    amount = number(columns["amount"])
    opened = number(columns[f"{profile}__account_opened_us"])
    year = 1970.0 + at / _YEAR
    mean, std = number(columns[f"{profile}__amount_mean_90d"]), number(columns[f"{profile}__amount_std_90d"])
    return {
        "card_is_international": _differs(columns["country"], columns[f"{profile}__home_country"]),
        "card_account_age_days": (at - opened) / DAY,
        "card_holder_age_years": np.floor(year) - number(columns[f"{profile}__birth_year"]),
        "card_count_90d": number(columns[f"{profile}__count_90d"]),
        "card_amount_mean_90d": mean,
        "card_amount_to_mean_90d": _ratio(amount, mean),
        "card_amount_zscore_90d": _ratio(amount - mean, std),
    }


def as_given(columns: Columns, function: Callable[..., dict[str, Floats]], *arguments: str) -> dict[str, Any]:
    """Run a function of this module for Feast: lists in give lists out, with None for null."""
    features = function(columns, *arguments)
    if isinstance(columns[AT], list):
        return {name: to_list(column) for name, column in features.items()}
    return dict(features)


def number(column: Any) -> Floats:
    """A column of numbers as float64, null as NaN."""
    if isinstance(column, pa.Array | pa.ChunkedArray):
        return np.asarray(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    return np.array([np.nan if value is None else value for value in column], np.float64)


def _text(column: Any) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return pc.cast(column, pa.string()) if isinstance(column, pa.Array) else pa.array(column, pa.string())


def _code(column: Any, vocabulary: pa.Array, other: int | None) -> Floats:
    text = _text(column)
    codes = pc.cast(pc.index_in(text, value_set=vocabulary), pa.float64())
    if other is not None:
        codes = pc.if_else(pc.is_valid(text), pc.fill_null(codes, float(other)), None)
    return number(codes)


def _differs(left: Any, right: Any) -> Floats:
    return number(pc.cast(pc.not_equal(_text(left), _text(right)), pa.int8()))


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, part / whole, np.nan)
