"""Score the payments of a file against the running platform: `python -m training.score payments.csv scored.csv`.

Each payment is scored over HTTP before it enters the stream, so its windows hold exactly what came before it; what the
hourly batch would have published meanwhile is published at its hours. A label in the file is not looked at. Payments
that are not later than the platform's history are left out: their windows would no longer be what they were.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from feature_repo import sources
from feature_repo.schema import LABEL_PUBLICATION
from feature_repo.settings import Settings, settings
from feature_repo.sources import MissingTable
from feature_repo.store import feature_store
from monitoring.parts import answers_ok
from monitoring.processes import Platform, ending_on_sigterm
from training import batch
from training.datasets import table
from training.datasets.dataset import InvalidDataset
from training.datasets.source import UnreadableSource
from training.datasets.table import InvalidMapping
from training.replaying import ReplayFailed, replay

ASKED = ("transaction_id", "timestamp", "card_id", "merchant_id", "amount")
ANSWERED = ("fraud_probability", "decision", "risk_level", "reasons", "model_version", "degraded")


class NothingToScore(ValueError):
    """The platform is away, or the file has no payment that is later than its history."""


EXPECTED = (UnreadableSource, InvalidMapping, InvalidDataset, MissingTable, NothingToScore, ReplayFailed)
"""What may go wrong without a fault in the code; the messages say what to do."""


@dataclass(frozen=True)
class Scored:
    """One row for each payment scored, in time order, with the columns `ASKED` and `ANSWERED`."""

    rows: pd.DataFrame
    left_out: int
    history_end: datetime


def score(current: Settings, file: Path) -> Scored:
    """Score a file's payments, which then are in the stream and in history. Raises one of `EXPECTED`."""
    if not answers_ok(current.host, current.port, "/readyz"):
        raise NothingToScore(
            f"The service at {current.host}:{current.port} is not ready; start the platform with `make up`."
        )
    store = feature_store(current)
    payments, profiles = table.load_unlabelled(file)
    known = sources.read(store.get_data_source("transactions"), current.offline_path, ["timestamp"]).to_pandas()
    end: datetime = known["timestamp"].max().to_pydatetime()
    later = after(payments, end, file)
    online = end

    def publish(due: datetime) -> None:
        nonlocal online
        batch.run(current, store, online, due, profiles)
        online = due

    publish(later["timestamp"].iloc[0].floor(LABEL_PUBLICATION).to_pydatetime())
    with Platform(current) as platform:
        answers = replay(platform, later, LABEL_PUBLICATION, publish)
    given = [json.loads(line)["answer"] for line in answers.read_text().splitlines()]
    return Scored(beside(later, given), len(payments) - len(later), end)


def after(payments: pd.DataFrame, end: datetime, file: Path) -> pd.DataFrame:
    """The payments that are later than `end`, where history ends; raises `NothingToScore` if none is."""
    later = payments[payments["timestamp"] > end]
    if later.empty:
        raise NothingToScore(
            f"File {str(file)!r}: its {len(payments):,} payments end at {payments['timestamp'].max()}; must be later "
            f"than the platform's history, which ends at {end}. `python -m training.backtest` judges the past."
        )
    return later


def beside(payments: pd.DataFrame, answers: list[dict[str, Any]]) -> pd.DataFrame:
    """The answers beside their payments; the reasons are their codes, the strongest first."""
    told = pd.DataFrame(answers)
    told["reasons"] = [" ".join(reason["code"] for reason in reasons) for reasons in told["reasons"]]
    return payments[list(ASKED)].merge(told[["transaction_id", *ANSWERED]], on="transaction_id", validate="1:1")


def main() -> None:
    """Score a file; exit code 1 where it cannot be done, with the reason in a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("payments", type=Path, help="a CSV or Parquet file, its mapping beside it")
    parser.add_argument("scored", type=Path, help="the CSV file to write")
    arguments = parser.parse_args()
    try:
        with ending_on_sigterm():
            found = score(settings(), arguments.payments)
    except EXPECTED as error:
        raise SystemExit(f"{error}") from None
    arguments.scored.parent.mkdir(parents=True, exist_ok=True)
    found.rows.to_csv(arguments.scored, index=False)
    decided = ", ".join(f"{count:,} {name}" for name, count in found.rows["decision"].value_counts().items())
    print(f"{arguments.scored}: {len(found.rows):,} payments after {found.history_end:%Y-%m-%d %H:%M} UTC: {decided}")
    if found.left_out:
        print(f"{found.left_out:,} payments of the file are not later than that, and were left out.")


if __name__ == "__main__":
    main()
