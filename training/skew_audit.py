"""Are the features served the features trained on: a sample of served vectors, recomputed from history and compared.

`python -m training.skew_audit [--at INSTANT] [--days 1] [--rows 1000] [--settle 900]` leaves its gauges and details
below `FRAUD_HOME/monitoring` (`skew.json`, by `monitoring.job_results`) and the same for people in `skew/skew.md`. A
value counts as different where it is not what was served in float32, to the last bit but for a sum's rounding. Exit
code 0 when it ran, whatever it found; 1 where it could not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from feature_repo.schema import parse_json
from feature_repo.settings import Settings, settings
from feature_repo.sources import MissingTable
from feature_repo.store import feature_store
from feature_repo.vector import FEATURE_SERVICE
from monitoring import job_results, skew
from monitoring.decision_window import Period, Sample, sampled
from monitoring.job_command import instant, outcome
from monitoring.job_results import Gauge

JOB = "skew"
DAYS = 1.0
ROWS = 1_000

SETTLE = 900.0
"""Seconds that history is given to hold the events before a payment: what arrives late may take ten minutes."""


def run(
    current: Settings, at: datetime, days: float = DAYS, rows: int = ROWS, settle: float = SETTLE
) -> dict[str, Any]:
    """One audit of decisions on payments of the `days` before `at`; writes and returns the job's details.

    Raises `MissingTable` where there is no history, and what `job_command.failures` lists.
    """
    period = Period(at - timedelta(days=days), at - timedelta(seconds=settle))
    drawn = sampled(current, period, FEATURE_SERVICE, rows)
    details: dict[str, Any] = {
        "from": period.begin.isoformat(),
        "to": period.end.isoformat(),
        "feature_service": FEATURE_SERVICE,
        "decisions": drawn.seen,
        "audited": 0,
        "left_out": {},
    }
    gauges = [Gauge("skew_audited", {}, 0.0)]
    places = _whole(drawn, details)
    if places:
        gauges = _compare(current, drawn, places, details)
    job_results.write(current.home, JOB, gauges, details, at)
    folder = current.home / job_results.FOLDER / JOB
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "skew.md").write_text(markdown(details))
    return details


def _whole(drawn: Sample, details: dict[str, Any]) -> list[int]:
    """The rows that were decided on the full input; one that was known to lack some is no skew."""
    cause = drawn.rows["degraded_cause"]
    details["left_out"] = {str(name): int(count) for name, count in cause.value_counts().items()}
    return [int(place) for place in np.flatnonzero(cause.isna())]


def _compare(current: Settings, drawn: Sample, places: list[int], details: dict[str, Any]) -> list[Gauge]:
    payments = [parse_json(drawn.requests[place], subject="of a decision") for place in places]
    found, columns = skew.recomputed(feature_store(current), payments)
    online = drawn.vectors[places]
    if online.shape != found.shape:
        details["left_out"][f"vectors of {online.shape[1]} columns, not {len(columns)}"] = len(places)
        return [Gauge("skew_audited", {}, 0.0)]
    told = skew.told(payments, online, found, columns, skew.beyond_rounding(online, found))
    shares = {name: told.by_feature.get(name, 0) / told.checked for name in columns}
    rounded = int(skew.unequal(online, found).sum()) - sum(told.by_feature.values())
    details |= {
        "audited": told.checked,
        "different": told.different,
        "values_rounded_otherwise": rounded,
        "by_feature": dict(sorted(told.by_feature.items(), key=lambda item: -item[1])),
        "examples": [_example(*each) for each in told.examples],
    }
    gauges = [Gauge("skew_mismatches", {"feature": name}, share) for name, share in shares.items()]
    return [*gauges, Gauge("skew_audited", {}, float(told.checked))]


def _example(payment: str, feature: str, served: float, found: float) -> dict[str, Any]:
    values = {"served": served, "recomputed": found}
    return {"transaction_id": payment, "feature": feature} | {
        name: None if np.isnan(value) else value for name, value in values.items()
    }


def markdown(details: dict[str, Any]) -> str:
    """The audit for people."""
    audited, wrong = details["audited"], details.get("by_feature", {})
    lines = [
        "# Skew audit",
        "",
        f"{audited:,} of {details['decisions']:,} decisions on payments of {details['from']} to {details['to']} "
        f"({details['feature_service']}), each recomputed from history as of its payment.",
        "",
        f"**{details.get('different', 0):,} vectors differ.**" if audited else "**Nothing was audited.**",
    ]
    lines += [f"Left out: {count:,} {cause}." for cause, count in details["left_out"].items()]
    if wrong:
        lines += ["", "| feature | vectors | share |", "|---|---:|---:|"]
        lines += [f"| `{name}` | {count:,} | {count / audited:.2%} |" for name, count in wrong.items()]
        lines += ["", "| transaction | feature | served | recomputed |", "|---|---|---:|---:|"]
        for one in details["examples"]:
            lines.append(f"| `{one['transaction_id']}` | `{one['feature']}` | {one['served']} | {one['recomputed']} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.skew_audit", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--at", type=instant, help="the end of the period, ISO 8601 with an offset; default: now")
    parser.add_argument("--days", type=float, default=DAYS, help="its length (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=ROWS, help="vectors to audit (default: %(default)s)")
    parser.add_argument("--settle", type=float, default=SETTLE, help="seconds before its end that are left out")
    given, current = parser.parse_args(arguments), settings()
    at = given.at or datetime.now(UTC)

    def audit() -> str:
        return markdown(run(current, at, given.days, given.rows, given.settle))

    return outcome("skew audit", current, audit, MissingTable)


if __name__ == "__main__":
    sys.exit(main())
