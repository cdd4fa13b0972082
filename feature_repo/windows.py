"""What a windowed feature means: its window, its boundaries, its name. Pure; everything else computes from this.

A window of length w at instant T covers [T - w, T): an event at T - w counts, an event at T does not. Windows up to
24 h are exact to the event. The far edge of a longer one is rounded down to a multiple (from the epoch) of its tile,
the largest step of `TILES` that is at most w/60: 2 h for 7 d, 12 h for 30 d, 24 h for 90 d.

All instants and durations are integers in microseconds, instants since 1970-01-01 UTC.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, lru_cache
from typing import Any

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

EXACT_UP_TO = DAY
# Each step divides the next, so that of two windows the longer never has the nearer edge.
TILES = (MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 12 * HOUR, DAY)

STATE_SLACK = HOUR
"""How far behind an entity's latest event a question may lie and still be answered exactly."""

EVENT_ID_TAG = "event_id"
"""The tag of a windowed view that names its events' identifying column."""

VALUE_STATISTICS = ("count", "sum", "mean", "std", "min", "max")
"""Functions of a numeric column. `count` of a column counts its values; without a column it counts events."""

FUNCTIONS = (*VALUE_STATISTICS, "nunique", "seconds_since_last")
ALIASES = {"count_distinct": "nunique"}


class UnsupportedAggregation(ValueError):
    """An aggregation that the window engine cannot execute; raised when a view is declared or read."""


def microseconds(duration: timedelta) -> int:
    """A duration in microseconds."""
    return duration // timedelta(microseconds=1)


