"""Has the world moved? Recent features and scores against reference ones, as an Evidently report.

Invariant: every column of the reference is either tested or listed with the reason why not, and the summary, the JSON
and the HTML are of one run on one sample. Evidently is imported inside `drift_report` only (seconds, 350 MB): run it in
a process of its own, `python -m monitoring.drift --reference X.parquet --current Y.parquet --out DIR [--json]`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from monitoring.comparison import Comparison, compare
from monitoring.metrics import Catalogue, metrics

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


def drift_report(
    reference: pd.DataFrame, current: pd.DataFrame, out: Path, *, max_rows: int = MAX_ROWS, seed: int = 0
) -> DriftSummary:
    """Compare two frames; write `drift.html`, `drift.json` and `drift.prom` into `out` and set the drift gauges.

    Each side is sampled down to `max_rows` at random. A column with nulls is tested twice, its values and, as
    `<name> is null`, its null share. Raises `NothingToCompare` for an empty side or when no column can be tested.
    """
    for side, frame in (("reference", reference), ("current", current)):
        if frame.empty:
            raise NothingToCompare(f"Drift report: the {side} side has 0 rows; it needs at least 1.")
    prepared = compare(_sample(reference, max_rows, seed), _sample(current, max_rows, seed))
    if not prepared.thresholds:
        raise NothingToCompare(f"Drift report: no column can be tested ({prepared.left_out}).")
    out.mkdir(parents=True, exist_ok=True)
    html, results = _run_evidently(prepared, out / "drift.html")
    columns = _columns(results, prepared)
    drifted = tuple(each.column for each in columns if each.drifted)
    summary = DriftSummary(
        share=len(drifted) / len(columns),
        drift_share=DRIFT_SHARE,
        drifted=drifted,
        columns=columns,
        left_out=prepared.left_out,
        reference_rows=len(reference),
        current_rows=len(current),
        sampled_reference=min(len(reference), max_rows),
        sampled_current=min(len(current), max_rows),
        max_rows=max_rows,
        seed=seed,
        html=str(html),
        json_file=str(out / "drift.json"),
    )
    text = json.dumps({"summary": summary.model_dump(mode="json"), "evidently": results}, indent=1, allow_nan=False)
    (out / "drift.json").write_text(text)
    _export(summary, out / "drift.prom")
    return summary


def _sample(frame: pd.DataFrame, rows: int, seed: int) -> pd.DataFrame:
    return frame if len(frame) <= rows else frame.sample(rows, random_state=seed)


def _run_evidently(prepared: Comparison, html: Path) -> tuple[Path, dict[str, Any]]:
    # Evidently reports its use home unless this is set before it is imported.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    with warnings.catch_warnings():
        # Its dependencies warn of their own futures (pydantic v1 shims, litestar, NLTK); its numbers are tested here.
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        definition = DataDefinition(
            numerical_columns=list(prepared.numerical), categorical_columns=list(prepared.categorical)
        )
        preset = DataDriftPreset(
            columns=list(prepared.thresholds),
            drift_share=DRIFT_SHARE,
            num_method="wasserstein",
            cat_method="jensenshannon",
            per_column_threshold=prepared.thresholds,
        )
        now, before = pd.DataFrame(prepared.current), pd.DataFrame(prepared.reference)
        report = Report([preset], include_tests=True)
        snapshot = report.run(Dataset.from_pandas(now, definition), Dataset.from_pandas(before, definition))
        snapshot.save_html(str(html))
        return html, json.loads(snapshot.json(), parse_constant=lambda _: None)


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


def _export(summary: DriftSummary, file: Path) -> None:
    """Set the gauges and leave them as a file for a textfile collector, since this process is gone before a scrape."""
    from prometheus_client import REGISTRY, write_to_textfile

    metrics.drift_share.set(summary.share)
    for each in summary.columns:
        metrics.feature_drift.labels(feature=each.column).set(each.value)
    names = [Catalogue.drift_share.name, Catalogue.feature_drift.name]
    write_to_textfile(str(file), REGISTRY.restricted_registry(names))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit code 0 whether or not there is drift, 1 when nothing could be compared."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.drift", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True, help="Parquet: what the model was trained on")
    parser.add_argument("--current", type=Path, required=True, help="Parquet: what it sees now")
    parser.add_argument("--out", type=Path, required=True, help="folder for drift.html, drift.json and drift.prom")
    parser.add_argument("--max-rows", type=int, default=MAX_ROWS, help="rows per side, sampled (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    given = parser.parse_args(arguments)
    try:
        sides = pd.read_parquet(given.reference), pd.read_parquet(given.current)
        summary = drift_report(*sides, given.out, max_rows=given.max_rows)
    except (NothingToCompare, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(summary.model_dump_json() if given.json else _told(summary))
    return 0


def _told(summary: DriftSummary) -> str:
    lines = [f"{len(summary.drifted)} of {len(summary.columns)} columns drifted ({summary.share:.0%})"]
    lines += [f"  {c.column}: {c.value:.3f} (threshold {c.threshold:.3f})" for c in summary.columns if c.drifted]
    lines += [f"  left out: {column}, {reason}" for column, reason in summary.left_out.items()]
    return "\n".join([*lines, f"Report: {summary.html}"])


if __name__ == "__main__":
    sys.exit(main())
