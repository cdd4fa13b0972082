"""Two samples of the same columns made comparable: which columns are tested, as what kind, and from which distance on.

Invariant: a threshold is never below what sampling noise alone reaches at these row counts in about 1 of 1,000 columns,
so that a small sample does not raise an alarm by being small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pandas as pd
from pandas.api import types

DISCRETE_UP_TO = 32
"""Numbers with no more distinct values than this (flags, hours, codes) are compared as categories."""
CATEGORIES_UP_TO = 100
NUMERICAL_FROM = 0.1
"""Distance that matters, for numbers: Wasserstein, in standard deviations of the reference (Evidently's default)."""
CATEGORICAL_FROM = 0.05
"""Distance that matters, for categories: Jensen-Shannon; a share going from 10 % to 15 % is 0.05, to 20 % 0.10."""


@dataclass
class Comparison:
    """Both sides with the columns to test, their kind, and the threshold of each; the rest is in `left_out`."""

    reference: dict[str, pd.Series] = field(default_factory=dict)
    current: dict[str, pd.Series] = field(default_factory=dict)
    numerical: list[str] = field(default_factory=list)
    categorical: list[str] = field(default_factory=list)
    thresholds: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def compare(reference: pd.DataFrame, current: pd.DataFrame) -> Comparison:
    """Decide on every column of either side. Left out are columns of one side only, instants and free text."""
    result = Comparison()
    for column in dict.fromkeys([*reference.columns, *current.columns]):
        if column not in reference or column not in current:
            side = "current" if column not in current else "reference"
            result.left_out[column] = f"not in the {side} side"
            continue
        _decide(result, column, _finite(reference[column]), _finite(current[column]))
    return result


def _decide(result: Comparison, name: str, before: pd.Series, after: pd.Series) -> None:
    if before.isna().all() and after.isna().all():
        result.left_out[name] = "null on both sides"
        return
    if before.isna().any() or after.isna().any():
        _add_categories(result, f"{name} is null", before.isna(), after.isna())
    if before.isna().all() or after.isna().all():
        side = "reference" if before.isna().all() else "current"
        result.left_out[name] = f"null throughout the {side} side; see '{name} is null'"
        return
    distinct = pd.concat([before, after]).nunique()
    if types.is_datetime64_any_dtype(before):
        result.left_out[name] = "an instant moves by nature"
    elif types.is_numeric_dtype(before) and not types.is_bool_dtype(before) and distinct > DISCRETE_UP_TO:
        _add_numbers(result, name, before, after)
    elif distinct > CATEGORIES_UP_TO:
        result.left_out[name] = f"{distinct} different values, more than {CATEGORIES_UP_TO}"
    else:
        _add_categories(result, name, before, after)


def _finite(values: pd.Series) -> pd.Series:
    return values.replace([math.inf, -math.inf], math.nan) if types.is_float_dtype(values) else values


def _add_numbers(result: Comparison, name: str, before: pd.Series, after: pd.Series) -> None:
    result.reference[name], result.current[name] = before.astype("float64"), after.astype("float64")
    result.numerical.append(name)
    result.thresholds[name] = max(NUMERICAL_FROM, numerical_noise(before.count(), after.count()))


def _add_categories(result: Comparison, name: str, before: pd.Series, after: pd.Series) -> None:
    result.reference[name], result.current[name] = _as_text(before), _as_text(after)
    result.categorical.append(name)
    distinct = int(pd.concat([before, after]).nunique())
    result.thresholds[name] = max(CATEGORICAL_FROM, categorical_noise(distinct, before.count(), after.count()))


def _as_text(values: pd.Series) -> pd.Series:
    def text(value: object) -> str:
        return f"{value:g}" if isinstance(value, float) else str(value)

    return values.astype("object").map(text, na_action="ignore")


def numerical_noise(before: int, after: int) -> float:
    """What the normed Wasserstein distance of two samples of one distribution stays below.

    It shrinks with the root of the effective row count. The factor is measured: over normal, uniform, bimodal,
    exponential, log-normal and Pareto samples the 99th percentile lies between 2.3 and 3.6.
    """
    return 4.0 * math.sqrt(1 / before + 1 / after)


def categorical_noise(categories: int, before: int, after: int) -> float:
    """What the Jensen-Shannon distance of two samples of one distribution stays below.

    8 n JS^2 follows a chi-squared distribution with one degree less than there are categories, n the effective rows
    (Lin 1991; Grosse et al. 2002); its upper end is taken by the Laurent-Massart bound at 1 in 1,000.
    """
    degrees = max(categories - 1, 1)
    tail = math.log(1_000)
    return math.sqrt((degrees + 2 * math.sqrt(degrees * tail) + 2 * tail) / 8 * (1 / before + 1 / after))
