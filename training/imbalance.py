"""What a candidate does about frauds being few: nothing, more weight for each, or more of them (SMOTE).

Resampling is a step of the candidate's own pipeline, so it sees the rows that are fitted on and no others, and is
absent when the model scores.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from imblearn import FunctionSampler
from imblearn.over_sampling import SMOTENC

SEED = 7

Strategy = Literal["none", "weight", "smote"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

NEIGHBOURS = 5
UNKNOWN_CODE = -1.0


class UnknownStrategy(ValueError):
    """A strategy that is none of `STRATEGIES`."""


def require(strategy: str) -> None:
    """Raise `UnknownStrategy` unless there is one of that name."""
    if strategy not in STRATEGIES:
        raise UnknownStrategy(f"Imbalance strategy is '{strategy}'; must be one of {', '.join(STRATEGIES)}.")


def class_weight(strategy: str, fraud_weight: float) -> dict[int, float] | None:
    """scikit-learn's `class_weight`: how many genuine payments a fraud counts for; None where each counts once."""
    return {0: 1.0, 1: float(fraud_weight)} if strategy == "weight" else None


def sampler(codes: tuple[int, ...], share: float) -> FunctionSampler:
    """The step that makes frauds out of frauds until they are `share` of the genuine payments.

    `codes` are the columns whose numbers are names.
    """
    return FunctionSampler(func=oversample, kw_args={"codes": codes, "share": share}, validate=False)


def oversample(
    vectors: npt.NDArray[np.float32], fraud: npt.NDArray[Any], codes: tuple[int, ...], share: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    """The rows as they are, and behind them new frauds between neighbouring ones (SMOTE-NC), in float32.

    A column counts in its own deviations. What is unknown, and a code, is never halfway: a new row has what most of the
    neighbours have. Rows are returned unchanged where frauds are as many already, or fewer than two.
    Source: Chawla et al. 2002, SMOTE, section 6.1.
    """
    fraud = np.asarray(fraud)
    frauds = int((fraud == 1).sum())
    if frauds < 2 or frauds >= share * (len(fraud) - frauds):
        return vectors, fraud
    coded = np.isin(np.arange(vectors.shape[1]), codes)
    # New frauds depend on frauds alone; scikit-learn's encoder takes a minute for what it need not look at.
    basis = np.append(np.flatnonzero(fraud == 1), np.flatnonzero(fraud != 1)[0])
    unknown = np.isnan(vectors[basis])
    numbers, names = vectors[:, ~coded].astype(np.float64), np.where(unknown, UNKNOWN_CODE, vectors[basis])[:, coded]
    numbers[:, np.isnan(numbers).all(axis=0)] = 0.0
    middle, spread = np.nanmedian(numbers, axis=0), np.nanstd(numbers, axis=0)
    spread[spread == 0] = 1.0
    plain = np.nan_to_num((numbers[basis] - middle) / spread, nan=0.0)
    table = np.hstack([plain, names, unknown[:, ~coded]])
    wanted = round(share * (len(fraud) - frauds))
    made, _ = SMOTENC(
        categorical_features=list(range(plain.shape[1], table.shape[1])),
        sampling_strategy={1: wanted},
        k_neighbors=min(NEIGHBOURS, frauds - 1),
        random_state=SEED,
    ).fit_resample(table, (fraud[basis] == 1).astype(np.int8))
    new, absent = np.split(made[len(basis) :], [plain.shape[1] + names.shape[1]], axis=1)
    amounts, codes_drawn = np.split(new, [plain.shape[1]], axis=1)
    drawn = np.empty((len(new), vectors.shape[1]), np.float32)
    drawn[:, ~coded] = np.where(absent == 1.0, np.nan, amounts * spread + middle)
    drawn[:, coded] = np.where(codes_drawn == UNKNOWN_CODE, np.nan, codes_drawn)
    return np.vstack([vectors, drawn]), np.append(fraud, np.ones(len(drawn), fraud.dtype))


def without_sampler(model: Any) -> Any:
    """A fitted candidate as it scores: without the step that resamples, and bare where nothing else is before it."""
    if not any(hasattr(step, "fit_resample") for _, step in getattr(model, "steps", [])):
        return model
    from sklearn.pipeline import Pipeline

    kept = [(name, step) for name, step in model.steps if not hasattr(step, "fit_resample")]
    return kept[0][1] if len(kept) == 1 else Pipeline(kept)
