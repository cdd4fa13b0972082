"""`make bench-models`: every candidate on every data set, beside what was published on the same split.

    python -m tests.load.bench_models [--quick] [--only PART]... [--dataset NAME_OR_FILE]
    python -m tests.load.bench_models --markdown reports/bench_models.json

The split, the metrics and the features are those of training: nothing is tuned here, and no test day is chosen by.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from feature_repo.settings import ROOT, settings
from tests.load import models_sets as sets
from tests.load.machine import machine, versions
from tests.load.models_ceiling import ceiling
from tests.load.models_measures import Metrics, Note, compared, means, spread
from tests.load.models_oracle import oracle
from tests.load.models_sizes import QUICK, REPORTED, ModelSizes
from tests.load.models_table import markdown, table
from training.cost_of_training import measure
from training.datasets.source import UnreadableSource
from training.split import HANDBOOK

REPORT = ROOT / "reports" / "bench_models.json"
PARTS = ("handbook_ch3", "handbook_folds", "sparkov", "synthetic", "training")
PACKAGES = ("scikit-learn", "xgboost", "lightgbm", "imbalanced-learn", "scipy")


class Bench:
    """One run in a folder of its own; what is found goes into `report`."""

    def __init__(self, home: Path, sizes: ModelSizes, note: Note) -> None:
        self.home, self.sizes, self.note = home, sizes, note
        self.report: dict[str, Any] = {"ceiling": {}}
        self.data = settings().data

    def handbook_ch3(self) -> dict[str, Metrics]:
        """Chapter 3's week, and its ceiling."""
        self.report["ceiling"]["handbook_ch3"] = ceiling(self.data, HANDBOOK)
        return compared(self.handbook, HANDBOOK, self.sizes.models, self.note)

    def handbook_folds(self) -> dict[str, dict[str, list[float]]]:
        """The four published folds, with their mean and deviation, and the mean of their ceilings."""
        folds = sets.FOLDS
        ceilings = spread([{"oracle": ceiling(self.data, fold)} for fold in folds])
        self.report["ceiling"]["handbook_folds"] = ceilings["oracle"]
        return spread([compared(self.handbook, fold, self.sizes.models, self.note) for fold in folds])

    def sparkov(self) -> dict[str, Metrics]:
        """The second set that others have made."""
        return self.any_set("sparkov")

    def any_set(self, name: str) -> dict[str, Metrics]:
        """Any data set, split as training splits it."""
        what = sets.comparison(sets.named(name, self.data), self.home / "any", sets.one_protocol)
        return compared(what, what.protocols[0], self.sizes.models, self.note)

    def synthetic(self) -> dict[str, Metrics]:
        """Histories of several seeds, none of which the generator was made by, and their ceilings: means over them."""
        runs, sizes = [], self.sizes
        for seed in sizes.seeds:
            dataset = sets.generated(sizes.rows, seed, sizes.days)
            what = sets.comparison(dataset, self.home / f"synthetic-{seed}", sets.one_protocol)
            runs.append(compared(what, what.protocols[0], sizes.models, self.note, sets.TUNED))
        reached = oracle(self.home, sizes.rows, sizes.days, sizes.seeds, sizes.oracle_seeds)
        found = spread(runs)
        self.report["synthetic_spread"] = found
        self.report["ceiling"]["synthetic"] = means(spread([{"oracle": one} for one in reached]))["oracle"]
        return means(found)

    def training(self) -> dict[str, dict[str, float]]:
        """Time and memory of each candidate, against the plain library's own calls on the same matrix."""
        what = self.handbook if sets.has_handbook(self.data) else self.small
        protocol = what.protocols[-1]
        rows = what.data.where(protocol.train(what.data.rows))
        found = {}
        for name in self.sizes.models:
            fraud = rows.rows["is_fraud"].to_numpy()
            found[name] = measure(name, rows.vectors, fraud, rows.columns, self.sizes.repeats)
            self.note(f"training {name}: {found[name]['seconds']:.2f} s, plain {found[name]['plain_seconds']:.2f} s")
        return found

    @cached_property
    def handbook(self) -> sets.Comparison:
        """The published rows with their features."""
        return sets.comparison(sets.named("handbook", self.data), self.home / "handbook", sets.handbook_protocols)

    @cached_property
    def small(self) -> sets.Comparison:
        """A generated history, where nobody has the published rows."""
        dataset = sets.generated(self.sizes.rows, self.sizes.seeds[0], self.sizes.days)
        return sets.comparison(dataset, self.home / "small", sets.one_protocol)


def run(parts: Sequence[str], others: Sequence[str], sizes: ModelSizes, note: Note) -> dict[str, Any]:
    """Measure the parts one after another; a data set that is not there is said to be missing."""
    began = time.perf_counter()
    report: dict[str, Any] = {"machine": machine(), "versions": versions() | {n: version(n) for n in PACKAGES}}
    with TemporaryDirectory(prefix="tollgate-bench-") as home:
        bench = Bench(Path(home), sizes, note)
        work: dict[str, Callable[[], Any]] = {part: getattr(bench, part) for part in parts}
        work |= {name: lambda name=name: bench.any_set(name) for name in others}
        for name, part in work.items():
            try:
                report[name] = part()
            except UnreadableSource as error:
                report[name] = {"missing": str(error)}
                note(f"{name}: {error}")
        report |= bench.report
    report["date"] = datetime.now(UTC).isoformat(timespec="minutes")
    report["seconds"] = round(time.perf_counter() - began, 1)
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says."""
    given = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    if given.markdown:
        print(markdown(json.loads(given.markdown.read_text())))
        return 0
    sizes = QUICK if given.quick else REPORTED
    some = bool(given.only or given.dataset)
    parts = [part for part in PARTS if (part in (given.only or ()) if some else part in sizes.parts)]
    report = run(parts, given.dataset or (), sizes, lambda text: console.print(f"  {text}", highlight=False))
    whole = not some and sizes is REPORTED
    report["command"] = "make bench-models" if whole else shlex.join(["python", "-m", __spec__.name, *sys.argv[1:]])
    output: Path = given.output or (REPORT if whole else REPORT.parent / "quick" / REPORT.name)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    console.print(table(report))
    console.print(f"Written to {output}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.load.bench_models", description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--dataset", action="append", metavar="NAME_OR_FILE", help="another data set, split as usual")
    parser.add_argument("--quick", action="store_true", help="small generated data: does it run at all?")
    parser.add_argument("--output", type=Path, help=f"the JSON file; default: {REPORT.relative_to(ROOT)}")
    parser.add_argument("--markdown", type=Path, metavar="JSON", help="print a report's table for the docs, no more")
    return parser


if __name__ == "__main__":
    sys.exit(main())
