"""A past period scored with a registered version, as it would have been then; two versions side by side.

`python -m training.backtest --version champion --from 2018-08-01 --to 2018-08-15 [--against 3] [--out FOLDER]`. Exit
code 0 with a report, 1 where the version or the history is not there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from sklearn.calibration import calibration_curve

from feature_repo.contract import ContractMismatch
from feature_repo.schema import LABEL_DELAY
from feature_repo.settings import Settings, settings
from feature_repo.sources import MissingTable
from training import backtest_report, intervals, weighted
from training.chunks import stretches
from training.hindsight import Scorer, score_column
from training.periods import VIEWS, by_days, figures
from training.registered import NoSuchVersion, Registered, fetch

BINS = 15
REPEATS = 200

EXPECTED = (NoSuchVersion, ContractMismatch, MissingTable, LookupError)


def run(
    current: Settings,
    models: Sequence[Registered],
    begin: datetime,
    end: datetime,
    *,
    delay: timedelta = LABEL_DELAY,
    chunk_days: int = 7,
    jobs: int = 1,
    told: Callable[[str], object] = lambda line: None,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """The report on [begin, end), UTC midnights, and every payment with its scores and labels.

    Raises `LookupError` where there is no payment, `ContractMismatch` where this code cannot feed a version.
    """
    cuts = stretches(begin, end, chunk_days)
    parts = []
    for (first, _), part in zip(cuts, Scorer(current, tuple(models), delay).score_all(cuts, jobs), strict=True):
        told(f"{first:%F}: {len(part):,} payments")
        parts.append(part)
    rows = pd.concat(parts, ignore_index=True)
    if rows.empty:
        raise LookupError(f"No transaction lies in [{begin:%F}, {end:%F}). Load history that covers it.")
    report = {
        "model": models[0].name,
        "from": f"{begin:%F}",
        "to": f"{end:%F}",
        "payments": len(rows),
        "label_days": delay / timedelta(days=1),
        "versions": [_version(model, rows, begin, end) for model in models],
        "difference": _differences(models, rows) if len(models) == 2 else {},
    }
    return report, rows


def _version(model: Registered, rows: pd.DataFrame, begin: datetime, end: datetime) -> dict[str, Any]:
    contract, scores = model.contract, score_column(model)
    return {
        "version": model.version,
        **contract.model_dump(mode="json", exclude={"columns"}),
        "total": {view: figures(rows, scores, fraud, contract) for view, fraud in VIEWS.items()},
        "weeks": by_days(rows, begin, end, 7, scores, contract),
        "days": by_days(rows, begin, end, 1, scores, contract),
        "calibration": _curve(rows, scores),
    }


def _curve(rows: pd.DataFrame, scores: str) -> dict[str, list[float]]:
    known = rows[rows[VIEWS["then"]].notna()]
    if known.empty:
        return {"score": [], "fraud": []}
    fraud, score = calibration_curve(known[VIEWS["then"]] == 1, known[scores], n_bins=BINS, strategy="quantile")
    return {"score": score.tolist(), "fraud": fraud.tolist()}


def _differences(models: Sequence[Registered], rows: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    """The first version less the second in each metric, with the interval over whole cards: [value, low, high]."""
    found: dict[str, dict[str, list[float]]] = {}
    for view, fraud in VIEWS.items():
        known = rows[rows[fraud].notna()].reset_index(drop=True)
        labelled = known.assign(is_fraud=known[fraud].astype("int8"))
        if labelled["is_fraud"].nunique() < 2:
            continue
        ours, theirs = (labelled[score_column(model)].to_numpy(np.float64) for model in models)
        each = intervals.paired_each(labelled, theirs, ours, weighted.METRICS, REPEATS)
        found[view] = {name: [one.value, one.low, one.high] for name, one in each.items()}
    return found


def _day(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}T00:00:00+00:00")


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.backtest", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--version", required=True, help="a version's number, or an alias")
    parser.add_argument("--against", help="another one, to compare with")
    parser.add_argument("--model", help="the registered model; default: FRAUD_MODEL_NAME")
    parser.add_argument("--from", dest="begin", type=_day, required=True, metavar="DATE", help="first day (UTC)")
    parser.add_argument("--to", dest="end", type=_day, required=True, metavar="DATE", help="the day after the last")
    parser.add_argument("--label-days", type=float, default=LABEL_DELAY.days, help="when a day's labels are due")
    parser.add_argument("--chunk-days", type=int, default=7, help="days retrieved at a time: bounds the memory")
    parser.add_argument("--jobs", type=int, default=1, help="processes; each holds a chunk")
    parser.add_argument("--out", type=Path, default=Path("reports/backtest"), help="folder of the report")
    asked = parser.parse_args(given)
    if asked.end <= asked.begin:
        parser.error(f"--to is {asked.end:%F}; must be after --from, {asked.begin:%F}")
    return asked


def main(given: Sequence[str] | None = None) -> int:
    """The command."""
    asked, current, console = _arguments(given), settings(), Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="tollgate-backtest-") as folder:
        try:
            wanted = [version for version in (asked.version, asked.against) if version]
            models = [
                fetch(current, asked.model or current.model_name, version, Path(folder) / str(place))
                for place, version in enumerate(wanted)
            ]
            report, rows = run(
                current, models, asked.begin, asked.end, delay=timedelta(days=asked.label_days),
                chunk_days=asked.chunk_days, jobs=asked.jobs, told=console.print,
            )  # fmt: skip
        except EXPECTED as error:
            print(error, file=sys.stderr)
            return 1
    backtest_report.write(report, asked.out)
    rows.to_parquet(asked.out / "payments.parquet", index=False)
    console.print_json(json.dumps([one["total"] for one in report["versions"]]))
    console.print(f"Report: {asked.out / 'backtest.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
