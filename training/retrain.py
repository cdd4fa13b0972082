"""One round of retraining where it is due: data, validate, train, evaluate, gate, challenger.

`python -m training.retrain --every-days 7 --drift reports/drift/drift.json --performance reports/backtest.json`
The same history, code and settings are the same round: one that was interrupted goes on, one that is done stays so.
Exit codes: 0 a challenger, or nothing due; 1 blocked by the gate; 2 wrong use, or no history or MLflow; 3 unfit data;
4 another round is running. A scheduler that runs a round step by step (`--until`) tells with `--skip-code` what went no
further, as it should, from what went wrong: that is then the code for nothing due and for a gate that blocks.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from feature_repo import sources
from feature_repo.settings import ROOT, Settings, settings
from feature_repo.store import feature_store
from monitoring import job_results
from monitoring.targets import METRICS_PORTS
from training import fingerprint, triggers
from training.export import ParityError
from training.marks import Busy, Marks, alone, digest
from training.models_registry import NoPromise, Registry
from training.promote import Refused
from training.registered import NoSuchVersion
from training.round_steps import STEPS, Round
from training.split import Protocol
from training.triggers import Trigger
from training.validate import DataQualityError
from training.versions import RegistryFailed

DONE, BLOCKED, WRONG, UNFIT, BUSY = range(5)
NOTHING_DUE = "nothing due"

PLACES = {"home", "data", "redis_url", "postgres_url", "mlflow_url", "registry_url", "host", "port", "log_key"}
PLACES |= {"kafka_bootstrap", "kafka_security", "kafka_ca", "kafka_username", "kafka_password"}
PLACES |= {*METRICS_PORTS.values(), "metrics_host", "traces_endpoint"}
"""Settings that say where things are: they don't change what a round finds."""

KEPT = 3
"""Rounds whose files stay."""

Outcome = dict[str, Any]


def window(current: Settings, train_days: int, delay_days: int, test_days: int) -> Protocol:
    """The newest protocol whose test days all have labels: it ends with the last day that is labelled to its last hour.

    Raises `LookupError` where history is too short for it and its earlier fold.
    """
    source = feature_store(current).get_data_source("labels")
    stamps = sources.read(source, current.offline_path, ["timestamp"]).to_pandas()["timestamp"]
    if stamps.empty:
        raise LookupError("No payment has a label; load history first: `python -m training.backfill`.")
    end = (stamps.max() + timedelta(hours=1)).floor("D").to_pydatetime()
    start = end - timedelta(days=train_days + delay_days + test_days)
    protocol = Protocol(start, train_days, delay_days, test_days)
    first = stamps.min().floor("D").to_pydatetime()
    if protocol.earlier().train_start < first:
        raise LookupError(
            f"Labels begin {first:%F}; training {train_days} days, {delay_days} of delay and {test_days} of test need "
            f"them from {protocol.earlier().train_start:%F}. Load more history, or name fewer days."
        )
    return protocol


def key_of(current: Settings, protocol: Protocol) -> str:
    """What makes a round this one: the history up to its end, the protocol, the code and the settings."""
    store = feature_store(current)
    code = [f"{file.relative_to(ROOT)} {digest(file)}" for folder in ("feature_repo", "training", "monitoring")
            for file in sorted((ROOT / folder).rglob("*.py"))]  # fmt: skip
    chosen = current.model_dump_json(exclude=PLACES)
    return fingerprint.of_texts(
        [fingerprint.of_history(store, current, protocol.test_end), str(protocol), chosen, *code]
    )


def due(current: Settings, registry: Registry, asked: argparse.Namespace, now: datetime) -> list[Trigger]:
    """What each trigger that was asked says."""
    found = [triggers.forced()] if asked.force else []
    if asked.every_days is not None:
        found.append(triggers.schedule(registry.newest(), now, asked.every_days))
    if asked.drift is not None:
        found.append(triggers.drift(asked.drift, asked.drift_limit))
    if asked.performance is not None:
        version, promised = registry.promised(asked.metric)
        value = triggers.measured(asked.performance, asked.metric, version)
        found.append(triggers.performance(value, promised, asked.metric, asked.margin))
    return found


