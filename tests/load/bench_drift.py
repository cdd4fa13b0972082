"""How many decisions it takes to see a planted drift, and how often the same world is called drifted.

    python -m tests.load.bench_drift [--quick] [--output FILE]
    python -m tests.load.bench_drift --markdown reports/bench_drift.json

A generated history's vectors, scores and decisions are resampled: a reference as large as a version's own, and samples
of each size, some with a drift planted. Each is judged by the thresholds of `monitoring.comparison`, and beside it by
Evidently's own choice of method and threshold for the same columns.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from feature_repo.contract import LABEL
from feature_repo.settings import ROOT
from monitoring.champion import DECISION
from monitoring.comparison import ALARMS, Comparison, beside, compare, distance
from monitoring.drift import DRIFT_SHARE
from tests.load.drift_planted import PLANTED, World
from tests.load.machine import machine, versions
from training.datasets import synthetic
from training.models import CANDIDATES
from training.offline import offline

REPORT = ROOT / "reports" / "bench_drift.json"
PARTS = ("planted", "same", "weeks")

SEEN = 0.95
"""A drift is called seen with as many decisions as it is found with in this share of the repeats."""


@dataclass(frozen=True)
class DriftSizes:
    """How much is measured: payments generated over `days`, rows of a reference, sizes of samples, repeats of each."""

    rows: int
    days: int
    reference: int
    samples: tuple[int, ...]
    repeats: int
    calm: tuple[int, ...]
    alarms: int
    plain_alarms: int
    """Of the `alarms` reports on the same world, how many Evidently's own thresholds judge too: they take longer."""
    references: int
    trained: int
    """Days whose rows are the reference of the later weeks."""


REPORTED = DriftSizes(
    rows=100_000,
    days=100,
    reference=20_000,
    samples=(500, 1_000, 2_000, 5_000, 10_000, 20_000),
    repeats=50,
    calm=(500, 2_000, 20_000),
    alarms=100,
    plain_alarms=40,
    references=5,
    trained=28,
)
QUICK = DriftSizes(4_000, 45, 1_500, (1_000,), 2, (1_000,), 2, 1, 1, 7)

Judge = Callable[[Comparison, str], bool]


