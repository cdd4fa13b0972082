"""The live quality of decisions, by the maturity of their labels, beside what the champion's own test promised.

`python -m monitoring.quality_job [--at INSTANT] [--days 7]` leaves, below `FRAUD_HOME/monitoring`, its gauges and
details (`quality.json`, by `monitoring.job_results`) and `quality/full.json`, the champion's figures by name, which
`training.retrain --performance` reads. Exit code 0 when it ran, whatever it found; 1 where it could not.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd

from feature_repo.schema import LABEL_DELAY
from feature_repo.settings import Settings, settings
from monitoring import job_results
from monitoring.champion import Champion, champion
from monitoring.cost_matrix import CostMatrix
from monitoring.decision_window import Period, every
from monitoring.job_command import instant, outcome
from monitoring.job_results import Gauge
from monitoring.labels import labels_between
from monitoring.live_quality import Figures, Maturity, figures, periods

JOB = "quality"
DAYS = 7.0

PROMISES = {
    "precision": "precision",
    "recall": "recall",
    "average_precision": "average_precision",
    "auc_roc": "auc_roc",
    "calibration_error": "ece",
}
"""Figures that a version's test has too, by the names that they have there."""

LOOKED_BACK = timedelta(days=28)
"""How long a fraud makes its card a known one; the test leaves payments of known cards out (`training.split`)."""

COMPLETE = 0.99
"""Share of the due labels that must have come: with fewer, the full period is as half-labelled as the younger one."""


def run(current: Settings, at: datetime, days: float = DAYS) -> dict[str, Any]:
    """One run; writes and returns the job's details. Raises what `job_command.failures` lists."""
    best, matrix = champion(current), CostMatrix.of(current)
    asked = periods(at, days)
    rows = labelled(current, Period(asked["full"].begin, at), at)
    found: dict[str, Any] = {"champion": best.version, "promised": promised(best), "all": {}, "versions": {}}
    gauges = [Gauge("live_promised", {"metric": name}, value) for name, value in found["promised"].items()]
    flat: dict[str, float] = {}
    for maturity, period in asked.items():
        inside = rows[(rows["paid_at"] >= period.begin) & (rows["paid_at"] < period.end)]
        lasts = (period.end - period.begin) / timedelta(days=1)
        every_one = figures(inside, matrix, lasts, current.control_max_amount)
        found["all"][maturity] = _told(every_one, period)
        by_version = _by_version(inside, matrix, lasts, current.control_max_amount)
        for version, each in by_version.items():
            found["versions"].setdefault(version, {})[maturity] = _told(each, period)
        own = by_version.get(_key(best.name, best.version))
        complete = maturity == "partial" or (every_one.labelled_share or 0.0) >= COMPLETE
        gauges += _gauges(maturity, every_one, own, complete)
        if maturity == "full" and own is not None and complete:
            flat = {name: value for name in PROMISES if (value := getattr(own, name)) is not None}
    job_results.write(current.home, JOB, gauges, found, at)
    folder = current.home / job_results.FOLDER / JOB
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "full.json").write_text(json.dumps(flat, indent=1) + "\n")
    return found


def labelled(current: Settings, period: Period, at: datetime) -> pd.DataFrame:
    """The decisions on payments of the period, with `is_fraud` as known at `at`, null where nothing is.

    `known_card`: whether the card was known to be compromised on the payment's day, by a fraud a label delay before it.
    """
    from feature_repo.store import feature_store  # seconds

    rows = every(current, period)
    said = labels_between(feature_store(current), current, period.begin - LOOKED_BACK, period.end, at)
    rows["is_fraud"] = rows["transaction_id"].map(said.set_index("transaction_id")["is_fraud"]).astype("float64")
    first = said[said["is_fraud"] == 1].groupby("card_id")["timestamp"].min()
    known_from = pd.to_datetime(rows["card_id"].map(first), utc=True).dt.floor("D") + LABEL_DELAY + timedelta(days=1)
    return rows.assign(known_card=known_from <= rows["paid_at"].dt.floor("D"))


def promised(best: Champion) -> dict[str, float]:
    """What the champion's test promised, by our names; empty where training left no figures."""
    metrics = best.evidence.get("metrics", {})
    known = {name: metrics[theirs][0] for name, theirs in PROMISES.items() if metrics.get(theirs)}
    return {name: float(value) for name, value in known.items() if value is not None and math.isfinite(value)}


def _by_version(rows: pd.DataFrame, matrix: CostMatrix, days: float, cap: float) -> dict[str, Figures]:
    """Each version's figures on the payments that its test would have had: those of cards not known by then."""
    unknown = rows[~rows["known_card"] & rows["degraded_cause"].isna()]
    parts = unknown.groupby(["model_name", "model_version"], sort=True)
    return {_key(str(name), str(version)): figures(part, matrix, days, cap) for (name, version), part in parts}


def _key(name: str, version: str) -> str:
    return f"{name} {version}"


def _told(found: Figures, period: Period) -> dict[str, Any]:
    return found.as_json() | {"from": period.begin.isoformat(), "to": period.end.isoformat()}


def _gauges(maturity: Maturity, every_one: Figures, own: Figures | None, complete: bool) -> list[Gauge]:
    """Cost and labelled share are those of all decisions, the rest the champion's; what is not known is left out."""
    values = {"live_labelled_share": every_one.labelled_share}
    if complete:
        values["live_cost"] = every_one.cost
        values |= {f"live_{name}": getattr(own, name) for name in PROMISES if own is not None}
    return [Gauge(name, {"maturity": maturity}, value) for name, value in values.items() if value is not None]


def told(found: dict[str, Any]) -> str:
    """The outcome for people, a few lines."""
    lines = []
    for maturity, each in found["all"].items():
        share = "no payment" if each["labelled_share"] is None else f"{each['labelled_share']:.1%} labelled"
        lines.append(f"{maturity}: {each['payments']:,} payments, {share}, {each['frauds']:,} frauds")
    for version, by in found["versions"].items():
        for maturity, each in by.items():
            known = {name: each[name] for name in PROMISES if each[name] is not None}
            lines.append(f"  {version}, {maturity}: " + ", ".join(f"{name} {x:.3f}" for name, x in known.items()))
    promises = ", ".join(f"{name} {value:.3f}" for name, value in found["promised"].items())
    return "\n".join([*lines, f"promised by version {found['champion']}: {promises or 'nothing'}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.quality_job", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--at", type=instant, help="the instant from which labels are looked back at; default: now")
    parser.add_argument("--days", type=float, default=DAYS, help="days of the full period (default: %(default)s)")
    given, current = parser.parse_args(arguments), settings()
    at = given.at or datetime.now(UTC)
    return outcome("quality job", current, lambda: told(run(current, at, given.days)))


if __name__ == "__main__":
    sys.exit(main())
