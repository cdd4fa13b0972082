"""A generated history of any size in the offline store, made world after world in bounded memory.

Each world is a history of `training.generate` with cards and merchants of its own; all lie in the same days, so the
store holds them as it would hold one large population. A card's profile is published once in `PROFILE_DAYS`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pandas as pd

from feature_repo import sources
from feature_repo.settings import Settings
from feature_repo.store import apply, feature_store
from training import backfill, batch
from training.datasets.synthetic import adapt
from training.generate import START, generate

WORLD = 500_000
"""Payments of a world."""

PROFILE_DAYS = 28
"""Days from one snapshot of the profiles to the next; each midnight's would outgrow the payments by a hundredfold."""


def fill(
    current: Settings, rows: int, days: int, seed: int = 7, told: Callable[[str], object] = lambda line: None
) -> None:
    """Load `rows` payments over `days` days from 2024-01-01 with labels and profiles, as parts `world-000`, ...

    A world that is there, of the same rows, days and seed, is left as it is. For the embedded profile.
    """
    current.home.mkdir(parents=True, exist_ok=True)
    mark = current.home / "generated.json"
    given = {"rows": rows, "days": days, "seed": seed}
    if mark.exists() and json.loads(mark.read_text()) != given:
        raise ValueError(
            f"{current.home} holds another history, {mark.read_text()}; asked for {given}. Name a new home."
        )
    mark.write_text(json.dumps(given))
    apply(current)
    profiles = feature_store(current).get_data_source("card_profiles")
    folder = sources.parquet_path(profiles, current.offline_path)
    midnights = [START.to_pydatetime() + timedelta(days=day) for day in range(PROFILE_DAYS, days, PROFILE_DAYS)]
    with tempfile.TemporaryDirectory(prefix="tollgate-world-", dir=current.home) as home:
        alone = current.model_copy(update={"home": Path(home)})
        apply(alone)
        for number, size in enumerate(_sizes(rows)):
            if (folder / f"world-{number:03d}.parquet").exists():  # it is written last
                continue
            world = adapt(_renamed(generate(size, seed + number, days), f"{number:03d}-"))
            backfill.load(world.transactions, current, f"world-{number:03d}")
            backfill.load(world.transactions, alone, "world")
            found = batch.snapshots(alone, midnights, world.profiles)
            sources.append(profiles, current.offline_path, found, f"world-{number:03d}")
            told(f"world {number + 1}: {size:,} payments, {len(found):,} profiles")


def _sizes(rows: int) -> list[int]:
    """`rows` divided evenly over as few worlds as hold them."""
    worlds = -(-rows // WORLD)
    return [rows // worlds + (number < rows % worlds) for number in range(worlds)]


def _renamed(frame: pd.DataFrame, prefix: str) -> pd.DataFrame:
    named = {name: prefix + frame[name] for name in ("transaction_id", "card_id", "merchant_id")}
    return frame.assign(**named)