def run(
    current: Settings,
    asked: argparse.Namespace,
    told: Callable[[str], None] = print,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Outcome:
    """Look at the triggers and, where one fires, do the round or what is left of it; returns the outcome."""
    home, registry = current.home / "retraining", Registry(current)
    with alone(home):
        said = due(current, registry, asked, now())
        outcome: Outcome = {"triggers": [asdict(one) for one in said]}
        for one in said:
            told(f"{one.name}: {one.because}{'' if one.fired else '; not due'}")
        if not any(one.fired for one in said):
            return outcome | {"outcome": NOTHING_DUE, "code": DONE}
        protocol = window(current, asked.train_days, asked.delay_days, asked.test_days)
        marks = Marks(home, key_of(current, protocol))
        this = Round(current, protocol, marks, registry, told)
        outcome |= {
            "round": marks.key,
            "train_start": f"{protocol.train_start:%F}",
            "test_end": f"{protocol.test_end:%F}",
        }
        if marks.found(next(iter(STEPS))) is None:  # begun now, and neither resumed nor done before
            for fired in (one for one in said if one.fired):
                job_results.add(current.home, "retraining_triggered", reason=fired.name)
        return outcome | go(this, asked.until)


def go(this: Round, until: str | None = None) -> Outcome:
    """Every step that is not done yet, in order, up to a gate that blocks, or up to and with `until`."""
    marks, steps, seconds = this.marks, list(STEPS), {}
    blocked = False
    for place, (name, step) in enumerate(STEPS.items()):
        found = marks.found(name)
        if found is None:
            marks.forget(steps[place:])  # what follows rests on what is made anew
            this.told(f"{name} …")
            began = time.perf_counter()
            found, files = step(this)
            marks.done(name, found, files)
            seconds[name] = round(time.perf_counter() - began, 2)
        else:
            this.told(f"{name}: done before")
        if name == "gate" and not found["passed"]:
            blocked = True
            break
        if name == until:
            break
    marks.tidy(KEPT)
    if name == until and not blocked:
        return {"outcome": f"done until {until}", "seconds": seconds, "code": DONE}
    word = "blocked" if blocked else "challenger"
    return {
        "outcome": word if seconds else f"already done: {word}",
        "version": this.found("train")["version"],
        "test": this.found("evaluate")["test"],
        "gates": this.found("gate")["gates"],
        "seconds": seconds,
        "code": BLOCKED if blocked else DONE,
    }


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.retrain", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every-days", type=float, metavar="N", help="due where no version is younger")
    parser.add_argument("--drift", type=Path, metavar="FILE", help="drift.json of monitoring.drift")
    parser.add_argument("--drift-limit", type=float, default=0.3, help="share of drifted columns that makes it due")
    parser.add_argument("--performance", type=Path, metavar="FILE", help="backtest.json, or {metric: value} measured")
    parser.add_argument("--metric", default="average_precision", choices=triggers.METRICS)
    parser.add_argument(
        "--margin", type=float, default=0.05, help="due where it is that much below the champion's test"
    )
    parser.add_argument("--force", action="store_true", help="due in any case; a round that is done stays so")
    for name, days in (("train", 28), ("delay", 7), ("test", 14)):
        parser.add_argument(f"--{name}-days", type=int, default=days)
    parser.add_argument(
        "--until", choices=list(STEPS)[:-1], help="end after this step; the next call goes on from there"
    )
    parser.add_argument(
        "--skip-code", type=int, metavar="N", help="exit code for nothing due and for a gate that blocks"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the outcome here as JSON")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    from mlflow.exceptions import MlflowException

    asked, console = arguments(given), Console(stderr=True, highlight=False)
    missing = (NoPromise, NoSuchVersion, LookupError, sources.MissingTable, RegistryFailed)
    wrong = (triggers.UnreadableReport, ParityError, Refused, *missing)
    try:
        outcome = run(settings(), asked, lambda line: console.print(line, markup=False))
    except Busy as error:
        outcome = {"outcome": "busy", "because": str(error), "code": BUSY}
    except DataQualityError as error:
        outcome = {"outcome": "unfit", "because": str(error), "code": UNFIT}
    except (*wrong, MlflowException) as error:
        outcome = {"outcome": "failed", "because": str(error), "code": WRONG}
    if "because" in outcome:
        console.print(outcome["because"], markup=False)
    print(json.dumps(outcome))
    if asked.out:
        asked.out.write_text(json.dumps(outcome, indent=1) + "\n")
    stays = outcome["outcome"] == NOTHING_DUE or outcome["code"] == BLOCKED
    return int(outcome["code"] if asked.skip_code is None or not stays else asked.skip_code)


if __name__ == "__main__":
    sys.exit(main())
