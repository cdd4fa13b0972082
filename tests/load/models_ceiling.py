"""The Handbook's ceiling: what somebody reaches who knows how its frauds were made, and no label too early.

The generator makes three frauds. Every payment over 220 is one (1). Two terminals a day are taken over, and every
payment there in the next 28 days is one (2). Three cards a day are taken over for 14 days: a third of their payments
are multiplied by five, and are frauds (3). The oracle knows these rules, the mean and deviation of each card's honest
amounts (from all of the history, so more than anybody could), and of each taken-over terminal since when it is and
for how long, but this only from its first fraud's label on, as everybody else. Until then a terminal is as suspect as
the time since its last payment known to be honest is long. What is left is the generator's own noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from training.datasets import handbook
from training.datasets.source import read_columns
from training.evaluate import metrics_of
from training.split import Protocol

ALWAYS_FRAUD_FROM = 220.0
TERMINALS_A_DAY, TERMINALS, TERMINAL_DAYS = 2, 10_000, 28
CARDS_A_DAY, CARDS, CARD_DAYS = 3, 4_990, 14
TIMES, SHARE = 5.0, 1 / 3
LABEL_DELAY = timedelta(days=7)
SCENARIO = "TX_FRAUD_SCENARIO"

Floats = npt.NDArray[np.float64]


class TakenOver(NamedTuple):
    """A terminal's spell in crooked hands: from the midnight of its first fraud, known since that fraud's label."""

    since: pd.Timestamp
    known: pd.Timestamp


def ceiling(folder: Path, protocol: Protocol) -> dict[str, float]:
    """The metrics that the oracle reaches on the test days of a split."""
    rows = _payments(folder)
    inside = rows[(rows["timestamp"] >= protocol.train_start) & (rows["timestamp"] < protocol.test_end)]
    test = inside[protocol.test(inside)]
    recent = rows[rows["timestamp"] >= protocol.test_start - timedelta(days=CARD_DAYS)]
    by_evidence = 1.0 - (1.0 - _terminals(test, rows)) * (1.0 - _cards(test, recent, _habits(rows)))
    return metrics_of(test, np.where(test["amount"] > ALWAYS_FRAUD_FROM, 1.0, by_evidence))


def _payments(folder: Path) -> pd.DataFrame:
    raw = read_columns(folder / handbook.FILE, [*handbook.COLUMNS, SCENARIO])
    rows = raw.rename(columns={**handbook.COLUMNS, SCENARIO: "scenario"})
    rows["timestamp"] = rows["timestamp"].dt.tz_localize("UTC").dt.as_unit("us")
    return rows.sort_values("timestamp", kind="stable", ignore_index=True)


def _taken_over(rows: pd.DataFrame) -> dict[int, list[TakenOver]]:
    found: dict[int, list[TakenOver]] = {}
    frauds = rows.loc[rows["scenario"] == 2, ["merchant_id", "timestamp"]]
    for terminal, instant in frauds.itertuples(index=False):
        spells = found.setdefault(terminal, [])
        if not spells or instant >= spells[-1].since + timedelta(days=TERMINAL_DAYS):
            spells.append(TakenOver(instant.floor("D"), instant + LABEL_DELAY))
    return found


def _terminals(test: pd.DataFrame, rows: pd.DataFrame) -> Floats:
    """The probability of a fraud by a terminal: certain where its label is known, else that it was taken over since."""
    spells = _taken_over(rows)
    asked = zip(test["merchant_id"], test["timestamp"], strict=True)
    known = np.array([_is_known(spells.get(terminal, ()), at) for terminal, at in asked])
    unwatched = _since_known_honest(test, rows) / timedelta(days=1)
    return np.where(known, 1.0, TERMINALS_A_DAY / TERMINALS * unwatched.clip(upper=TERMINAL_DAYS).to_numpy())


def _since_known_honest(test: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    """How long ago each payment's terminal had its last payment that is known by now not to be of scenario 2."""
    honest = rows.loc[rows["scenario"] != 2, ["merchant_id", "timestamp"]]
    known = honest.assign(known=(honest["timestamp"] + LABEL_DELAY).dt.as_unit("us")).rename(
        columns={"timestamp": "paid"}
    )
    asked = test[["merchant_id", "timestamp"]]
    found = pd.merge_asof(asked, known, left_on="timestamp", right_on="known", by="merchant_id")
    never = timedelta(days=TERMINAL_DAYS)
    return (found["timestamp"] - found["paid"]).fillna(never)


def _is_known(spells: Sequence[TakenOver], at: pd.Timestamp) -> bool:
    return any(s.known < at < s.since + timedelta(days=TERMINAL_DAYS) for s in spells)


def _habits(rows: pd.DataFrame) -> pd.DataFrame:
    honest = rows[rows["scenario"] == 0].groupby("card_id")["amount"].agg(["mean", "std"])
    return honest.assign(std=honest["std"].fillna(honest["mean"] / 2))  # the generator's own deviation


def _cards(test: pd.DataFrame, recent: pd.DataFrame, habits: pd.DataFrame) -> Floats:
    """The probability of a fraud by a card, from its amount and the card's others of the last days, without labels."""
    evidence = _times_likelier(recent, habits)
    past = {
        card: (group["day"].to_numpy(), np.log(1 - SHARE + SHARE * group["likelier"].to_numpy()))
        for card, group in evidence.groupby("card_id")
    }
    own = _times_likelier(test, habits)
    daily = CARDS_A_DAY / CARDS
    found = np.empty(len(own))
    for place, (card, day, likelier) in enumerate(own[["card_id", "day", "likelier"]].itertuples(index=False)):
        days, logs = past[card]
        begins = np.arange(day - CARD_DAYS + 1, day + 1)
        seen = (days > day - CARD_DAYS) & (days < day)
        weights = np.exp(((days[seen] >= begins[:, None]) * logs[seen]).sum(axis=1)) * daily
        taken = weights.sum() / (weights.sum() + 1 - CARD_DAYS * daily)
        fraud = taken * SHARE * likelier
        found[place] = fraud / (fraud + taken * (1 - SHARE) + 1 - taken)
    return found


def _times_likelier(rows: pd.DataFrame, habits: pd.DataFrame) -> pd.DataFrame:
    """How much likelier each amount is of five times the card's usual than of the usual (both normal)."""
    habit = habits.reindex(rows["card_id"])
    mean, std, amount = habit["mean"].to_numpy(), habit["std"].to_numpy(), rows["amount"].to_numpy()
    usual, times = ((amount - mean) / std) ** 2 / 2, ((amount - TIMES * mean) / (TIMES * std)) ** 2 / 2
    likelier = np.nan_to_num(np.exp(np.clip(usual - times, -30, 30)) / TIMES, nan=1.0)
    day = (rows["timestamp"] - pd.Timestamp(0, tz="UTC")) // timedelta(days=1)
    return pd.DataFrame({"card_id": rows["card_id"], "day": day, "likelier": likelier})
