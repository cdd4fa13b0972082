"""Generate a history of card payments with known frauds: `python -m training.generate --out FILE.parquet`.

The same arguments give the same frame, byte for byte. Everything is drawn from one seeded generator; `scenario` says
how a fraud was made, is for analysis, and reaches neither `Dataset` nor a feature.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from training.attacks import attack
from training.population import populate
from training.records import record
from training.scenarios import SCENARIOS, Scenarios
from training.spending import HABITS, Habits, spend

START = pd.Timestamp("2024-01-01", tz="UTC")
FRAUD_SHARE = 0.012
ROWS_PER_CARD, ROWS_PER_MERCHANT = 50, 100
LEAST_ROWS, LEAST_DAYS = 1_000, 30


def generate(
    rows: int = 100_000,
    seed: int = 7,
    days: int = 150,
    *,
    fraud_share: float = FRAUD_SHARE,
    scenarios: Scenarios = SCENARIOS,
    habits: Habits = HABITS,
) -> pd.DataFrame:
    """Return `rows` payments over `days` days from 2024-01-01 UTC, sorted by time, one card for every 50 rows.

    The columns are those of the transaction schema, the label, the scenario and what a bank would know besides.
    Raises `ValueError` where there are too few rows or days for every scenario, or `fraud_share` is no share.
    """
    if rows < LEAST_ROWS or days < LEAST_DAYS or not 0.0 < fraud_share < 0.5:
        raise ValueError(
            f"generate(rows={rows}, days={days}, fraud_share={fraud_share}): needs rows >= {LEAST_ROWS}, "
            f"days >= {LEAST_DAYS} and 0 < fraud_share < 0.5; raise or correct the argument."
        )
    rng = np.random.default_rng(seed)
    cards, merchants = max(rows // ROWS_PER_CARD, 20), max(rows // ROWS_PER_MERCHANT, 60)
    world = populate(rng, cards=cards, merchants=merchants, start=START, days=days)
    frauds = round(rows * fraud_share)
    honest = spend(rng, world, rows - frauds, habits)
    fraudulent = attack(rng, world, honest, frauds, scenarios)
    return record(rng, world, pd.concat([honest, fraudulent], ignore_index=True), START)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a generated history to a Parquet file and say what is in it."""
    parser = argparse.ArgumentParser(prog="python -m training.generate", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--days", type=int, default=150)
    parser.add_argument("--out", type=Path, required=True, help="the Parquet file to write")
    chosen = parser.parse_args(arguments)
    try:
        frame = generate(chosen.rows, chosen.seed, chosen.days)
    except ValueError as error:
        parser.error(str(error))
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(chosen.out, index=False)
    frauds = frame.loc[frame["is_fraud"] == 1, "scenario"].value_counts()
    kinds = ", ".join(f"{name} {count:,}" for name, count in frauds.items())
    share = frame["is_fraud"].mean()
    print(f"{chosen.out}: {len(frame):,} rows, {frame.shape[1]} columns, {share:.2%} fraud ({kinds})")


if __name__ == "__main__":
    main()