def world(home: Path, sizes: DriftSizes) -> World:
    """The vectors of a generated history once its windows are full, with the scores of a model of its first half."""
    dataset = synthetic.load(sizes.rows, 7, sizes.days)
    first = dataset.transactions["timestamp"].min().floor("D").to_pydatetime()
    begin, end = first + timedelta(days=30), first + timedelta(days=sizes.days)
    data = offline(dataset, home, begin, end).data
    half = data.where(pd.Series(np.arange(len(data.rows)) < len(data.rows) // 2))
    model = CANDIDATES["xgboost"](data.columns).set_params(n_estimators=60, n_jobs=1)
    model.fit(half.vectors, half.rows["is_fraud"])
    days = ((data.rows["timestamp"] - begin) / timedelta(days=1)).to_numpy()
    return World(pd.DataFrame(data.vectors, columns=list(data.columns)), data.rows["is_fraud"].to_numpy(), days, model)


class Plain:
    """Evidently's own choice: its method for the column's kind and size, and that method's threshold."""

    def __init__(self) -> None:
        os.environ.setdefault("DO_NOT_TRACK", "1")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from evidently.legacy.calculations.stattests.registry import get_stattest
            from evidently.legacy.core import ColumnType
        self._choose, self._kinds = get_stattest, ColumnType

    def __call__(self, made: Comparison, name: str) -> bool:
        """Whether it calls a column drifted; the null share of a column is none of its columns."""
        if name.endswith(" is null"):
            return False
        kind = self._kinds.Numerical if name in made.numerical else self._kinds.Categorical
        before, after = made.reference[name].dropna(), made.current[name].dropna()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a category that the reference has not, by its own chi-squared test
            return bool(self._choose(before, after, kind, None)(before, after, kind, None).drifted)


def calibrated(made: Comparison, name: str) -> bool:
    """Whether `monitoring.comparison` calls a column drifted."""
    return distance(made, name) >= made.thresholds[name]


class Bench:
    """One run."""

    def __init__(self, of: World, sizes: DriftSizes, note: Callable[[str], object]) -> None:
        self.world, self.sizes, self.note = of, sizes, note
        self.random = np.random.default_rng(11)
        self._made: dict[tuple[int, int], Comparison] = {}

    @cached_property
    def judges(self) -> dict[str, Judge]:
        return {"calibrated": calibrated, "evidently": Plain()}

    def same(self, size: int) -> dict[str, dict[str, float]]:
        """Samples of the reference's own distribution: how many reports call any column drifted, and the whole."""
        found: dict[str, list[float]] = {name: [] for name in self.judges}
        columns = 0
        for number, made in enumerate(self._comparisons(size, self.sizes.alarms, None)):
            columns = len(made.thresholds)
            for name, judge in self.judges.items():
                if name == "evidently" and number >= self.sizes.plain_alarms:
                    continue
                found[name].append(sum(judge(made, column) for column in made.thresholds) / columns)
        return {
            name: {
                "reports": len(shares),
                "columns": columns,
                "any_column": float(np.mean([share > 0 for share in shares])),
                "columns_drifted": float(np.mean(shares)),
                "data_set": float(np.mean([share >= DRIFT_SHARE for share in shares])),
            }
            for name, shares in found.items()
        }

    def planted(self, drift: str, size: int) -> dict[str, float]:
        """Share of the repeats in which one of the drift's own columns is called drifted."""
        found: dict[str, list[bool]] = {name: [] for name in self.judges}
        for made in self._comparisons(size, self.sizes.repeats, drift):
            wanted = [column for column in PLANTED[drift].columns if column in made.thresholds]
            for name, judge in self.judges.items():
                found[name].append(any(judge(made, column) for column in wanted))
        return {name: float(np.mean(seen)) for name, seen in found.items()}

    def _comparisons(self, size: int, repeats: int, drift: str | None) -> Iterator[Comparison]:
        """The columns that a drift shows in, with the thresholds that they have among all columns of a report.

        A threshold is that of another sample of the size: chance is simulated from the reference alone.
        """
        names = self._names if drift is None else PLANTED[drift].read
        for repeat in range(repeats):
            number = repeat % self.sizes.references
            whole = self._whole(number, size)
            part = beside(self.references[number][names], self.world.draw(size, self.random, drift)[names])
            part.scales = whole.scales
            part.thresholds = {
                name: limit
                for name, limit in whole.thresholds.items()
                if (name in part.numerical, name in part.categorical)
                == (name in whole.numerical, name in whole.categorical)
            }
            yield part

    @cached_property
    def references(self) -> list[pd.DataFrame]:
        return [self.world.draw(self.sizes.reference, self.random) for _ in range(self.sizes.references)]

    @property
    def _names(self) -> list[str]:
        return [str(name) for name in self.references[0]]

    def _whole(self, number: int, size: int) -> Comparison:
        if (number, size) not in self._made:
            current = self.world.draw(size, self.random)
            self._made[number, size] = compare(self.references[number], current, rare=(DECISION, LABEL))
        return self._made[number, size]

    def weeks(self) -> list[dict[str, Any]]:
        """The world's own later weeks, nothing planted, against its first days and against the week before each."""
        of, found = self.world, []
        trained = of.between(0, self.sizes.trained, self.sizes.reference)
        for day in range(self.sizes.trained, int(of.days.max()) - 5, 7):
            week, before = (of.between(first, first + 7, self.sizes.reference) for first in (day, day - 7))
            line: dict[str, Any] = {"from_day": day, "rows": len(week)}
            for against, reference in (("training", trained), ("last_week", before)):
                made = compare(reference, week, rare=(DECISION, LABEL))
                line |= {"columns": len(made.thresholds)}
                for name, judge in self.judges.items():
                    line[f"{against}_{name}"] = [column for column in made.thresholds if judge(made, column)]
            found.append(line)
            self.note(f"week from day {day}: {line}")
        return found


def run(
    sizes: DriftSizes,
    parts: Sequence[str],
    note: Callable[[str], object],
    keep: Callable[[dict[str, Any]], object] = lambda report: None,
) -> dict[str, Any]:
    """The parts of the report; `keep` is given what there is after each of them."""
    began = time.perf_counter()
    report: dict[str, Any] = {"machine": machine(), "versions": versions(), "alarms": ALARMS}
    report |= {"reference": sizes.reference, "repeats": sizes.repeats}
    with TemporaryDirectory(prefix="tollgate-bench-") as home:
        of = world(Path(home), sizes)
        note(f"{len(of.vectors):,} vectors of {len(of.vectors.columns)} columns")
        bench = Bench(of, sizes, note)
        if "planted" in parts:
            report["planted"] = {}
            for drift in PLANTED:
                report["planted"][drift] = {str(size): bench.planted(drift, size) for size in sizes.samples}
                note(f"{drift}: {report['planted'][drift]}")
        keep(report)
        if "same" in parts:
            report["same"] = {}
            for size in sizes.calm:
                report["same"][str(size)] = bench.same(size)
                note(f"same world, {size:,}: {report['same'][str(size)]}")
        keep(report)
        if "weeks" in parts:
            report["weeks"] = bench.weeks()
    report["date"] = datetime.now(UTC).isoformat(timespec="minutes")
    report["seconds"] = round(time.perf_counter() - began, 1)
    return report


def markdown(report: dict[str, Any]) -> str:
    """The tables of the docs."""
    sizes, calm = ([int(size) for size in by] for by in (report["planted"]["amount"], report["same"]))
    head = " | ".join(f"{size:,}" for size in sizes)
    lines = [f"| share of {report['repeats']} repeats that see it | decisions: {head} | seen with |"]
    lines.append("|---|" + "---:|" * (len(sizes) + 1))
    for drift, by in report["planted"].items():
        for judge, title in (("calibrated", PLANTED[drift].title), ("evidently", "– Evidently's own thresholds")):
            shares = [by[str(size)][judge] for size in sizes]
            enough = [size for size, _ in zip(sizes, shares, strict=True) if _from(sizes, shares, size)]
            cells = " | ".join(f"{share:.0%}" for share in shares)
            lines.append(f"| {title} | {cells} | {f'{enough[0]:,}' if enough else 'not'} |")
    lines += ["", f"| the same world | reports | columns of each | {' | '.join(f'{size:,}' for size in calm)} |"]
    lines.append("|---|" + "---:|" * (len(calm) + 2))
    for judge, title in (("calibrated", "calibrated"), ("evidently", "Evidently's own")):
        by = [report["same"][str(size)][judge] for size in calm]
        for key, what in (("any_column", "reports with any column drifted"), ("columns_drifted", "columns drifted")):
            cells = " | ".join(f"{one[key]:.1%}" for one in by)
            lines.append(f"| {title}: {what} | {by[0]['reports']} | {by[0]['columns']} | {cells} |")
    lines += ["", f"| the world's own weeks, of {report['weeks'][0]['columns']} columns | drifted |", "|---|---:|"]
    for against, title in (("training", "the first four weeks"), ("last_week", "the week before")):
        for judge, by in (("calibrated", "calibrated"), ("evidently", "Evidently's own")):
            counts = [str(len(week[f"{against}_{judge}"])) for week in report["weeks"]]
            lines.append(f"| against {title}, {by} | {', '.join(counts)} |")
    return "\n".join(lines)


def _from(sizes: Sequence[int], shares: Sequence[float], size: int) -> bool:
    """Whether a drift is seen with `size` decisions and with every larger number."""
    return all(share >= SEEN for each, share in zip(sizes, shares, strict=True) if each >= size)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.load.bench_drift", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--quick", action="store_true", help="few payments, few repeats: does it run at all?")
    parser.add_argument("--only", action="append", choices=PARTS, help="a part, put into the report that is there")
    parser.add_argument("--output", type=Path, help=f"the JSON file; default: {REPORT.relative_to(ROOT)}")
    parser.add_argument("--markdown", type=Path, metavar="JSON", help="print a report's tables for the docs, no more")
    given, console = parser.parse_args(arguments), Console(width=None if sys.stdout.isatty() else 120)
    if given.markdown:
        print(markdown(json.loads(given.markdown.read_text())))
        return 0
    sizes, parts = QUICK if given.quick else REPORTED, given.only or PARTS
    output: Path = given.output or (REPORT.parent / "quick" / REPORT.name if given.quick else REPORT)
    earlier = json.loads(output.read_text()) if given.only and output.exists() else {}
    command = shlex.join(["python", "-m", "tests.load.bench_drift", *(["--quick"] if given.quick else [])])
    output.parent.mkdir(parents=True, exist_ok=True)

    def keep(found: dict[str, Any]) -> None:
        output.write_text(json.dumps(earlier | found | {"command": command}, indent=1) + "\n")

    report = earlier | run(sizes, parts, lambda text: console.print(f"  {text}", highlight=False), keep)
    keep(report)
    if all(part in report for part in PARTS):
        print(markdown(report))
    console.print(f"Written to {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
