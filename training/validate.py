"""Is a data set fit to train on? The schema over every row, and gates over the set as a whole.

`python -m training.validate [--dataset NAME|PATH]` prints the gates and exits with 1 where one fails. The schema's
rules come from `feature_repo.schema`; the limits of the gates stand here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from feature_repo.settings import settings
from training.datasets.catalogue import load_dataset
from training.datasets.dataset import Dataset
from training.datasets.rules import LABEL, LABELLED_SCHEMA, REQUIRED_COLUMNS
from training.transaction_schema import NOT_NULL, broken_rules

FRAUD_RATE = (0.001, 0.05)
OUTLIER_Z = 3.5
OUTLIER_SHARE = 0.05
SHOWN_ROWS = 10


@dataclass(frozen=True)
class Gate:
    """One gate's verdict: `value` against `limit` (text), and the ids of up to 10 offending transactions."""

    name: str
    value: float
    limit: str
    passed: bool
    way_out: str
    rows: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = f" Transactions: {', '.join(self.rows)}." if self.rows else ""
        return f"Gate {self.name!r}: value is {self.value:.6g}; must be {self.limit}.{shown} {self.way_out}"


@dataclass(frozen=True)
class QualityReport:
    """Every gate of one data set, in a fixed order."""

    dataset: str
    gates: tuple[Gate, ...]

    @property
    def failed(self) -> tuple[Gate, ...]:
        """The gates that did not pass."""
        return tuple(gate for gate in self.gates if not gate.passed)

    @property
    def passed(self) -> bool:
        """Whether the data set is fit to train on."""
        return not self.failed


class DataQualityError(ValueError):
    """A data set failed its gates; `report` holds all of them."""

    def __init__(self, report: QualityReport) -> None:
        self.report = report
        listed = "\n  ".join(str(gate) for gate in report.failed)
        super().__init__(f"Data set {report.dataset!r} is not fit to train on:\n  {listed}")


def validate(dataset: Dataset) -> QualityReport:
    """Judge a data set; collects every failure and raises none.

    An amount is an outlier where its logarithm's robust z-score, 0.6745 (x - median) / MAD, exceeds 3.5 either way
    (Iglewicz and Hoaglin, 1993); where half of the amounts are equal the MAD is 0 and there is no scale to judge by.
    """
    rows = dataset.transactions
    absent = [column for column in LABELLED_SCHEMA.names if column not in rows]
    if rows.empty or absent:
        count = Gate("rows", float(len(rows)), "> 0", not rows.empty, "Give a data set with transactions.")
        way_out = f"Add {', '.join(absent)}; `conform` gives a frame its shape."
        shape = Gate("missing columns", float(len(absent)), "0", not absent, way_out)
        return QualityReport(dataset.name, (count, shape))
    gates = (*_schema(rows), _nulls(rows), _duplicates(rows), _order(rows), _fraud_rate(rows), _outliers(rows))
    return QualityReport(dataset.name, gates)


def require(report: QualityReport) -> None:
    """Raise `DataQualityError`, naming gate, value, rule, rows and way out, unless every gate passed."""
    if not report.passed:
        raise DataQualityError(report)


def _ids(rows: pd.DataFrame, offending: pd.Series | np.ndarray) -> tuple[str, ...]:
    return tuple(str(identifier) for identifier in rows["transaction_id"][np.asarray(offending)].head(SHOWN_ROWS))


def _schema(rows: pd.DataFrame) -> list[Gate]:
    way_out = "Correct these rows or take them out."
    broken = [
        Gate(f"schema: {rule}", float(len(places)), "0 rows", False, way_out, _at(rows, places))
        for rule, places in broken_rules(rows).items()
        if not rule.endswith(NOT_NULL)  # has a gate of its own
    ]
    return broken or [Gate("schema", 0.0, "0 rows", True, way_out)]


def _at(rows: pd.DataFrame, places: Sequence[int]) -> tuple[str, ...]:
    return tuple(map(str, rows["transaction_id"].iloc[list(places[:SHOWN_ROWS])]))


def _count(rows: pd.DataFrame, name: str, offending: pd.Series, way_out: str) -> Gate:
    count = int(offending.sum())
    return Gate(name, float(count), "0 rows", count == 0, way_out, _ids(rows, offending))


def _nulls(rows: pd.DataFrame) -> Gate:
    offending = rows.reindex(columns=REQUIRED_COLUMNS).isna().any(axis=1)
    way_out = f"Fill {', '.join(REQUIRED_COLUMNS)} or take the rows out."
    return _count(rows, "nulls in required fields", offending, way_out)


def _duplicates(rows: pd.DataFrame) -> Gate:
    offending = rows["transaction_id"].duplicated()
    return _count(rows, "duplicate transaction ids", offending, "Keep one row of each transaction.")


def _order(rows: pd.DataFrame) -> Gate:
    offending = rows["timestamp"].diff() < pd.Timedelta(0)
    return _count(rows, "timestamps out of order", offending, "Sort by timestamp, then transaction_id.")


def _fraud_rate(rows: pd.DataFrame) -> Gate:
    rate, (low, high) = float(rows[LABEL].mean()), FRAUD_RATE
    way_out = "Check that the label column is the right one and that the rows are not a selection."
    limit = f"from {low:g} to {high:g}"
    frauds = rows[LABEL] == 1
    return Gate("fraud rate", rate, limit, low <= rate <= high, way_out, _ids(rows, frauds) if rate > high else ())


def _outliers(rows: pd.DataFrame) -> Gate:
    amounts = rows["amount"].where(np.isfinite(rows["amount"]) & (rows["amount"] > 0))
    logs = np.log(amounts)
    away = (logs - logs.median()).abs()
    scale = away.median()
    offending = 0.6745 * away > OUTLIER_Z * scale if scale > 0 else away != away
    share = float(offending.mean())
    way_out = "Check the amounts' unit and currency (cents among euros?), or leave such rows out."
    limit = f"< {OUTLIER_SHARE:g} of rows with a robust |z| above {OUTLIER_Z:g}"
    return Gate("amount outliers", share, limit, share < OUTLIER_SHARE, way_out, _ids(rows, offending))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the gates of a data set; return 1 where one fails or the data cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m training.validate", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", help="handbook, sparkov, synthetic or a file (default: handbook if there)")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the synthetic set")
    parser.add_argument("--seed", type=int, default=7, help="seed of the synthetic set")
    chosen = parser.parse_args(arguments)
    try:
        dataset = load_dataset(chosen.dataset, settings().data, rows=chosen.rows, seed=chosen.seed)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    report = validate(dataset)
    table = Table("gate", "value", "must be", "verdict", "transactions", title=dataset.summary)
    for gate in report.gates:
        verdict = "[green]passed[/]" if gate.passed else "[red]FAILED[/]"
        table.add_row(gate.name, f"{gate.value:.6g}", gate.limit, verdict, "" if gate.passed else ", ".join(gate.rows))
    Console().print(table)
    for gate in report.failed:
        print(gate, file=sys.stderr)
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
