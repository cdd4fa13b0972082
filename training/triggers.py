"""When a model is due to be trained again: its age, the world's drift, or figures that fall short of its promise.

Each looks at what others measured and says whether it asks for a round, and why or why not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

METRICS = ("auc_roc", "average_precision", "card_precision_100", "precision", "recall")
"""Metrics whose fall is a reason: higher is better."""


class UnreadableReport(ValueError):
    """A file that is not the report it is said to be."""


@dataclass(frozen=True)
class Trigger:
    """One trigger's word."""

    name: str
    fired: bool
    because: str


def forced() -> Trigger:
    """The one that a person pulls."""
    return Trigger("force", True, "--force")


def schedule(last: datetime | None, now: datetime, days: float) -> Trigger:
    """Fires where no version is younger than `days`; `last` is when the newest was registered (null: there is none)."""
    if last is None:
        return Trigger("schedule", True, "no version is registered")
    age = (now - last) / timedelta(days=1)
    word = "at least" if age >= days else "less than"
    return Trigger("schedule", age >= days, f"the last version is {age:.1f} days old, {word} {days:g}")


def drift(file: Path, limit: float) -> Trigger:
    """Fires where at least `limit` of the columns drifted, by the JSON of `monitoring.drift`."""
    document = _read(file)
    found = document.get("summary", document)
    if not isinstance(found, dict) or not isinstance(found.get("share"), int | float):
        raise UnreadableReport(f"File '{file}' has no share of drifted columns; must be the JSON of monitoring.drift.")
    share, drifted = float(found["share"]), ", ".join(found.get("drifted", ())) or "none"
    word = "at least" if share >= limit else "less than"
    return Trigger("drift", share >= limit, f"{share:.0%} of the columns drifted, {word} {limit:.0%} ({drifted})")


def performance(measured: float, promised: float, metric: str, margin: float) -> Trigger:
    """Fires where a metric is more than `margin` below what the champion had in its own test."""
    fired = measured < promised - margin
    word = "more" if fired else "not more"
    return Trigger("performance", fired, f"{metric} is {measured:.4f}, {word} than {margin:g} below {promised:.4f}")


def measured(file: Path, metric: str, version: str) -> float:
    """The metric of a version in a report of `training.backtest` (labels as then known), or in `{metric: value}`."""
    if metric not in METRICS:
        raise UnreadableReport(f"Metric '{metric}' is no trigger; must be one of {', '.join(METRICS)}.")
    document = _read(file)
    value: Any = document.get(metric)
    if "versions" in document:
        told = {str(one["version"]): one["total"]["then"] for one in document["versions"]}
        if version not in told:
            raise UnreadableReport(f"File '{file}' is of version {', '.join(told)}; the champion is version {version}.")
        value = told[version].get(metric)
    if not isinstance(value, int | float):
        raise UnreadableReport(f"File '{file}' has no value of '{metric}'; must be a number.")
    return float(value)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UnreadableReport(f"File '{file}' cannot be read as JSON: {error}.") from None
    if not isinstance(found, dict):
        raise UnreadableReport(f"File '{file}' holds a {type(found).__name__}; must be an object.")
    return found
