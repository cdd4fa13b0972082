"""Features of the transaction itself, alone or against the card's history and profile. Vectorised over rows.

Each function takes columns (lists from Feast's online path, Arrow or numpy from the offline one) and gives float64
arrays, null as NaN. Ratios against a history that isn't there are null, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.context_kernels import against_earlier, counted_before
from feature_repo.schema import CHANNELS, MERCHANT_CATEGORIES
from feature_repo.window_state import Floats, finish, to_list
from feature_repo.windows import DAY, HOUR, WindowedFeature, label, loads

Columns = Mapping[str, Any]

AT = "timestamp_us"
"""The request's event time, integer microseconds since 1970-01-01 UTC (Feast's own timestamps stop at seconds)."""

NIGHT_UNTIL = 6
"""Hours 0 to 6 are night (UTC), as in the Fraud Detection Handbook."""

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
        "category_code": _code(columns["merchant_category"], MERCHANT_CATEGORIES, other=len(MERCHANT_CATEGORIES) - 1),
        "channel_code": _code(columns["channel"], CHANNELS, other=None),
    }


def card_spending(columns: Columns, spec_text: str, state_column: str) -> dict[str, Floats]:
    """The amount against what this card has spent per payment before: ratio to its mean and maximum, z-score."""
    spec = loads(spec_text)
    found = finish(spec, columns[state_column], np.asarray(columns[AT], np.int64))
    inputs, names = _spending(spec_text)
    mean, std, largest = (found[name] for name in inputs)
    amount = number(columns["amount"])
    given = (_ratio(amount, mean), _ratio(amount, largest), _ratio(amount - mean, std))
    return dict(zip(names, given, strict=True))


@cache
def _spending(spec_text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What `card_spending` reads of the longest window, and what it gives."""
    spec = loads(spec_text)
    longest = spec.windows[-1]
    inputs = tuple(WindowedFeature(f, "amount", longest).name(spec.entity) for f in ("mean", "std", "max"))
    return inputs, tuple(f"card_amount_{what}_{label(longest)}" for what in ("to_mean", "to_max", "zscore"))


def card_change(columns: Columns, spec_text: str, state_column: str) -> dict[str, Floats]:
    """The amount, and the last days, against what the card spent per payment earlier.

    Earlier is the longest window without the next shorter one: what a thief has spent in the last days is not in it,
    so that it doesn't pass for the card's habit.
    """
    spec = loads(spec_text)
    found = finish(spec, columns[state_column], np.asarray(columns[AT], np.int64))
    inputs, names = _change(spec_text)
    given = against_earlier(number(columns["amount"]), *(found[name] for name in inputs))
    return dict(zip(names, given, strict=True))


@cache
def _change(spec_text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What `card_change` reads of the longest window and of the next shorter one, and what it gives."""
    spec = loads(spec_text)
    shorter, longest = spec.windows[-2:]
    parts = (("count", ""), ("mean", "amount"), ("std", "amount"))
    read = [WindowedFeature(f, c, w) for w in (longest, shorter) for f, c in parts]
    read.append(WindowedFeature("max", "amount", shorter))
    lately, earlier = label(shorter), f"{label(longest)}_before_{label(shorter)}"
    ratios = [f"amount_to_mean_{earlier}", f"amount_zscore_{earlier}"]
    ratios += [f"{function}_amount_{lately}_to_{earlier}" for function in ("mean", "max")]
    return tuple(feature.name(spec.entity) for feature in read), tuple(f"{spec.entity}_{name}" for name in ratios)


def merchant_past_fraud(columns: Columns, spec_text: str, state_column: str) -> dict[str, Floats]:
    """Known frauds at the merchant that lie in the longest window but not in the next shorter one: is it over yet?"""
    spec = loads(spec_text)
    found = finish(spec, columns[state_column], np.asarray(columns[AT], np.int64))
    inputs, name = _past_fraud(spec_text)
    return {name: counted_before(*(found[given] for given in inputs))}


@cache
def _past_fraud(spec_text: str) -> tuple[tuple[str, ...], str]:
    spec = loads(spec_text)
    shorter, longest = spec.windows[-2:]
    inputs = [
        WindowedFeature(f, "is_fraud", w).name(spec.entity) for w in (longest, shorter) for f in ("count", "mean")
    ]
    return tuple(inputs), f"{spec.entity}_frauds_{label(longest)}_before_{label(shorter)}"


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
    if isinstance(column, np.ndarray):
        return column.astype(np.float64, copy=False)
    if isinstance(column, pa.Array | pa.ChunkedArray):
        return np.asarray(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    return np.array([np.nan if value is None else value for value in column], np.float64)


def _text(column: Any) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return pc.cast(column, pa.string()) if isinstance(column, pa.Array) else pa.array(column, pa.string())


@cache
def _places(vocabulary: tuple[str, ...]) -> dict[str, float]:
    return {value: float(place) for place, value in enumerate(vocabulary)}


def _code(column: Any, vocabulary: tuple[str, ...], other: int | None) -> Floats:
    if isinstance(column, list):  # a few payments: a look-up each is cheaper than an Arrow array of them
        places = _places(vocabulary)
        unknown = np.nan if other is None else float(other)
        return np.array([np.nan if value is None else places.get(value, unknown) for value in column], np.float64)
    text = _text(column)
    codes = pc.cast(pc.index_in(text, value_set=pa.array(vocabulary)), pa.float64())
    if other is not None:
        codes = pc.if_else(pc.is_valid(text), pc.fill_null(codes, float(other)), None)
    return number(codes)


def _differs(left: Any, right: Any) -> Floats:
    if isinstance(left, list) and isinstance(right, list):
        pairs = zip(left, right, strict=True)
        return np.array([np.nan if a is None or b is None else float(a != b) for a, b in pairs], np.float64)
    return number(pc.cast(pc.not_equal(_text(left), _text(right)), pa.int8()))


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    given: Floats = np.full(len(whole), np.nan)
    return np.divide(part, whole, out=given, where=whole > 0)
