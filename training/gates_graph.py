"""Gates of the version itself: its files, its columns, its parity, what it gives for any payment, and how fast.

Four of them the service has as well (`bentos.evidence`): a version that fails there would not be served.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from feature_repo.contract import ContractMismatch
from feature_repo.parity_sample import TOLERANCE
from training.case import Case, Finding
from training.graphs import BrokenVersion, Graph, Scores, Vectors
from training.verdicts import MissingEvidence, NothingToLookAt, Number

EXTREME = 1e12
"""As large as a feature can get: a hundred thousand payments of the largest amount there is."""

BATCH = 64
"""Payments that a busy worker scores at once: what the service's own guard times a challenger on."""

TIMINGS = 40
WARM_UP = 3


def files(case: Case) -> Finding:
    """The contract can be read and the graph loaded, without a pickle."""
    try:
        contract, session = case.challenger.contract, case.challenger.session
    except BrokenVersion as error:
        return "block", str(error), {}
    width = session.get_inputs()[0].shape[-1]
    if isinstance(width, int) and width != len(contract.columns):
        return "block", f"the graph takes {width} columns, its contract has {len(contract.columns)}", {}
    told = f"{contract.algorithm}, {len(contract.columns)} columns, trained until {contract.trained_until[:10]}"
    return "pass", told, {"columns": len(contract.columns)}


def columns(case: Case) -> Finding:
    """The contract's columns are the feature service's, in its order."""
    contract = case.challenger.contract
    extra = sorted(set(contract.columns) - set(case.columns))
    lacking = sorted(set(case.columns) - set(contract.columns))
    numbers: dict[str, Number] = {
        "columns": len(contract.columns),
        "not in the service": len(extra),
        "not in the model": len(lacking),
    }
    try:
        contract.require(case.feature_service, case.columns)
    except ContractMismatch as error:
        return "block", str(error).removesuffix(" Retrain and register the model."), numbers
    return "pass", f"the {len(contract.columns)} columns of '{case.feature_service}', in order", numbers


def parity(case: Case) -> Finding:
    """The graph gives the rows of its parity sample the scores that it had in training, and the same decisions."""
    sample = case.challenger.sample
    try:
        scores = case.challenger.score(sample.vectors)
    except BrokenVersion as error:
        return "block", str(error), {}
    off = np.abs(scores - sample.probabilities).max()
    flips = sum(int(((scores >= cut) != (sample.probabilities >= cut)).sum()) for cut in case.cuts)
    told = f"{len(scores)} rows, off by at most {off:.1e}, {flips} decisions differ"
    fine = off <= TOLERANCE and not flips  # false for NaN
    return "pass" if fine else "block", told, {"rows": len(scores), "largest difference": float(off), "flips": flips}


def outputs(case: Case) -> Finding:
    """A probability for every payment of the window, for one of which nothing is known, and for extremes."""
    width = len(case.challenger.contract.columns)
    asked = {"nothing known": np.full((1, width), np.nan, np.float32), "extremes": extremes(width)}
    try:
        given = {name: case.challenger.score(vectors) for name, vectors in asked.items()}
        if not isinstance(case.found, str):
            given["window"] = case.raw
    except (BrokenVersion, NothingToLookAt) as error:
        return "block", str(error), {}
    wrong, numbers = [], {}
    for name, scores in given.items():
        bad = int((~((scores >= 0) & (scores <= 1))).sum())
        numbers[name] = len(scores)
        if bad:
            numbers[f"{name}: no probability"] = bad
            wrong.append(f"{name}: {bad} of {len(scores)} scores are no probability ({_bad(scores)})")
    if wrong:
        return "block", "; ".join(wrong), {**numbers}
    return "pass", ", ".join(f"{count} x {name}" for name, count in numbers.items()) + ": all in [0, 1]", {**numbers}


def _bad(scores: Scores) -> str:
    return ", ".join(
        name
        for name, found in (
            ("NaN", np.isnan(scores)),
            ("infinite", np.isinf(scores)),
            ("below 0", scores < 0),
            ("above 1", scores > 1),
        )
        if found.any()
    )


def extremes(width: int) -> Vectors:
    """All columns at once, and each alone, at the largest, the smallest and no size; the rest unknown."""
    rows = [np.full((1, width), value) for value in (EXTREME, -EXTREME, 0.0)]
    for value in (EXTREME, -EXTREME, 0.0):
        alone = np.full((width, width), np.nan)
        np.fill_diagonal(alone, value)
        rows.append(alone)
    return np.concatenate(rows).astype(np.float32)


def latency(case: Case, clock: Callable[[], float] = time.thread_time) -> Finding:
    """Both graphs in turn on the same rows, one thread each, by the thread's own CPU time.

    The rule is that of the service's guard: a challenger it would take out is not promoted.
    """
    if case.rival is None:
        raise MissingEvidence("there is nobody to be measured against")
    pair = (case.rival, case.challenger)
    try:
        vectors = [_some(graph, case) for graph in pair]
        times = _timed(pair, vectors, clock)
    except BrokenVersion as error:
        return "block", str(error), {}
    before, after = (statistics.median(one) for one in times)
    ratio = after / max(before, 1e-9)
    allowed, forgiven = case.settings.challenger_slow_factor, case.settings.challenger_slow_from
    told = f"{after * 1e6:.0f} µs for {BATCH} payments, the {case.role} {before * 1e6:.0f} µs: {ratio:.2f} times"
    numbers = {"microseconds": after * 1e6, "rival's": before * 1e6, "ratio": ratio}
    return "block" if ratio >= allowed and after >= forgiven else "pass", told, {**numbers}


def _some(graph: Graph, case: Case) -> Vectors:
    """As many rows as a busy worker scores at once, of the version's own parity sample."""
    try:
        rows = graph.sample.vectors
    except MissingEvidence:
        rows = np.zeros((1, len(graph.contract.columns)), np.float32)
    return np.resize(rows, (BATCH, rows.shape[1]))


def _timed(
    graphs: tuple[Graph, Graph], vectors: list[Vectors], clock: Callable[[], float]
) -> tuple[list[float], list[float]]:
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(TIMINGS + WARM_UP):
        for graph, rows, found in zip(graphs, vectors, times, strict=True):
            began = clock()
            graph.score(rows)
            took = clock() - began
            if turn >= WARM_UP:
                found.append(took)
    return times
