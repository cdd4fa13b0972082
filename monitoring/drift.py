"""Has the world moved? Recent features, scores, decisions and labels against reference ones, as an Evidently report.

Invariant: every column of the reference is either tested or listed with the reason why not, and the summary, the JSON
and the HTML are of one run on one sample. `python -m monitoring.drift --reference X.parquet --current Y.parquet --out
DIR [--json]` compares two files; `monitoring.drift_job` compares what the platform decided.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from feature_repo.contract import LABEL
from monitoring import evidently_report
from monitoring.champion import DECISION
from monitoring.comparison import Comparison, Sides, compare

MAX_ROWS = 20_000
DRIFT_SHARE = 0.3
"""The data set counts as drifted when at least this share of its columns has."""


class NothingToCompare(ValueError):
    """One side of the comparison has no rows, or no column is left to test."""


class ColumnDrift(BaseModel):
    """One tested column: it drifted when `value`, measured by `method`, is at or above `threshold`."""

    model_config = ConfigDict(frozen=True)

    column: str
    method: str
    value: float
    threshold: float
    drifted: bool


class DriftSummary(BaseModel):
    """The result of a report. `columns` is sorted by how far each is beyond its threshold, farthest first."""

    model_config = ConfigDict(frozen=True)

    share: float
    drift_share: float
    drifted: tuple[str, ...]
    columns: tuple[ColumnDrift, ...]
    left_out: dict[str, str]
    reference_rows: int
    current_rows: int
    sampled_reference: int
    sampled_current: int
    max_rows: int
    seed: int
    html: str
    json_file: str

    @property
    def detected(self) -> bool:
        """Whether the data set as a whole drifted."""
        return self.share >= self.drift_share

    def column(self, name: str) -> ColumnDrift | None:
        """A column's drift; None where it was not tested."""
        return next((one for one in self.columns if one.column == name), None)


@dataclass(frozen=True)
class Question:
    """What a report asks beside its two sides: which columns are `partial` or `rare` (see `comparison.compare`).

    `name` and `at` are what Evidently's UI shows.
    """

    partial: tuple[str, ...] = ()
    rare: tuple[str, ...] = (DECISION, LABEL)
    name: str = ""
    at: datetime | None = None
    workspace: Path | None = None


def drift_report(
    reference: Sides,
    current: Sides,
    out: Path,
    *,
    max_rows: int = MAX_ROWS,
    seed: int = 0,
    question: Question | None = None,
) -> DriftSummary:
    """Compare two sides, each as a frame or as columns of their own lengths; write `drift.html` and `drift.json`.

    Each column is sampled down to `max_rows` at random, those of a frame together. A column with nulls is tested twice,
    its values and, as `<name> is null`, its null share. Where the question names a workspace, the snapshot is kept
    there too. Raises `NothingToCompare` for an empty side or when no column can be tested.
    """
    asked = question or Question()
    for side, given in (("reference", reference), ("current", current)):
        if not _rows(given):
            raise NothingToCompare(f"Drift report: the {side} side has 0 rows; it needs at least 1.")
    sampled = _sample(reference, max_rows, seed), _sample(current, max_rows, seed)
    prepared = compare(*sampled, partial=asked.partial, rare=asked.rare)
    if not prepared.thresholds:
        raise NothingToCompare(f"Drift report: no column can be tested ({prepared.left_out}).")
    out.mkdir(parents=True, exist_ok=True)
    snapshot = evidently_report.run(
        prepared, DRIFT_SHARE, out / "drift.html", (asked.name,) if asked.name else (), asked.at
    )
    if asked.workspace is not None:
        evidently_report.keep(snapshot, asked.workspace, asked.name)
    results = evidently_report.results(snapshot)
    columns = _columns(results, prepared)
    drifted = tuple(each.column for each in columns if each.drifted)
    summary = DriftSummary(
        share=len(drifted) / len(columns),
        drift_share=DRIFT_SHARE,
        drifted=drifted,
        columns=columns,
        left_out=prepared.left_out,
        reference_rows=_rows(reference),
        current_rows=_rows(current),
        sampled_reference=_rows(sampled[0]),
        sampled_current=_rows(sampled[1]),
        max_rows=max_rows,
        seed=seed,
        html=str(out / "drift.html"),
        json_file=str(out / "drift.json"),
    )
    text = json.dumps({"summary": summary.model_dump(mode="json"), "evidently": results}, indent=1, allow_nan=False)
    (out / "drift.json").write_text(text)
    return summary


def _rows(side: Sides) -> int:
    return len(side) if isinstance(side, pd.DataFrame) else max((len(column) for column in side.values()), default=0)


def _sample(side: Sides, rows: int, seed: int) -> Sides:
    if isinstance(side, pd.DataFrame):
        return side if len(side) <= rows else side.sample(rows, random_state=seed)
    return {name: one if len(one) <= rows else one.sample(rows, random_state=seed) for name, one in side.items()}


def _columns(results: dict[str, Any], prepared: Comparison) -> tuple[ColumnDrift, ...]:
    found = []
    for metric in results["metrics"]:
        config, value = metric["config"], metric["value"]
        if not config["type"].endswith(":ValueDrift"):
            continue
        name, method = config["column"], config["method"]
        threshold = prepared.thresholds[name]
        if value is None:
            prepared.left_out[name] = f"{method} gave no number"
            continue
        drifted = value >= threshold
        found.append(ColumnDrift(column=name, method=method, value=value, threshold=threshold, drifted=drifted))
    return tuple(sorted(found, key=lambda each: each.value / each.threshold, reverse=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit code 0 whether or not there is drift, 1 when nothing could be compared."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.drift", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True, help="Parquet: what the model was trained on")
    parser.add_argument("--current", type=Path, required=True, help="Parquet: what it sees now")
    parser.add_argument("--out", type=Path, required=True, help="folder for drift.html and drift.json")
    parser.add_argument("--max-rows", type=int, default=MAX_ROWS, help="rows per side, sampled (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    given = parser.parse_args(arguments)
    try:
        sides = pd.read_parquet(given.reference), pd.read_parquet(given.current)
        summary = drift_report(*sides, given.out, max_rows=given.max_rows)
    except (NothingToCompare, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(summary.model_dump_json() if given.json else told(summary))
    return 0


def told(summary: DriftSummary) -> str:
    """The summary for people."""
    lines = [f"{len(summary.drifted)} of {len(summary.columns)} columns drifted ({summary.share:.0%})"]
    lines += [f"  {c.column}: {c.value:.3f} (threshold {c.threshold:.3f})" for c in summary.columns if c.drifted]
    lines += [f"  left out: {column}, {reason}" for column, reason in summary.left_out.items()]
    return "\n".join([*lines, f"Report: {summary.html}"])


if __name__ == "__main__":
    sys.exit(main())
