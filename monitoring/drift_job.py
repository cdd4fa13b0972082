"""The drift of what the platform decided, against the champion's training rows and the week before.

`python -m monitoring.drift_job [--at INSTANT] [--days 7] [--max-rows 20000]` leaves, below `FRAUD_HOME/monitoring`, its
gauges (`drift.json`, by `monitoring.job_results`), a report per reference (`drift/training`, `drift/last_week`: HTML
and JSON), and both as snapshots in `evidently`, which `evidently ui --workspace` opens. Exit code 0 when it ran,
whatever it found; 1 where it could not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from feature_repo.contract import LABEL, SCORE
from feature_repo.schema import LABEL_DELAY, LABEL_PUBLICATION
from feature_repo.settings import Settings, settings
from monitoring import job_results
from monitoring.champion import DECISION, Champion, champion
from monitoring.decision_window import Period, Sample, sampled
from monitoring.drift import MAX_ROWS, DriftSummary, NothingToCompare, Question, drift_report
from monitoring.job_command import instant, outcome
from monitoring.job_results import Gauge
from monitoring.labels import labels_between

JOB = "drift"
TRAINING, LAST_WEEK = "training", "last_week"

DAYS = 7

LEAST = 200
"""Decisions that a side must have: with fewer, chance explains any distance."""

Columns = dict[str, pd.Series]


@dataclass(frozen=True)
class Side:
    """What was decided in a period, by column, and the sample that it was taken from."""

    sample: Sample
    columns: Columns


def side(current: Settings, best: Champion, period: Period, at: datetime, rows: int) -> Side:
    """The features of the decisions on the champion's feature service, its own scores and decisions, and the labels.

    The labels are those of the payments a label delay older: of the period itself hardly one is known.
    """
    found = sampled(current, period, best.contract.feature_service, rows)
    columns: Columns = {}
    if len(found):
        columns = {name: pd.Series(found.vectors[:, place]) for place, name in enumerate(best.contract.columns)}
        own = found.rows[
            (found.rows["model_name"] == best.name)
            & (found.rows["model_version"] == best.version)
            & found.rows["degraded_cause"].isna()
        ]
        columns[SCORE] = own["score"]
        columns[DECISION] = own["decision"].mask(own["control_group"], "decline")  # what the model made of them
        columns[LABEL] = labels(current, period, at)
    return Side(found, columns)


def labels(current: Settings, period: Period, at: datetime) -> pd.Series:
    """Whether payments were fraud, of those that are older than the period by the time after which labels are known."""
    from feature_repo.store import feature_store  # seconds

    delay = LABEL_DELAY + LABEL_PUBLICATION
    known = labels_between(feature_store(current), current, period.begin - delay, period.end - delay, at)
    return known[LABEL].astype("float64")


def run(current: Settings, at: datetime, days: float = DAYS, rows: int = MAX_ROWS) -> dict[str, Any]:
    """One run; writes and returns the job's details.

    Raises what `job_command.failures` lists.
    """
    best = champion(current)
    period = Period(at - timedelta(days=days), at)
    now = side(current, best, period, at, rows)
    details: dict[str, Any] = {
        "champion": best.version,
        "feature_service": best.contract.feature_service,
        "from": period.begin.isoformat(),
        "to": period.end.isoformat(),
        "decisions": now.sample.seen,
        "sampled": len(now.sample),
        "against": {},
    }
    if len(now.sample) < LEAST:
        details["nothing"] = f"{len(now.sample)} decisions on payments of {period}; at least {LEAST} are needed."
        job_results.write(current.home, JOB, [], details, at)
        return details
    gauges = _nulls(now)
    against = {TRAINING: _training(best), LAST_WEEK: side(current, best, period.before(), at, rows).columns}
    for name, reference in against.items():
        found = _report(current, name, reference, now.columns, at, rows)
        details["against"][name] = found if isinstance(found, str) else found.model_dump(mode="json")
        if name == TRAINING and not isinstance(found, str):
            gauges += _gauges(found)
    job_results.write(current.home, JOB, gauges, details, at)
    return details


def _training(best: Champion) -> Columns:
    reference = best.reference
    return {str(name): reference[name] for name in reference}


def _report(
    current: Settings, name: str, reference: Columns, now: Columns, at: datetime, rows: int
) -> DriftSummary | str:
    """The report against one reference, or why there is none."""
    there = max((len(column) for column in reference.values()), default=0)
    if there < LEAST:
        return f"{there} rows to compare with; at least {LEAST} are needed."
    folder = current.home / job_results.FOLDER
    asked = Question((SCORE, DECISION, LABEL), (DECISION, LABEL), name, at, folder / "evidently")
    try:
        return drift_report(reference, now, folder / JOB / name, max_rows=rows, question=asked)
    except NothingToCompare as error:
        return str(error)


def _nulls(now: Side) -> list[Gauge]:
    shares = np.isnan(now.sample.vectors).mean(axis=0)
    return [Gauge("feature_nulls", {"feature": name}, float(x)) for name, x in zip(now.columns, shares, strict=False)]


def _gauges(summary: DriftSummary) -> list[Gauge]:
    made = [Gauge("drift_share", {}, summary.share)]
    for one in summary.columns:
        made.append(Gauge("feature_drift", {"feature": one.column}, one.value))
        made.append(Gauge("feature_drift_threshold", {"feature": one.column}, one.threshold))
    for metric, name in (("score_drift", SCORE), ("decision_drift", DECISION), ("label_drift", LABEL)):
        found = summary.column(name)
        if found is not None:
            made.append(Gauge(metric, {}, found.value))
    return made


def told(details: dict[str, Any]) -> str:
    """The outcome for people, a few lines."""
    lines = [f"{details['decisions']:,} decisions on payments of {details['from']} to {details['to']}"]
    if "nothing" in details:
        return "\n".join([*lines, f"Nothing to compare: {details['nothing']}"])
    for name, found in details["against"].items():
        if isinstance(found, str):
            lines.append(f"against {name}: {found}")
            continue
        drifted = ", ".join(found["drifted"]) or "none"
        lines.append(f"against {name}: {found['share']:.0%} of {len(found['columns'])} columns drifted: {drifted}")
        lines.append(f"  {Path(found['html'])}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.drift_job", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--at", type=instant, help="the end of the period, ISO 8601 with an offset; default: now")
    parser.add_argument("--days", type=float, default=DAYS, help="its length (default: %(default)s)")
    parser.add_argument("--max-rows", type=int, default=MAX_ROWS, help="decisions sampled (default: %(default)s)")
    given, current = parser.parse_args(arguments), settings()
    at = given.at or datetime.now(UTC)
    return outcome("drift job", current, lambda: told(run(current, at, given.days, given.max_rows)))


if __name__ == "__main__":
    sys.exit(main())
