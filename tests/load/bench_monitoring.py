"""What monitoring costs the service: its throughput with it and without it, in turns, in one run.

    python -m tests.load.bench_monitoring [--quick] [--output FILE]

Two services run all the while over the same Redis and the same models. With: metrics are counted, a real Prometheus
scrapes every part three times as often as it is shipped to, and the monitor runs. Its jobs do not: they run once an
hour, at low priority, and are measured by themselves. Without: FRAUD_METRICS=off. Each round offers a few seconds of
load to both, in turns the one and the other first; Prometheus and the monitor stand still while the one without is
measured. The ratio is taken within a round, so that the machine's own ups and downs meet both. Nothing here judges by
time: a goal that is missed is reported.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import psutil
import yaml
from rich.console import Console

from feature_repo.settings import ROOT
from monitoring.processes import Platform
from monitoring.supervision import free_ports
from monitoring.targets import targets_file
from tests.load import serving_measures as measures
from tests.load.machine import machine, versions
from tests.load.serving_offer import offer
from tests.load.serving_rig import Rig, Served, environment, rig
from tests.load.serving_sizes import QUICK, REPORTED, ServingSizes

REPORT = ROOT / "reports" / "bench_monitoring.json"
GOAL = 0.95
"""Of the throughput without monitoring that must be left with it."""

SCRAPE_SECONDS = 5
ROUNDS = 30
STRETCH_SECONDS = 5.0
PATIENCE = 60.0
NO_JOBS = {f"FRAUD_{job}_EVERY": "null" for job in ("DRIFT", "QUALITY", "SKEW")}
ON, OFF = {"FRAUD_METRICS": "on", **NO_JOBS}, {"FRAUD_METRICS": "off"}


class NoPrometheus(RuntimeError):
    """There is no Prometheus to scrape with."""


@dataclass(frozen=True)
class Size:
    """The rig's size, rounds, and the seconds for which each service is measured in a round."""

    sizes: ServingSizes
    rounds: int
    seconds: float = STRETCH_SECONDS


def measured(on: Rig, size: Size, note: Callable[[str], None]) -> dict[str, Any]:
    """Requests/s of each round with and without, their ratios, and what Prometheus held in the end."""
    found: dict[str, list[dict[str, Any]]] = {"on": [], "off": []}
    with without(on) as plain, environment(ON), on.service() as counted, watched(on) as watch:
        arms = {"on": (counted, nullcontext), "off": (plain, watch.still)}
        most = {arm: _rate(served, size.sizes) * measures.ROOM for arm, (served, _) in arms.items()}
        for number in range(size.rounds):
            for arm in ("on", "off") if number % 2 == 0 else ("off", "on"):
                served, state = arms[arm]
                with state():
                    found[arm].append(_figures(served, size, most[arm]))
            on.forget_decisions()
            both = found["on"][-1]["rps"], found["off"][-1]["rps"]
            note(f"round {number + 1}: {both[0]:,.0f}/s with monitoring, {both[1]:,.0f}/s without")
        scraped = scrapes(watch.address)
    return {"rounds": found, "scraped": scraped} | compared(found)


@contextmanager
def without(on: Rig) -> Iterator[Served]:
    """Another service over the same platform, without monitoring."""
    platform = Platform(on.settings.model_copy(update={"port": free_ports(1)[0]}))
    with environment(OFF), replace(on, platform=platform).service() as served:
        yield served


