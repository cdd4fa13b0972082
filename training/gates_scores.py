"""Gates of what the version says of payments: how it ranks them, how true its probabilities are, what it decides.

Challenger and rival are compared on the same resamples of the same cards (`training.intervals`).
"""

from __future__ import annotations

import numpy as np

from training.case import SAVED, Case, Finding
from training.costs import days_of
from training.intervals import Interval, bootstrap_each, paired, paired_each
from training.measured import PROBABILITIES
from training.segments import segments
from training.verdicts import MissingEvidence, Number
from training.weighted import AUC_ROC, AVERAGE_PRECISION, METRICS, Payments, ratio

MARGINS = {"auc_roc": 0.02, "average_precision": 0.05, "card_precision_100": 0.03, SAVED: 0.1}
"""How much worse a version may be at most: about what two models fitted on the same weeks differ by."""

LEAST_AUC = 0.6
LEAST_LIFT = 2.0
"""What a first champion must have where there is none to be as good as: its AUC-ROC, and its average precision as a
multiple of what guessing has, which is the share of frauds.
"""

EXPECTED = (2 / 3, 3 / 2)
"""Frauds that the probabilities add up to, as a multiple of those there were."""

FAR = (1 / 2, 2.0)

UNTRUE = 0.3
"""How far probabilities may be off in the mean over groups of like scores, as a multiple of the share of frauds, where
they are surely farther off than the rival's.
"""

COLLAPSED = {"auc_roc": 0.1, "average_precision": 0.2}
"""A segment has collapsed when it has surely lost (the whole interval is below 0), and lost this much."""

SEGMENT_FRAUDS = 15
SEGMENT_REPEATS = 200

OVER_CAPACITY = 1.5
"""Reviews a day as a multiple of what people can look at: days differ."""

DECLINED = 0.05
"""Share of payments that may be declined: beyond it a threshold is a mistake."""


def quality(case: Case) -> Finding:
    """Not worse than the rival by more than a margin, surely; better, surely, where it is said to be."""
    told, worse, unsure = list[str](), list[str](), list[str]()
    numbers: dict[str, Number] = {}
    for name, interval in case.differences.items():
        numbers |= _numbers(name, interval)
        if name in MARGINS:
            told.append(f"{name} {interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]")
            if not interval.low >= -MARGINS[name]:  # also where it is NaN
                (worse if interval.value < -MARGINS[name] or interval.high < 0 else unsure).append(name)
    unclaimed = [name for name in case.claims if not case.differences[name].low > 0]
    evidence = f"against the {case.role}: " + ", ".join(told)
    if case.role != "champion":
        absolute = bootstrap_each(case.rows, case.scores, {one.name: one for one in (AUC_ROC, AVERAGE_PRECISION)})
        floors = {"auc_roc": LEAST_AUC, "average_precision": LEAST_LIFT * float(case.rows["is_fraud"].mean())}
        low = [name for name, floor in floors.items() if not absolute[name].low >= floor]
        evidence += "; by itself " + ", ".join(f"{name} {absolute[name]}" for name in floors)
        worse += [f"{name} below {floors[name]:.3f}" for name in low]
    if worse or unclaimed:
        said = [f"worse in {', '.join(worse)}"] * bool(worse) + [f"not surely better in {', '.join(unclaimed)}"] * bool(
            unclaimed
        )
        return "block", f"{evidence}; {'; '.join(said)}", numbers
    if unsure:
        raise MissingEvidence(f"{evidence}; too little to tell whether {', '.join(unsure)} is worse by the margin")
    return "pass", evidence, numbers


def calibration(case: Case) -> Finding:
    """The probabilities add up to the frauds that there were, over all and in groups of like scores."""
    expected = ratio("expected", lambda some: some.scores, _frauds)
    found = bootstrap_each(case.rows, case.scores, {"expected": expected})["expected"]
    ece = PROBABILITIES["ece"]
    own, further = ece(case.rows, case.scores), paired(case.rows, case.rival_scores, case.scores, ece)
    allowed = UNTRUE * float(case.rows["is_fraud"].mean())
    evidence = (
        f"expects {found.value:.2f} [{found.low:.2f}, {found.high:.2f}] times the frauds there were; "
        f"in groups off by {own:.4f} (up to {allowed:.4f}), {further.value:+.4f} [{further.low:+.4f}, "
        f"{further.high:+.4f}] against the {case.role}"
    )
    numbers: dict[str, Number] = _numbers("expected over observed", found) | _numbers("ece against rival's", further)
    off = found.low > EXPECTED[1] or found.high < EXPECTED[0] or not FAR[0] <= found.value <= FAR[1]
    untrue = own > allowed and further.low > 0
    return "block" if off or untrue or not found.known else "pass", evidence, numbers | {"ece": own, "allowed": allowed}


def _frauds(payments: Payments) -> np.ndarray:
    return payments.fraud.astype(np.float64)


def collapse(case: Case) -> Finding:
    """No part of the payments is given up: channel, band of the amount, cards that are new."""
    metrics = {name: METRICS[name] for name in COLLAPSED}
    numbers, told, lost = dict[str, Number](), [], []
    rival = case.rival_scores
    for name, mask in segments(case.rows).items():
        part = case.rows[mask].reset_index(drop=True)
        frauds = int(part["is_fraud"].sum())
        if not SEGMENT_FRAUDS <= frauds < len(part):
            continue
        found = paired_each(part, rival[mask], case.scores[mask], metrics, SEGMENT_REPEATS)
        for metric, interval in found.items():
            numbers |= _numbers(f"{name}: {metric}", interval)
            if interval.high < 0 and interval.value < -COLLAPSED[metric]:
                lost.append(f"{name} loses {-interval.value:.3f} of {metric}")
        told.append((found["average_precision"].value, name, frauds))
    if not told:
        raise MissingEvidence(f"no segment has {SEGMENT_FRAUDS} frauds")
    worst, name, frauds = min(told)
    evidence = f"{len(told)} segments; worst {name} ({frauds} frauds): average_precision {worst:+.4f}"
    return "block" if lost else "pass", "; ".join([evidence, *lost]), numbers


def thresholds(case: Case) -> Finding:
    """Its decisions are ones that people can live with: reviews within capacity, few declined, frauds stopped."""
    review, decline = case.cuts
    rows, scores = case.rows, case.scores
    days, fraud = days_of(rows), rows["is_fraud"].to_numpy() == 1
    capacity = case.terms.capacity(rows)
    reviewed = float(((scores >= review) & (scores < decline)).sum()) / days
    declined = float((scores >= decline).mean())
    stopped = int((scores >= min(review, decline))[fraud].sum())
    evidence = (
        f"from {review:.4f} reviewed: {reviewed:,.1f} payments a day of {capacity:,.1f} that people can look at; "
        f"from {decline:.4f} declined: {declined:.2%}; {stopped} of {fraud.sum()} frauds stopped"
    )
    numbers = {"review_from": review, "decline_from": decline, "reviews a day": reviewed, "capacity": capacity}
    wrong = review > decline or reviewed > OVER_CAPACITY * capacity or declined > DECLINED or not stopped
    return "block" if wrong else "pass", evidence, {**numbers, "declined": declined, "stopped": stopped}


def _numbers(name: str, interval: Interval) -> dict[str, Number]:
    return {name: interval.value, f"{name}, low": interval.low, f"{name}, high": interval.high}
