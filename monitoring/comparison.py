"""Two samples of the same columns made comparable: which columns are tested, as what kind, and from which distance on.

Invariant: a threshold is never below what chance alone reaches at these row counts, in this column, in about one of
`1 / ALARMS` whole comparisons; so neither a small sample nor a heavy tail raises an alarm by being what it is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from monitoring.drift_distance import Scale, category_noise, numeric_noise, share_distance

DISCRETE_UP_TO = 32
"""Numbers with no more distinct values than this (flags, hours, codes) are compared as categories."""
CATEGORIES_UP_TO = 100
NUMERICAL_FROM = 0.1
"""Distance that matters, for numbers: Wasserstein's on normal scores, in standard deviations (Evidently's default)."""
CATEGORICAL_FROM = 0.05
"""Distance that matters, for categories: Jensen-Shannon; a share going from 10 % to 15 % is 0.05, to 20 % 0.10."""
RARE_FROM = 0.02
"""Likewise for decisions and labels, of which all but the rare ones are alike: from 0.5 % to 1 % is 0.02."""
ALARMS = 0.01
"""Share of comparisons of one and the same distribution in which any column at all may be called drifted."""

Sides = pd.DataFrame | Mapping[str, pd.Series]


@dataclass
class Comparison:
    """Both sides with the columns to test, their kind, and the threshold of each; the rest is in `left_out`."""

    reference: dict[str, pd.Series] = field(default_factory=dict)
    current: dict[str, pd.Series] = field(default_factory=dict)
    numerical: list[str] = field(default_factory=list)
    categorical: list[str] = field(default_factory=list)
    thresholds: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    scales: dict[str, Scale] = field(default_factory=dict)
    """Those of the references of numbers, as far as they were needed."""

    def scale(self, name: str) -> Scale:
        """The normal scores of a numerical column's reference."""
        if name not in self.scales:
            self.scales[name] = Scale.of(self.reference[name].dropna().to_numpy())
        return self.scales[name]


def compare(
    reference: Sides, current: Sides, *, partial: Collection[str] = (), rare: Collection[str] = ()
) -> Comparison:
    """Decide on every column of either side, and from which distance on it is drifted.

    A column with nulls is tested twice: its values, and its null share as `<name> is null`. In a column of `partial` a
    null says that the row is no part of its sample; one of `rare` is drifted from `RARE_FROM` on.
    """
    result = beside(reference, current, partial=partial)
    for name in [*result.numerical, *result.categorical]:
        result.thresholds[name] = _threshold(result, name, name in rare)
    return result


def beside(reference: Sides, current: Sides, *, partial: Collection[str] = ()) -> Comparison:
    """As `compare`, without the thresholds. Left out are columns of one side only, instants and free text."""
    result = Comparison()
    for column in dict.fromkeys([*reference, *current]):
        if column not in reference or column not in current:
            side = "current" if column not in current else "reference"
            result.left_out[column] = f"not in the {side} side"
            continue
        before, after = _finite(reference[column]), _finite(current[column])
        if column in partial:
            before, after = before.dropna(), after.dropna()
            if before.empty or after.empty:
                result.left_out[column] = f"no row on the {'reference' if before.empty else 'current'} side"
                continue
        _decide(result, column, before, after)
    return result


def distance(made: Comparison, name: str) -> float:
    """How far the current side of a column is from its reference: normal scores for numbers, else Jensen-Shannon."""
    before, after = made.reference[name].dropna(), made.current[name].dropna()
    if name in made.numerical:
        return made.scale(name).distance(after.to_numpy())
    shares = pd.concat([side.value_counts(normalize=True) for side in (before, after)], axis=1).fillna(0.0)
    return share_distance(shares.iloc[:, 0], shares.iloc[:, 1])


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
        result.reference[name], result.current[name] = before.astype("float64"), after.astype("float64")
        result.numerical.append(name)
    elif distinct > CATEGORIES_UP_TO:
        result.left_out[name] = f"{distinct} different values, more than {CATEGORIES_UP_TO}"
    else:
        _add_categories(result, name, before, after)


def _finite(values: pd.Series) -> pd.Series:
    return values.replace([math.inf, -math.inf], math.nan) if types.is_float_dtype(values) else values


def _add_categories(result: Comparison, name: str, before: pd.Series, after: pd.Series) -> None:
    result.reference[name], result.current[name] = _as_text(before), _as_text(after)
    result.categorical.append(name)


def _as_text(values: pd.Series) -> pd.Series:
    def text(value: Any) -> str:
        return f"{value:g}" if isinstance(value, float) else str(value)

    codes, found = pd.factorize(values)  # few values, many rows; a null has the code -1
    names = np.array([*(text(value) for value in found.tolist()), None], dtype=object)
    return pd.Series(names[codes], values.index, dtype=object)


def _threshold(made: Comparison, name: str, rare: bool) -> float:
    """The distance that matters, or what chance reaches where that is more; the alarms are shared by all columns."""
    before, after = made.reference[name].dropna(), made.current[name].dropna()
    alarms = ALARMS / (len(made.numerical) + len(made.categorical))
    if name in made.numerical:
        return max(NUMERICAL_FROM, numeric_noise(made.scale(name), len(before), len(after), alarms))
    counts = before.value_counts()
    new = after[~after.isin(counts.index)].nunique()
    seen = np.append(counts.to_numpy(np.float64), np.zeros(new)) + 0.5  # what is only seen now was possible before
    noise = category_noise(seen / seen.sum(), len(before), len(after), alarms)
    return max(RARE_FROM if rare else CATEGORICAL_FROM, noise)
