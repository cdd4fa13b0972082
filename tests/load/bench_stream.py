"""`make bench-stream`: stream, freshness, backfill, point-in-time joins and the size of the state, in one table.

    python -m tests.load.bench_stream [--only PART]... [--quick | --full]
    python -m tests.load.bench_stream --markdown reports/bench_stream.json

What is measured and how is in `docs/benchmarks.md`. Nothing here judges by time: a goal that is missed is reported.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from feature_repo.settings import ROOT
from tests.load import backfill, freshness, point_in_time, state, stream
from tests.load.machine import machine, versions
from tests.load.sizes import FULL, QUICK, REPORTED, Sizes
from tests.load.table import markdown, table

PARTS: dict[str, Callable[[Sizes], dict[str, Any]]] = {
    "stream": stream.measure,
    "freshness": freshness.measure,
    "backfill": backfill.measure,
    "point_in_time": point_in_time.measure,
    "state": state.measure,
}
REPORT = ROOT / "reports" / "bench_stream.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says; 1 if a part could not be measured."""
    given = _parser().parse_args(arguments)
    console = Console()
    if given.markdown:
        print(markdown(json.loads(given.markdown.read_text())))
        return 0
    logging.getLogger("stream_jobs.kafka").setLevel(logging.CRITICAL)  # a broker that is starting is no news
    sizes = QUICK if given.quick else FULL if given.full else REPORTED
    names = [name for name in PARTS if not given.only or name in given.only]
    report = run(names, sizes, console)
    output: Path = given.output or (REPORT if sizes is not QUICK and not given.only else _beside(names))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    console.print(table(report))
    console.print(f"Written to {output}")
    return int(any("failed" in report[name] for name in names))


def run(names: Sequence[str], sizes: Sizes, console: Console) -> dict[str, Any]:
    """Measure the parts one after another; one that fails says why in its place."""
    began = time.perf_counter()
    report: dict[str, Any] = {"machine": machine(), "versions": versions()}
    for name in names:
        at = time.perf_counter()
        with console.status(f"  {name} …"):
            try:
                report[name] = PARTS[name](sizes)
            except Exception as error:  # the other parts are worth having
                report[name] = {"failed": f"{type(error).__name__}: {error}"}
                console.print(f"  [red]✗[/] {name}: {error}", markup=True, highlight=False)
                continue
        console.print(f"  [green]✓[/] {name} [dim]{time.perf_counter() - at:.0f} s[/]")
    report["command"] = "make bench-stream" if len(names) == len(PARTS) and sizes is REPORTED else _command()
    report["date"] = datetime.now(UTC).isoformat(timespec="minutes")
    report["seconds"] = round(time.perf_counter() - began, 1)
    return report


def _command() -> str:
    return shlex.join(["python", "-m", "tests.load.bench_stream", *sys.argv[1:]])


def _beside(names: Sequence[str]) -> Path:
    """Where a partial or quick run goes: never over the whole report."""
    return REPORT.with_name(f"bench_stream.{'-'.join(names) if len(names) < len(PARTS) else 'quick'}.json")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.load.bench_stream", description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    size.add_argument(
        "--full", action="store_true", help="with ten million events, and half a million rows for the stock store"
    )
    parser.add_argument("--output", type=Path, help=f"the JSON file; default: {REPORT.relative_to(ROOT)}")
    parser.add_argument("--markdown", type=Path, metavar="JSON", help="print a report's table for the docs, no more")
    return parser


if __name__ == "__main__":
    sys.exit(main())
