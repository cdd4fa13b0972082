"""Gates of the data: is the window one to judge on, is it like what was trained on, and does a column know too much."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from feature_repo.schema import LABEL_DELAY
from monitoring.comparison import compare, distance
from monitoring.drift import DRIFT_SHARE
from training.case import Case, Finding
from training.verdicts import MissingEvidence, Number

LEAST_PAYMENTS = 1_000
LEAST_FRAUDS = 50
LEAST_CARDS = 25
"""Compromised cards: payments of one card are one piece of evidence."""

UNLABELLED = 0.001
"""Share of payments that may be without a label."""

SAMPLED = 20_000

REFERENCE_FRAUDS = 10
"""Frauds that a sample of the training days must have to say anything of single columns."""

KNOWS = 0.99
"""AUC-ROC that a single column cannot have but by knowing the label."""

LOST = 0.15
"""A column that loses so much AUC-ROC from training to the window had there what it has not now: the label."""

LARGEST = float(np.finfo(np.float32).max)

CLAIMED = 0.1
"""A version that was chosen by so much more AUC-ROC than it has now was chosen by what it could not know."""

SUSPECT = 0.9
TOO_GOOD = (0.9995, 0.995)
"""AUC-ROC and average precision that no model of card fraud has on payments it has not seen."""


def window(case: Case) -> Finding:
    """Later than all that both have seen, with labels that are known, and payments enough to say something."""
    if isinstance(case.found, str):
        raise MissingEvidence(case.found)
    found, card = case.found, case.found.card()
    rows = found.data.rows
    compromised = int(rows["card_id"][rows["is_fraud"] == 1].nunique())
    numbers = {"payments": card.payments, "frauds": card.frauds, "compromised cards": compromised}
    told = f"{card.begin:%F} to {card.end:%F}: {card.payments:,} payments, {card.frauds} frauds on {compromised} cards"
    for graph in (case.challenger, case.rival if case.role == "champion" else None):
        if graph is not None and found.begin < (seen := datetime.fromisoformat(graph.contract.trained_until)):
            return "block", f"{told}; {graph} has seen payments until {seen:%F}", {**numbers}
    if found.end + LABEL_DELAY > found.as_of + timedelta(days=1):
        raise MissingEvidence(f"{told}; the last labels are known on {found.end + LABEL_DELAY:%F} only")
    share = found.unlabelled / max(found.unlabelled + len(rows), 1)
    if share > UNLABELLED:
        raise MissingEvidence(f"{told}; {found.unlabelled:,} more ({share:.1%}) have no label yet")
    if card.payments < LEAST_PAYMENTS or card.frauds < LEAST_FRAUDS or compromised < LEAST_CARDS:
        raise MissingEvidence(
            f"{told}; at least {LEAST_PAYMENTS:,}, {LEAST_FRAUDS} and {LEAST_CARDS} are needed to tell two models apart"
        )
    return "pass", told, {**numbers}


def drift(case: Case) -> Finding:
    """Are the window's vectors like those the version was trained on: as `monitoring.drift`, with the same limits."""
    columns = list(case.challenger.contract.columns)
    before = case.challenger.reference[columns]
    after = pd.DataFrame(case.vectors, columns=columns)
    sampled = [one.sample(min(len(one), SAMPLED), random_state=0).astype("float64") for one in (before, after)]
    made = compare(*sampled)
    if not made.thresholds:
        raise MissingEvidence("no column can be compared")
    beyond = {name: distance(made, name) / limit for name, limit in made.thresholds.items()}
    moved = sorted((name for name, times in beyond.items() if times >= 1), key=lambda name: -beyond[name])
    share = len(moved) / len(beyond)
    farthest = ", ".join(f"{name} ({beyond[name]:.1f} times its limit)" for name in moved[:3])
    told = f"{len(moved)} of {len(beyond)} columns have moved ({share:.0%})" + (f": {farthest}" if moved else "")
    numbers = {"columns": len(beyond), "moved": len(moved), "share": share}
    return "block" if share >= DRIFT_SHARE else "pass", told, {**numbers}


def leakage(case: Case) -> Finding:
    """Does a column tell fraud alone, here or where the version was trained; is the whole too good to be true."""
    reference, names = case.challenger.reference, case.challenger.contract.columns
    known, fraud = int(reference["is_fraud"].sum()), case.rows["is_fraud"].to_numpy()
    if not REFERENCE_FRAUDS <= known < len(reference):
        raise MissingEvidence(f"the sample of what it was trained on has {known} frauds, fewer than {REFERENCE_FRAUDS}")
    now = alone(case.vectors, fraud)
    then = alone(reference[list(names)].to_numpy(np.float32), reference["is_fraud"].to_numpy())
    knowing = [name for name, one, other in zip(names, now, then, strict=True) if max(one, other) >= KNOWS]
    lost = [
        name
        for name, one, other in zip(names, now, then, strict=True)
        if other >= SUSPECT and other - one >= LOST and name not in knowing
    ]
    auc, average = roc_auc_score(fraud, case.scores), average_precision_score(fraud, case.scores)
    claimed = case.challenger.chosen_by["auc_roc"]
    best = int(np.argmax(np.maximum(now, then)))
    numbers: dict[str, Number] = {
        "best column": names[best],
        "its AUC-ROC in the window": float(now[best]),
        "its AUC-ROC in training": float(then[best]),
        "AUC-ROC it was chosen by": claimed,
        "AUC-ROC": float(auc),
        "average precision": float(average),
    }
    told = f"best single column {names[best]}: AUC-ROC {then[best]:.3f} in training, {now[best]:.3f} in the window"
    wrong = [f"{name} alone tells fraud" for name in knowing] + [
        f"{name} knew in training what it does not" for name in lost
    ]
    if auc >= TOO_GOOD[0] or average >= TOO_GOOD[1]:
        wrong.append(f"AUC-ROC {auc:.4f} and average precision {average:.4f} are too good to be true")
    if claimed - auc >= CLAIMED:
        wrong.append(f"chosen by AUC-ROC {claimed:.3f}, it has {auc:.3f} on payments it has not seen")
    return "block" if wrong else "pass", "; ".join([told, *wrong]), numbers


def alone(vectors: npt.NDArray[np.float32], fraud: npt.NDArray[np.int8]) -> npt.NDArray[np.float64]:
    """For each column the AUC-ROC of a model that knows it alone, whichever way it points; null is a value like any."""
    frauds, others = int(fraud.sum()), int(len(fraud) - fraud.sum())
    ways = []
    for null in (-LARGEST, LARGEST):
        ranks = rankdata(np.nan_to_num(vectors, nan=null), axis=0)  # Mann and Whitney's U, over all pairs
        way = (ranks[fraud == 1].sum(0) - frauds * (frauds + 1) / 2) / (frauds * others)
        ways += [way, 1 - way]
    return np.asarray(np.max(ways, axis=0), np.float64)
