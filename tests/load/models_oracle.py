"""What is left to find in a generated history: what an oracle reaches that knows the scenarios and the world.

It learns the scenarios from other worlds made by the same tables, some five times the history that a model has, and
beside the model's columns it is told what nobody could know at the payment: how much and how often the card's honest
holder pays, whether the holder ever pays at this merchant and from this device, and which merchants and devices the
fraudsters were using about that time, labels at once and those of the weeks to come included. Told to it is never the
payment itself, nor another of its card's frauds: those would be the label. What it misses looks honest even so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from xgboost import XGBClassifier

from tests.load import models_sets as sets
from training.datasets import synthetic
from training.evaluate import metrics_of
from training.generate import generate
from training.split import Protocol

ABOUT_THEN = pd.Timedelta(days=15)
"""How far before and after a payment the frauds of others count as of the same time."""

Floats = npt.NDArray[np.float64]


def oracle(home: Path, rows: int, days: int, seeds: Sequence[int], others: Sequence[int]) -> list[dict[str, float]]:
    """The metrics on the test days of the history of each seed; learnt once from those of `others`, all their days."""
    worlds = [_world(home / f"oracle-{other}", rows, days, other) for other in others]
    model = XGBClassifier(n_estimators=400, max_depth=6, learning_rate=0.1, subsample=0.8, random_state=7)
    model.fit(np.vstack([told for told, _, _ in worlds]), np.concatenate([frame["is_fraud"] for _, frame, _ in worlds]))
    reached = []
    for seed in seeds:
        told, frame, protocol = _world(home / f"oracle-{seed}", rows, days, seed)
        test = protocol.test(frame)
        reached.append(metrics_of(frame[test], model.predict_proba(told[test])[:, 1].astype(np.float64)))
    return reached


def _world(home: Path, rows: int, days: int, seed: int) -> tuple[Floats, pd.DataFrame, Protocol]:
    raw = generate(rows, seed, days)
    made = sets.comparison(synthetic.adapt(raw), home, sets.one_protocol)
    told = pd.DataFrame(hindsight(raw), index=raw["transaction_id"])
    here = told.loc[made.data.rows["transaction_id"]].to_numpy()
    return np.hstack([made.data.vectors, here]), made.data.rows, made.protocols[0]


def hindsight(raw: pd.DataFrame) -> dict[str, Floats]:
    """What the oracle is told of each payment of `training.generate`, a column each; NaN where there is nothing."""
    amount = np.log(raw["amount"].to_numpy())
    mean, deviation, count = _others_honest(raw, amount)
    return {
        "honest_payments": count,
        "amount_to_honest": (amount - mean) / deviation,
        "pays_here": _honest_pairs(raw, "merchant_id"),
        "pays_by_it": _honest_pairs(raw, "device_id"),
        "merchant_frauds": _frauds_of_others(raw, "merchant_id"),
        "merchant_payments": raw.groupby("merchant_id")["amount"].transform("size").to_numpy(np.float64),
        "device_frauds": _frauds_of_others(raw, "device_id"),
    }


def _others_honest(raw: pd.DataFrame, amount: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean, deviation and number of the card's honest log amounts, the payment itself left out."""
    honest = (raw["is_fraud"] == 0).to_numpy(np.float64)
    own = pd.DataFrame({"n": honest, "sum": honest * amount, "squares": honest * amount**2})
    left = own.groupby(raw["card_id"].to_numpy()).transform("sum") - own
    count = left["n"].to_numpy()
    known = np.where(count > 1, count, np.nan)
    mean = left["sum"].to_numpy() / known
    return mean, np.sqrt(np.maximum(left["squares"].to_numpy() / known - mean**2, 1e-4)), count


def _honest_pairs(raw: pd.DataFrame, column: str) -> Floats:
    """How many honest payments the card makes there in all of its history, the payment itself left out."""
    honest = (raw["is_fraud"] == 0).astype("float64")
    return (honest.groupby([raw["card_id"], raw[column]]).transform("sum") - honest).to_numpy()


def _frauds_of_others(raw: pd.DataFrame, column: str) -> Floats:
    """How many frauds there are of other cards by the same merchant or device, about that time."""
    frauds = raw.loc[raw["is_fraud"] == 1, [column, "card_id", "timestamp"]]
    asked = raw[[column, "card_id", "timestamp"]].dropna().reset_index(names="row")
    pairs = asked.merge(frauds, on=column, suffixes=("", "_fraud"))
    near = (pairs["timestamp"] - pairs["timestamp_fraud"]).abs() <= ABOUT_THEN
    counted = pairs.loc[near & (pairs["card_id"] != pairs["card_id_fraud"])].groupby("row").size()
    found = counted.reindex(raw.index, fill_value=0).to_numpy(np.float64)
    return np.where(raw[column].isna(), np.nan, found)