def compared(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians of each arm; the ratios, their median, where 90 % of its resamples lie, and whether the goal is met."""
    ratios = [on["rps"] / off["rps"] for on, off in zip(found["on"], found["off"], strict=True)]
    return {
        "on_rps": round(median(one["rps"] for one in found["on"]), 1),
        "off_rps": round(median(one["rps"] for one in found["off"]), 1),
        "on_p99_ms": round(median(one["p99_ms"] for one in found["on"]), 3),
        "off_p99_ms": round(median(one["p99_ms"] for one in found["off"]), 3),
        "on_worker_us": round(median(one["worker_us"] for one in found["on"]), 1),
        "off_worker_us": round(median(one["worker_us"] for one in found["off"]), 1),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "ratio": round(median(ratios), 4),
        "ratio_interval": _interval(ratios),
        "goal": GOAL,
        "met": median(ratios) >= GOAL,
    }


def _interval(ratios: list[float]) -> list[float]:
    """Between which values the median lies in 90 % of the resamples."""
    drawn = np.random.default_rng(7).choice(ratios, (10_000, len(ratios)))
    return [round(float(bound), 4) for bound in np.quantile(np.median(drawn, axis=1), (0.05, 0.95))]


def _rate(served: Served, sizes: ServingSizes) -> float:
    load = replace(served.load, connections=sizes.connections)
    return float(measures.maximum(load, sizes, sizes.warm_seconds)["offered_rps"])


def _figures(served: Served, size: Size, most: float) -> dict[str, Any]:
    """The closed loop's figures, and the CPU time of the service's workers for each request in `worker_us`."""
    load = replace(served.load, connections=size.sizes.connections)
    before = _cpu_seconds(served)
    found = offer(replace(load, seconds=size.seconds, most=most)).figures()
    return found | {"worker_us": round((_cpu_seconds(served) - before) / found["requests"] * 1e6, 1)}


def _cpu_seconds(served: Served) -> float:
    return sum(sum(each.cpu_times()[:2]) for each in served.processes)


@dataclass(frozen=True)
class Watch:
    """Where a Prometheus is, and the processes that watch."""

    address: str
    processes: tuple[psutil.Process, ...]

    @contextmanager
    def still(self) -> Iterator[None]:
        """Nobody watches for the length of the block."""
        for each in self.processes:
            each.suspend()
        try:
            yield
        finally:
            for each in self.processes:
                each.resume()


@contextmanager
def watched(on: Rig) -> Iterator[Watch]:
    """The monitor, and a Prometheus that scrapes all that the platform's list of targets names."""
    program = shutil.which("prometheus")
    if program is None:
        raise NoPrometheus("There is no `prometheus` on PATH; install it: `sudo apt-get install prometheus`.")
    on.platform.start("monitor")
    folder = on.settings.home / "bench-prometheus"
    folder.mkdir(exist_ok=True)
    config = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s"},
        "scrape_configs": [
            {
                "job_name": "platform",
                "file_sd_configs": [{"files": [str(targets_file(on.settings))], "refresh_interval": "1s"}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    options = (f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data")
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([program, *options, f"--web.listen-address={address}"], stdout=log, stderr=log)
    monitor = on.platform.running["monitor"].processes()
    try:
        yield Watch(f"http://{address}", (psutil.Process(process.pid), *monitor))
    finally:
        process.terminate()
        process.wait()
        on.platform.stop("monitor")


def scrapes(prometheus: str) -> dict[str, float]:
    """How often each part was scraped in the last minute, so that a run without monitoring cannot pass as one with it.

    Raises `NoPrometheus` where the service was not.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        found = _query(prometheus, "sum by (job) (count_over_time(up[1m]))")
        up = _query(prometheus, "up")
        if found.get("service") and up.get("service") and up.get("monitor"):
            return found
        if time.monotonic() > deadline:
            raise NoPrometheus(f"Prometheus at {prometheus} scraped {found or 'nothing'}, of which up: {up}.")
        time.sleep(0.2)


def _query(prometheus: str, query: str) -> dict[str, float]:
    try:
        answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": query}, timeout=10).raise_for_status().json()
    except httpx.HTTPError:
        return {}
    return {one["metric"].get("job", ""): float(one["value"][1]) for one in answer["data"]["result"]}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit code 0 whether or not the goal is met, 1 where nothing could be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.bench_monitoring", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="four rounds on few cards")
    parser.add_argument("--rounds", type=int, help=f"rounds (default: {ROUNDS}, quick: 4)")
    parser.add_argument("--output", type=Path, default=REPORT, help="default: %(default)s")
    given = parser.parse_args(arguments)
    size = Size(QUICK, 4) if given.quick else Size(REPORTED, ROUNDS)
    return run(replace(size, rounds=given.rounds or size.rounds), given.output)


def run(size: Size, output: Path) -> int:
    """Measure at this size and write the report; returns the exit code."""
    console = Console(highlight=False)
    report: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()}
    report |= {"connections": size.sizes.connections, "seconds": size.seconds}
    try:
        report["versions"] = versions() | {"prometheus": _prometheus_version()}
        with rig(size.sizes.population, size.sizes.trained_on) as on:
            report |= measured(on, size, lambda text: console.print(f"  {text}"))
    except NoPrometheus as error:
        console.print(str(error))
        return 1
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1))
    low, high = report["ratio_interval"]
    console.print(
        f"With monitoring {report['on_rps']:,.0f}/s, without {report['off_rps']:,.0f}/s: {report['ratio']:.1%} of it "
        f"({low:.1%} to {high:.1%}, the median of {size.rounds} rounds); a worker's CPU for each request "
        f"{report['on_worker_us']:.0f} and {report['off_worker_us']:.0f} µs; "
        f"goal {GOAL:.0%}: {'met' if report['met'] else 'missed'}"
    )
    return 0


def _prometheus_version() -> str:
    program = shutil.which("prometheus")
    if program is None:
        raise NoPrometheus("There is no `prometheus` on PATH; install it: `sudo apt-get install prometheus`.")
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return (told.stdout or told.stderr).split()[2]


if __name__ == "__main__":
    sys.exit(main())