def label(window: int) -> str:
    """The window's name: `5m`, `1h`, `24h`, `7d`.

    >>> [label(w) for w in (90 * SECOND, 5 * MINUTE, HOUR, DAY, 36 * HOUR, 7 * DAY)]
    ['90s', '5m', '1h', '24h', '36h', '7d']
    """
    for unit, letter in ((DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s")):
        if window % unit == 0 and (letter != "d" or window > DAY):
            return f"{window // unit}{letter}"
    return f"{window}us"


def tile(window: int) -> int:
    """The step to which a window's far edge is rounded; 0 where the window is exact.

    >>> [tile(w) // HOUR for w in (DAY, 7 * DAY, 30 * DAY, 90 * DAY)]
    [0, 2, 12, 24]
    """
    if window <= EXACT_UP_TO:
        return 0
    return max(step for step in TILES if step * 60 <= window)


def far_edge(window: int, at: int) -> int:
    """The first instant inside the window that ends at `at`."""
    step = tile(window)
    start = at - window
    return start - start % step if step else start


@dataclass(frozen=True, order=True)
class WindowedFeature:
    """One feature: a function over a column of one window. `window` is 0 where the function has none."""

    function: str
    column: str
    window: int

    def name(self, entity: str) -> str:
        """The feature's name, `{entity}_{function}[_{column}]_{window}`."""
        parts = [entity, self.function, self.column, label(self.window) if self.window else ""]
        return "_".join(part for part in parts if part)


@dataclass(frozen=True)
class WindowSpec:
    """Everything the engine needs to know of one windowed view, whatever the view is about.

    `event_id` names the column that tells an event from another, so that one counts once however often it is delivered.
    `values` are the numeric columns, `distinct` those whose different values are counted, `features` in the order in
    which they were declared.
    """

    entity: str
    join_key: str
    event_id: str
    features: tuple[WindowedFeature, ...]

    @cached_property
    def windows(self) -> tuple[int, ...]:
        """The different windows, shortest first."""
        return tuple(sorted({f.window for f in self.features if f.window}))

    @cached_property
    def values(self) -> tuple[str, ...]:
        """Numeric columns, in the order of first use."""
        return tuple(dict.fromkeys(f.column for f in self.features if f.column and f.function in VALUE_STATISTICS))

    @cached_property
    def distinct(self) -> tuple[str, ...]:
        """Columns of `nunique`, in the order of first use."""
        return tuple(dict.fromkeys(f.column for f in self.features if f.function == "nunique"))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Every column of an event that the view reads."""
        return tuple(dict.fromkeys(self.values + self.distinct))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The feature names, in the order of `features`."""
        return tuple(feature.name(self.entity) for feature in self.features)

    @cached_property
    def retention(self) -> int:
        """How far back from an entity's latest event its state must reach."""
        longest = max(self.windows, default=0)
        return longest + tile(longest) + STATE_SLACK

    @cached_property
    def places(self) -> tuple[tuple[str, int, int], ...]:
        """Name, window's number and place among the statistics of each feature; -1 for `seconds_since_last`."""
        found = []
        for feature, name in zip(self.features, self.names, strict=True):
            if feature.function == "seconds_since_last":
                found.append((name, -1, -1))
                continue
            place = 0
            if feature.function == "nunique":
                place = 1 + len(VALUE_STATISTICS) * len(self.values) + self.distinct.index(feature.column)
            elif feature.column:
                place = 1 + len(VALUE_STATISTICS) * self.values.index(feature.column)
                place += VALUE_STATISTICS.index(feature.function)
            found.append((name, self.windows.index(feature.window), place))
        return tuple(found)

    def dumps(self) -> str:
        """The spec as compact JSON, the form that travels in a transformation's source text."""
        rows = [[f.function, f.column, f.window] for f in self.features]
        return json.dumps([self.entity, self.join_key, self.event_id, rows], separators=(",", ":"))


@lru_cache(maxsize=256)
def loads(text: str) -> WindowSpec:
    """The inverse of `WindowSpec.dumps`."""
    entity, join_key, event_id, rows = json.loads(text)
    return WindowSpec(entity, join_key, event_id, tuple(WindowedFeature(*row) for row in rows))


def spec_of(
    view_name: str,
    entity: str,
    join_key: str,
    event_id: str,
    aggregations: list[Any],
    problems: Sequence[str] = (),
) -> WindowSpec:
    """Read Feast `Aggregation` objects; raises `UnsupportedAggregation` with everything that is wrong with them.

    `problems` are those that the caller has found with the view already.
    """
    problems = list(problems)
    features: list[WindowedFeature] = []
    for aggregation in aggregations:
        feature, problem = _feature_of(aggregation)
        if problem:
            problems.append(problem)
        elif feature in features:
            problems.append(f"{feature.name(entity)} is declared twice")
        else:
            features.append(feature)
    if not aggregations:
        problems.append("it declares no aggregation")
    if not event_id:
        problems.append(f"it has no tag '{EVENT_ID_TAG}' naming the column that identifies an event")
    if problems:
        raise UnsupportedAggregation(f"View '{view_name}': {'; '.join(problems)}. Supported: {', '.join(FUNCTIONS)}.")
    return WindowSpec(entity, join_key, event_id, tuple(features))


def _feature_of(aggregation: Any) -> tuple[WindowedFeature, str]:
    function = ALIASES.get(aggregation.function, aggregation.function)
    window = microseconds(aggregation.time_window) if aggregation.time_window else 0
    feature = WindowedFeature(function, aggregation.column, window)
    subject = f"aggregation {aggregation.function}({aggregation.column})"
    slide = aggregation.slide_interval
    if function not in FUNCTIONS:
        return feature, f"{subject} is not supported"
    if function == "seconds_since_last":
        return feature, f"{subject} takes no column and no window" if window or aggregation.column else ""
    if getattr(aggregation, "name", ""):
        return feature, f"{subject} has name '{aggregation.name}': names are computed; leave it out"
    if window <= 0:
        return feature, f"{subject} needs a time_window > 0"
    if slide is not None and slide != aggregation.time_window:
        return (
            feature,
            f"{subject} has slide_interval {slide}: windows end at the question, not on a grid; leave it out",
        )
    return feature, "" if aggregation.column or function == "count" else f"{subject} needs a column"


def is_windowed(view: Any) -> bool:
    """Whether a Feast view declares aggregations that the window engine executes."""
    return bool(getattr(view, "aggregations", None)) and hasattr(view, "batch_source")


def spec_of_view(view: Any) -> WindowSpec:
    """The spec of a Feast view with aggregations, as declared or as read back from the registry."""
    problems = []
    if len(view.entities) != 1 or len(view.entity_columns) != 1:
        problems.append(f"it has entities {view.entities!r}; a windowed view needs exactly one, with one join key")
    entity, join_key = (view.entities or [""])[0], view.entity_columns[0].name if view.entity_columns else ""
    return spec_of(view.name, entity, join_key, view.tags.get(EVENT_ID_TAG, ""), view.aggregations, problems)
