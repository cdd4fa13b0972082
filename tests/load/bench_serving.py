"""`make bench-serving`: the service under load beside its peers, in one table and one picture.

    python -m tests.load.bench_serving [--quick | --full] [--only PART]...
    python -m tests.load.bench_serving --scenario redis-killed [--rate 5000] [--minutes 1]
    python -m tests.load.bench_serving --markdown reports/bench_serving.json

Redis, the drivers and the service share the machine. Nothing here judges by time: a goal that is missed is reported.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from feature_repo.settings import ROOT
from tests.load import serving_measures as measures
from tests.load import serving_scenarios as scenarios
from tests.load.machine import machine, versions
from tests.load.serving_load import Load
from tests.load.serving_offer import offer
from tests.load.serving_rig import Rig, Served, rig
from tests.load.serving_sizes import FULL, QUICK, REPORTED, ServingSizes
from tests.load.serving_table import markdown, picture, table

REPORT = ROOT / "reports" / "bench_serving.json"
PICTURE = "serving_latency.png"
PARTS = ("service", "extras", "peers", "busy")
WITH = {"FRAUD_REASONS": "all", "FRAUD_SHADOW": "true"}
WITHOUT = {"FRAUD_REASONS": "off", "FRAUD_SHADOW": "false"}
PACKAGES = ("bentoml", "uvicorn", "uvloop", "httptools", "hiredis", "msgspec", "onnxruntime", "xgboost", "mlflow")
PEER_NAMES = {"stock": "stock_rps", "seed": "seed_rps", "feast": "feast_server_rps", "bare": "bare_rps"}


class Bench:
    """One run on one rig; what is found goes into `report`."""

    def __init__(self, on: Rig, sizes: ServingSizes, note: Callable[[str], None]) -> None:
        self.rig, self.sizes, self.note = on, sizes, note
        self.report: dict[str, Any] = {"connections": sizes.connections}

    def service(self) -> None:
        """The service as it comes: time to ready, maximum, the rate it holds, half of it, batches, the curve."""
        sizes, report = self.sizes, self.report
        with self.rig.service() as served:
            report["ready_s"] = served.ready_s
            report["answer_bytes"] = served.answer_bytes
            load = self._load(served.load)
            counted = measures.Degraded(load)
            report["maximum"] = counted.of(measures.maximum(load, sizes, sizes.maximum_seconds))
            self.note(f"closed loop: {report['maximum']['rps']:,.0f}/s")
            self.rig.forget_decisions()
            report["single"] = counted.of(measures.held(load, report["maximum"]["rps"], sizes, self.note))
            self._memory(served)
            self.rig.forget_decisions()
            half = load.at(report["single"]["rps"] / 2, sizes.half_seconds)
            report["half_rate"] = counted.of(offer(half).figures())
            report["curve"] = []
            for point in measures.curve(load, report["single"]["rps"], sizes):
                report["curve"].append(point)
                self.rig.forget_decisions()
            report["batch"] = counted.of(measures.batch(load, sizes))
            self.rig.forget_decisions()

    def extras(self) -> None:
        """Throughput with reasons and shadow and without, in turns: the machine's own ups and downs meet both."""
        found: dict[str, list[float]] = {"with": [], "without": []}
        for _ in range(self.sizes.extras_rounds):
            for name, variables in (("with", WITH), ("without", WITHOUT)):
                with self.rig.service(**variables) as served:
                    figures = measures.maximum(self._load(served.load), self.sizes, self.sizes.extras_seconds)
                found[name].append(figures["rps"])
                self.note(f"{name} reasons and shadow: {figures['rps']:,.0f}/s")
                self.rig.forget_decisions()
        with_, without = max(found["with"]), max(found["without"])
        self.report["extras"] = found
        self.report["extras_cost_pct"] = round(100 * (1 - with_ / without), 1)

    def peers(self) -> None:
        """Each peer alone, the same payments, as fast as its answers come."""
        self.report["peers"], self.report["peer_figures"] = {}, {}
        size = self.report.get("answer_bytes", 450)
        for name in self.sizes.peers:
            with self.rig.peer(name, size) as load:
                figures = measures.maximum(self._load(load), self.sizes, self.sizes.peer_seconds)
            self.report["peers"][PEER_NAMES[name]] = figures["rps"]
            self.report["peer_figures"][name] = figures
            self.note(f"{name}: {figures['rps']:,.0f}/s, P99 {figures['p99_ms']:.0f} ms")

    def busy(self) -> None:
        """The maximum where few merchants take most payments, and their states are some fifty times as large."""
        with self.rig.service() as served:
            load = self._load(served.load)
            counted = measures.Degraded(load)
            self.report["busy"] = counted.of(measures.maximum(load, self.sizes, self.sizes.maximum_seconds))
            self.note(f"busy merchants, closed loop: {self.report['busy']['rps']:,.0f}/s")

    def _load(self, load: Load) -> Load:
        return replace(load, connections=self.sizes.connections)

    def _memory(self, served: Served) -> None:
        found = served.worker_mb()
        self.report["worker_mb"], self.report["worker_rss_mb"] = found["pss"], found["rss"]
        self.report["workers"] = len(served.processes)


