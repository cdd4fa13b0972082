"""The command line of `python -m training.train`: from a data set, or from what the offline store holds, to a version.

What it needs is made if it is not there and used if it is: the data set's history, its features, and MLflow where
`FRAUD_MLFLOW_URL` names this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
from rich.console import Console

from feature_repo import sources
from feature_repo.settings import Settings, settings
from feature_repo.sources import MissingTable
from feature_repo.store import feature_store
from monitoring.parts import LOOPBACK, answers_ok
from monitoring.processes import Platform, ending_on_sigterm
from monitoring.supervision import PartFailed
from training import comparison, evidence, first, history, train
from training.calibrate import NotCalibrated
from training.dataset import TrainingSet, training_set
from training.datasets.dataset import InvalidDataset
from training.datasets.source import UnreadableSource
from training.datasets.synthetic import ROWS
from training.export import ParityError
from training.promote import Refused
from training.split import Protocol, default_protocol
from training.validate import DataQualityError

EXPECTED = (UnreadableSource, InvalidDataset, DataQualityError, history.UncoveredWindow, train.UnknownCandidate,
            MissingTable, PartFailed, ParityError, NotCalibrated, Refused)  # fmt: skip
"""What may go wrong without a fault in the code; the messages say what to do."""


class InvalidTuning(ValueError):
    """A file of parameters that is none."""


def _day(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}T00:00:00+00:00")


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """What is asked for on the command line; `given` stands in for the process's own arguments."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description=train.__doc__)
    parser.add_argument(
        "--dataset", help="handbook, sparkov, synthetic or a file; default: what the offline store holds"
    )
    parser.add_argument("--rows", type=int, default=ROWS, help="payments to generate, where they are generated")
    parser.add_argument(
        "--train-start", type=_day, metavar="DATE", help="default: the published protocol, or the last days"
    )
    for name in ("train", "delay", "test"):
        parser.add_argument(f"--{name}-days", type=int, default=7, metavar="N", help="with --train-start; default: 7")
    parser.add_argument(
        "--candidates", default="", metavar="A,B", help=f"of {', '.join(train.CANDIDATES)}; default: all"
    )
    parser.add_argument("--tuned", type=Path, metavar="FILE", help="JSON, {candidate: {parameter: value}}")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the test metrics here as JSON")
    chosen = parser.parse_args(given)
    for name in ("train", "delay", "test"):
        days = getattr(chosen, f"{name}_days")
        if days < (0 if name == "delay" else 1):
            parser.error(f"--{name}-days is {days}; must be at least {0 if name == 'delay' else 1}")
    return chosen


@contextlib.contextmanager
def tracking(current: Settings) -> Iterator[Callable[[], None]]:
    """MLflow at the address of the settings for the length of the block; what it gives waits until it answers.

    One that answers already is used, one on this machine started and ended with the block. Raises `PartFailed` where
    another machine's does not answer.
    """
    at = urlsplit(current.mlflow_url)
    host, port = at.hostname or "", at.port or {"https": 443}.get(at.scheme, 80)
    if host not in LOOPBACK or answers_ok(host, port, "/health"):
        yield lambda: None
        return
    with Platform(current) as platform, ThreadPoolExecutor(1) as pool:
        yield pool.submit(platform.start, "mlflow").result


def _of_dataset(current: Settings, asked: argparse.Namespace, say: Callable[[str], None]) -> tuple[Any, ...]:
    """The data set's own store, with what a round needs of it."""
    found = history.prepare(current, asked.dataset, asked.rows, say)
    stamps = pd.Series([found.loaded.first, found.loaded.end - pd.Timedelta(microseconds=1)])
    protocol = _protocol(asked, found.loaded.name, stamps)
    found.covers(protocol)
    say("publishing card profiles")
    found.publish_profiles(protocol)
    return found.loaded.name, found.settings, found.store, protocol


def _of_store(current: Settings, asked: argparse.Namespace) -> tuple[Any, ...]:
    """What the platform's own offline store holds."""
    store = feature_store(current)
    source = store.get_data_source("transactions")
    stamps = pd.Series(sources.read(source, current.offline_path, ["timestamp"]).to_pandas()["timestamp"])
    protocol = _protocol(asked, "history", stamps)
    first, last = (stamp.floor("D").to_pydatetime() for stamp in (stamps.min(), stamps.max()))
    history.covers("history", first, last + history.DAY, protocol)
    return "history", current, store, protocol


