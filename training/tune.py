"""Search for the candidates' parameters on folds that end before a model's test days, and write the best as JSON.

With `--dataset` the data set is loaded below FRAUD_HOME, apart from the platform's own history; without, that history
is searched on. The same command takes a search up again that was broken off, and goes on with one that is done if it
is given more.
`python -m training.tune --dataset handbook --train-start 2018-06-20 --train-days 7 --minutes 30 --out tuned.json`
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from feature_repo import sources
from feature_repo.settings import Settings, settings
from feature_repo.sources import MissingTable
from feature_repo.store import apply, feature_store
from training import backfill, batch
from training.dataset import TrainingSet, training_set
from training.datasets.catalogue import load_dataset
from training.datasets.source import UnreadableSource
from training.folds import FOLDS, Fold, NoFolds, prequential, split
from training.models import CANDIDATES
from training.search import Budget, Found, search
from training.search_log import MlflowSearch
from training.search_progress import Shown
from training.split import Protocol, default_protocol
from training.validate import DataQualityError, require, validate

__all__ = ["Budget", "Found", "search", "search_all"]

MINUTES = 30.0
"""For all candidates together, unless told otherwise."""

EXPECTED = (NoFolds, UnreadableSource, DataQualityError, MissingTable)
"""What may be wrong with the data; the messages say what to do."""

WARM = timedelta(days=30)
"""Days of history that fill the windows before the first fold."""


def search_all(
    names: Sequence[str],
    folds: Sequence[Fold],
    budget: Budget,
    storage: Path,
    console: Console,
    log: MlflowSearch | None = None,
) -> dict[str, Found]:
    """Search for each candidate in turn, sharing the minutes evenly; the trials are each one's own."""
    each = Budget(None if budget.minutes is None else budget.minutes / len(names), budget.trials)
    shown = Shown(console)
    return {name: search(name, folds, each, storage, log, shown) for name in names}


def load(name: str, current: Settings, arguments: argparse.Namespace) -> tuple[TrainingSet, list[Protocol]]:
    """A data set's folds, from nothing: loaded, validated, and with its features as of each payment."""
    dataset = load_dataset(name, current.data, rows=arguments.rows)
    require(validate(dataset))
    rows = dataset.transactions
    protocol = _protocol(arguments, dataset.name, rows["timestamp"])
    found = prequential(protocol, arguments.folds, rows["timestamp"].min().to_pydatetime() + WARM)
    own = {"home": _folder(current) / dataset.name, "profile": "embedded", "registry_url": None}
    apart = current.model_copy(update=own)
    apart.home.mkdir(parents=True, exist_ok=True)
    store = apply(apart)
    backfill.load(rows[rows["timestamp"] < found[-1].test_end], apart, "history")
    begin, end = found[0].train_start, found[-1].test_end
    batch.publish(apart, batch.midnights(begin, end), dataset.profiles, "history")
    return training_set(store, apart, begin, end), found


def stored(current: Settings, arguments: argparse.Namespace) -> tuple[TrainingSet, list[Protocol]]:
    """The folds of what the offline store holds."""
    store = feature_store(current)
    source = store.get_data_source("transactions")
    stamps = pd.Series(sources.read(source, current.offline_path, ["timestamp"]).to_pandas()["timestamp"])
    protocol = _protocol(arguments, "history", stamps)
    found = prequential(protocol, arguments.folds, stamps.min().to_pydatetime())
    return training_set(store, current, found[0].train_start, found[-1].test_end), found


def _protocol(arguments: argparse.Namespace, name: str, stamps: pd.Series) -> Protocol:
    if arguments.train_start is None:
        return default_protocol(name, stamps)
    days = (arguments.train_days, arguments.delay_days, arguments.test_days)
    return Protocol(arguments.train_start, *days)


def _folder(current: Settings) -> Path:
    return current.home / "tuning"


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", help="handbook, sparkov, synthetic or a file; default: what history holds")
    parser.add_argument("--rows", type=int, default=100_000, help="payments of a generated set")
    parser.add_argument("--train-start", type=lambda text: datetime.fromisoformat(text + "T00:00:00+00:00"))
    for name in ("train", "delay", "test"):
        parser.add_argument(f"--{name}-days", type=int, default=7)
    parser.add_argument("--folds", type=int, default=FOLDS, help="folds before the training days end")
    parser.add_argument("--candidates", nargs="+", choices=list(CANDIDATES), default=list(CANDIDATES))
    parser.add_argument("--minutes", type=float, help=f"for all together; default {MINUTES:g} without --trials")
    parser.add_argument("--trials", type=int, help="for each candidate, those of earlier rounds included")
    parser.add_argument("--mlflow", action="store_true", help="log to the tracking server of FRAUD_MLFLOW_URL")
    parser.add_argument("--out", type=Path, help="write the parameters here as JSON, for training.train --tuned")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Search, show what was found, and write it."""
    arguments, current, console = _arguments(given), settings(), Console()
    minutes = MINUTES if arguments.minutes is None and arguments.trials is None else arguments.minutes
    try:
        with console.status("… loading the folds"):
            asked = (current, arguments)
            data, protocols = load(arguments.dataset, *asked) if arguments.dataset else stored(*asked)
            folds = split(data, protocols)
    except EXPECTED as error:
        raise SystemExit(str(error)) from None
    console.print(f"{len(folds)} folds, tested on {protocols[0].test_start:%F} to {protocols[-1].test_end:%F}")
    log = MlflowSearch(current.mlflow_url, arguments.dataset or "history") if arguments.mlflow else None
    budget = Budget(minutes, arguments.trials)
    found = search_all(arguments.candidates, folds, budget, _folder(current), console, log)
    table = Table("candidate", "settled", "best", "trials", "parameters")
    for name, best in found.items():
        score = f"{best.settled_score:.4f}", f"{best.score:.4f}", str(best.trials)
        table.add_row(name, *score, json.dumps(best.parameters))
    console.print(table)
    if arguments.out:
        arguments.out.write_text(json.dumps({name: best.parameters for name, best in found.items()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