def run(parts: Sequence[str], sizes: ServingSizes, console: Console, beside: Path) -> dict[str, Any]:
    """Measure the parts one after another on one rig; the picture goes beside the report."""
    began = time.perf_counter()
    report = _header()
    with console.status("  filling Redis, training models …"), rig(sizes.population, sizes.trained_on) as on:
        bench = Bench(on, sizes, lambda text: console.print(f"  {text}", highlight=False))
        for part in parts:
            if part != "busy":
                getattr(bench, part)()
    if "busy" in parts:
        with console.status("  filling Redis with busy merchants …"), rig(sizes.busy, sizes.trained_on) as on:
            bench.rig = on
            bench.busy()
    report |= bench.report
    if "curve" in report:
        picture(report, beside / PICTURE)
    return _footer(report, began, sizes is REPORTED and set(parts) == set(PARTS))


def scenario(name: str, sizes: ServingSizes, rate: float | None, minutes: float | None) -> dict[str, Any]:
    """One scenario on a rig of its own, at a given rate or at half of what the service can do."""
    began = time.perf_counter()
    report = _header()
    seconds = minutes * 60 if minutes else sizes.scenario_seconds
    with rig(sizes.population, sizes.trained_on) as on, on.service() as served:
        load = replace(served.load, connections=sizes.connections)
        most = rate or measures.maximum(load, sizes, sizes.probe_seconds)["rps"] / 2
        report |= scenarios.run(name, on, load, most, seconds)
    return _footer(report, began, named=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says."""
    given = _parser().parse_args(arguments)
    if given.markdown:
        print(markdown(json.loads(given.markdown.read_text())))
        return 0
    console = Console()
    sizes = QUICK if given.quick else FULL if given.full else REPORTED
    parts = [part for part in PARTS if not given.only or part in given.only]
    output: Path = given.output or _place(given, sizes)
    output.parent.mkdir(parents=True, exist_ok=True)
    if given.scenario:
        report = scenario(given.scenario, sizes, given.rate, given.minutes)
        console.print({name: value for name, value in report.items() if name != "timeline"})
    else:
        report = run(parts, sizes, console, output.parent)
        console.print(table(report))
    output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    console.print(f"Written to {output}")
    return 0


def _header() -> dict[str, Any]:
    return {"machine": machine(), "versions": versions() | {name: version(name) for name in PACKAGES}}


def _footer(report: dict[str, Any], began: float, named: bool) -> dict[str, Any]:
    report["command"] = "make bench-serving" if named else _command()
    report["date"] = datetime.now(UTC).isoformat(timespec="minutes")
    report["seconds"] = round(time.perf_counter() - began, 1)
    return report


def _command() -> str:
    return shlex.join(["python", "-m", "tests.load.bench_serving", *sys.argv[1:]])


def _place(given: argparse.Namespace, sizes: ServingSizes) -> Path:
    """A scenario, a partial or a quick run is written beside the whole report, never over it."""
    if given.scenario:
        return REPORT.with_name(f"serving_{given.scenario}.json")
    whole = sizes is not QUICK and not given.only
    return REPORT if whole else REPORT.parent / "quick" / f"bench_serving.{'-'.join(given.only or ['quick'])}.json"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.load.bench_serving", description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="phases of ten seconds, fewer cards")
    size.add_argument("--full", action="store_true", help="five minutes at the rate that is held, longer phases")
    parser.add_argument("--scenario", choices=scenarios.DEEDS, help="this instead of the table")
    parser.add_argument("--rate", type=float, help="payments a second of the scenario; default: half of the maximum")
    parser.add_argument("--minutes", type=float, help="length of the scenario")
    parser.add_argument("--output", type=Path, help=f"the JSON file; default: {REPORT.relative_to(ROOT)}")
    parser.add_argument("--markdown", type=Path, metavar="JSON", help="print a report's table for the docs, no more")
    return parser


if __name__ == "__main__":
    sys.exit(main())