def _protocol(asked: argparse.Namespace, name: str, stamps: pd.Series) -> Protocol:
    if asked.train_start:
        return Protocol(asked.train_start, asked.train_days, asked.delay_days, asked.test_days)
    return default_protocol(name, stamps)


def _tuned(file: Path | None) -> train.Parameters:
    if file is None:
        return {}
    try:
        found = json.loads(file.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InvalidTuning(f"File '{file}' cannot be read as parameters: {error}.") from None
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise InvalidTuning(f"File '{file}' must be an object of objects: {{candidate: {{parameter: value}}}}.")
    return found


def report(outcome: train.Round, dataset: str, seconds: dict[str, float]) -> dict[str, Any]:
    """A round as JSON: the test metrics of every candidate, each with its `intervals` as [low, high]."""

    def metrics(fitted: train.Fitted) -> dict[str, Any]:
        bounds = {name: each[1:] for name, each in evidence.as_json(fitted.intervals).items()}
        values = {name: value if value == value else None for name, value in fitted.test.items()}
        return {**values, "intervals": bounds}

    best = outcome.fitted[outcome.champion]
    return {
        "dataset": dataset,
        "champion": outcome.champion,
        "version": outcome.version,
        "models": {name: metrics(fitted) for name, fitted in outcome.fitted.items()},
        "earlier_fold": {name: fitted.chosen_on for name, fitted in outcome.fitted.items()},
        "fallback": metrics(outcome.fallback),
        "fallback_version": outcome.fallback_version,
        "thresholds": evidence.cuts_as_json(best),
        "segments": evidence.segments_as_json(outcome.segments),
        "protocol": evidence.protocol_as_json(outcome.protocol),
        "train_rows": outcome.train_rows,
        "test_rows": len(outcome.test.rows),
        "test_frauds": int(outcome.test.rows["is_fraud"].sum()),
        "seconds": {name: round(spent, 2) for name, spent in seconds.items()},
    }


def run(asked: argparse.Namespace, current: Settings, console: Console) -> dict[str, Any]:
    """Prepare, train, register; returns the report."""
    began, spent = time.perf_counter(), {}

    def say(text: str) -> None:
        console.print(f"[dim]{time.perf_counter() - began:6.1f} s[/]  {text}")

    tuned = _tuned(asked.tuned)
    names = [name for name in asked.candidates.split(",") if name]
    with tracking(current) as ready:
        dataset, own, store, protocol = _of_dataset(current, asked, say) if asked.dataset else _of_store(current, asked)
        spent["history"] = time.perf_counter() - began
        say("point-in-time training set")
        data: TrainingSet = training_set(store, own, protocol.earlier().train_start, protocol.test_end)
        spent["training set"] = time.perf_counter() - began - spent["history"]
        ready()
        outcome = train.run(current, dataset, protocol, data, say, names=names, tuned=tuned, features=own)
        say("the gates of promotion")
        promoted = first.introduce(current, outcome, own)
    console.print(comparison.side_by_side(outcome.fitted, outcome.champion, "chosen"))
    said = first.told(promoted)
    console.print(f"Registered as version {outcome.version} of {current.model_name}: {said}.", markup=False)
    if promoted.event is None:
        console.print("`python -m training.promote show` says more, `promote` makes it champion.")
    seconds = spent | outcome.seconds | {"total": time.perf_counter() - began}
    return {"verdict": str(promoted.verdict)} | report(outcome, dataset, seconds)


def main(given: Sequence[str] | None = None) -> None:
    """The command; exit code 1 where it cannot be done, with the reason in a line."""
    asked = arguments(given)
    os.environ.setdefault("FEAST_USAGE", "False")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    try:
        with ending_on_sigterm():
            found = run(asked, settings(), console)
    except (*EXPECTED, InvalidTuning) as error:
        raise SystemExit(f"{error}") from None
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(found, indent=2) + "\n")
        console.print(f"Metrics: {asked.out}")
