"""What a version must show before it serves: that it scores what a service will ask, and scores it as in training.

Missing evidence blocks: a version without its parity sample is refused like one that fails it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from feature_repo import parity_sample
from feature_repo.parity_sample import PARITY_FILE

WARM_UP_ROWS = (1, 64)
"""Batch sizes run before a model serves: one payment, and what a busy worker joins."""

Score = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]


class InvalidModel(ValueError):
    """Files that are no model of this platform. `reason` is one word of a fixed list, for the metric."""

    reason: ClassVar[str] = "files"


class EvidenceMissing(InvalidModel):
    """A version without a parity sample that fits it: nothing shows that its graph is the model that was judged."""

    reason = "evidence"


class ParityBroken(InvalidModel):
    """A graph that doesn't give the scores it gave in training."""

    reason = "parity"


class WarmUpFailed(InvalidModel):
    """A model that cannot score what a service will ask of it."""

    reason = "warm_up"


def require(subject: str, score: Score, columns: Sequence[str], folder: Path) -> None:
    """Raise the `InvalidModel` that says why this scoring function must not serve; `folder` holds the sample."""
    _warm_up(subject, score, len(columns))
    _require_parity(subject, score, _sample(subject, columns, folder))


def _warm_up(subject: str, score: Score, columns: int) -> None:
    """Score payments of which nothing is known, as a new card's first one may be."""
    for rows in WARM_UP_ROWS:
        try:
            score(np.full((rows, columns), np.nan, np.float32))
        except Exception as error:  # a graph may fail in any way
            raise WarmUpFailed(f"{subject}: cannot score {rows} all-null rows: {error}") from error


def _sample(subject: str, columns: Sequence[str], folder: Path) -> parity_sample.ParitySample:
    try:
        sample = parity_sample.loads((folder / PARITY_FILE).read_bytes())
    except FileNotFoundError:
        raise EvidenceMissing(
            f"{subject}: has no {PARITY_FILE}; a version must carry vectors with the scores that its graph gave. "
            "Register the model through training."
        ) from None
    except parity_sample.InvalidSample as error:
        raise EvidenceMissing(f"{subject}: {error}") from None
    if sample.columns != tuple(columns):
        raise EvidenceMissing(
            f"{subject}: its {PARITY_FILE} is of other columns than its contract. Register the model through training."
        )
    return sample


def _require_parity(subject: str, score: Score, sample: parity_sample.ParitySample) -> None:
    try:
        worst = float(np.abs(score(sample.vectors) - sample.probabilities).max())
    except Exception as error:
        raise ParityBroken(f"{subject}: cannot score its own {PARITY_FILE}: {error}") from error
    if not worst <= parity_sample.TOLERANCE:  # so that NaN is refused too
        raise ParityBroken(
            f"{subject}: its graph is off by {worst:.2e} on its own {PARITY_FILE}; at most {parity_sample.TOLERANCE} "
            "is allowed. The graph is not the one that was trained; register the model anew."
        )
