"""Probabilities that mean what they say: a fitted model's margin put through a curve learned on later rows.

The curve is a rising function of the model's margin (log-odds; the share of trees for a forest), so it keeps the order
of the scores. Both methods are linear between knots in log-odds: `sigmoid` has none, `isotonic` one per step it found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss

from training.imbalance import without_sampler

Method = Literal["sigmoid", "isotonic"]

Reals = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[Any]

BINS = 15


class NotCalibrated(ValueError):
    """Rows or a model from which no rising curve can be learned."""


@dataclass(frozen=True)
class Curve:
    """Log-odds = intercept + slope × margin + the sum of each bend × max(0, margin - its knot); rising throughout."""

    intercept: float
    slope: float
    knots: tuple[float, ...] = ()
    bends: tuple[float, ...] = ()

    def __call__(self, margins: Reals) -> Reals:
        """The calibrated log-odds, shape (n,), of margins of that shape."""
        over = np.maximum(margins[:, None] - np.array(self.knots), 0.0) @ np.array(self.bends)
        return np.asarray(self.intercept + self.slope * margins + over, np.float64)

    @classmethod
    def through(cls, margins: Sequence[float] | Reals, log_odds: Sequence[float] | Reals) -> Curve:
        """The lines between points that rise in both; beyond the ends it goes on with the mean slope (1 for one)."""
        x, y = np.asarray(margins, np.float64), np.asarray(log_odds, np.float64)
        outer = (y[-1] - y[0]) / (x[-1] - x[0]) if len(x) > 1 else 1.0
        slopes = np.concatenate([[outer], np.diff(y) / np.diff(x), [outer]])
        if not (slopes > 0).all():
            raise NotCalibrated(f"The curve's slopes are {slopes.tolist()}; must all be above 0.")
        return cls(float(y[0] - outer * x[0]), float(outer), tuple(x.tolist()), tuple(np.diff(slopes).tolist()))


class Margins(ClassifierMixin, BaseEstimator):
    """A fitted model as a classifier that gives its margins alone: what scikit-learn is to calibrate."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.classes_ = np.array([0, 1])

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, vectors: Vectors, fraud: Labels) -> Margins:
        """There is nothing to fit."""
        return self

    def decision_function(self, vectors: Vectors) -> Reals:
        """The margins, shape (n,)."""
        return margins(self.model, vectors)

    def predict(self, vectors: Vectors) -> npt.NDArray[np.int64]:
        """Asked for by scikit-learn's checks alone."""
        return (self.decision_function(vectors) > 0).astype(np.int64)


class Calibrated(ClassifierMixin, BaseEstimator):
    """A fitted model behind a curve."""

    def __init__(self, model: Any, curve: Curve) -> None:
        self.model = model
        self.curve = curve
        self.classes_ = np.array([0, 1])

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, vectors: Vectors, fraud: Labels) -> Calibrated:
        """Refused: model and curve are fitted on different rows."""
        raise NotCalibrated("A calibrated model is made of a fitted one; use `calibrated(model, vectors, fraud)`.")

    def predict_proba(self, vectors: Vectors) -> Reals:
        """float64 (n, 2): genuine, fraud."""
        log_odds = self.curve(margins(self.model, vectors))
        return np.column_stack([expit(-log_odds), expit(log_odds)])

    def predict(self, vectors: Vectors) -> npt.NDArray[np.int64]:
        """1 where fraud is the likelier."""
        return (self.predict_proba(vectors)[:, 1] > 0.5).astype(np.int64)

    @property
    def feature_importances_(self) -> Any:
        """The model's own."""
        return classifier_of(self.model).feature_importances_


def classifier_of(model: Any) -> Any:
    """The classifier at the end of a fitted candidate."""
    return model.steps[-1][1] if hasattr(model, "steps") else model


def margins(model: Any, vectors: Vectors) -> Reals:
    """What a fitted candidate adds up, float64 (n,): the log-odds, or for a forest the mean of its trees' shares."""
    bare = without_sampler(model)
    classifier = classifier_of(bare)
    if isinstance(classifier, RandomForestClassifier):
        found = bare.predict_proba(vectors)[:, 1]
    elif hasattr(classifier, "get_booster"):
        found = bare.predict(vectors, output_margin=True)
    elif hasattr(classifier, "booster_"):
        found = bare.predict(vectors, raw_score=True)
    else:
        found = bare.decision_function(vectors)
    return np.asarray(found, np.float64)


def calibrated(model: Any, vectors: Vectors, fraud: Labels, method: Method = "sigmoid") -> Calibrated:
    """The fitted model behind a curve learned on these rows, which must be later than those it was fitted on.

    Raises `NotCalibrated` where they hold one class alone, or the model's order says nothing of them.
    Sources: Platt 1999 (sigmoid); Zadrozny & Elkan 2002 (isotonic), each step taken at its middle as in Oron &
    Flournoy 2017, which keeps scores apart that plain steps make equal.
    """
    fraud = np.asarray(fraud)
    if len(np.unique(fraud)) < 2:
        raise NotCalibrated(f"All {len(fraud)} rows have one class; a curve needs frauds and genuine payments.")
    if method == "isotonic":
        return Calibrated(model, _isotonic(margins(model, vectors), fraud))
    if method != "sigmoid":
        raise NotCalibrated(f"Method is '{method}'; must be 'sigmoid' or 'isotonic'.")
    # A frozen model scores each row once, whatever the folds; they only may not be more than there are frauds.
    frozen = CalibratedClassifierCV(FrozenEstimator(Margins(model)), method="sigmoid", cv=2, ensemble=False)
    scaled = frozen.fit(vectors, fraud)
    (found,) = scaled.calibrated_classifiers_[0].calibrators
    if not found.a_ < 0:
        raise NotCalibrated(f"The curve's slope is {-found.a_}; must be above 0: these scores fall as fraud rises.")
    return Calibrated(model, Curve(float(-found.b_), float(-found.a_)))


def taken_over(source: Calibrated, model: Any) -> Calibrated:
    """Another fitted model of the same kind behind the curve of `source`, which was calibrated on rows it had not seen.

    For a model that is fitted up to now: nothing later is left to calibrate it on, so its twin of one fold earlier is.
    """
    return Calibrated(model, source.curve)


def _isotonic(found: Reals, fraud: Labels) -> Curve:
    order = np.argsort(found, kind="stable")
    x, y = found[order], fraud[order].astype(np.float64)
    steps = IsotonicRegression().fit_transform(x, y)
    starts = np.flatnonzero(np.diff(steps, prepend=-1.0))
    rows, frauds = np.diff(np.append(starts, len(x))), np.add.reduceat(y, starts)
    middle = np.add.reduceat(x, starts) / rows
    log_odds = np.log((frauds + 0.5) / (rows - frauds + 0.5))  # half a row of each class: no step is certain
    rising = IsotonicRegression().fit(middle, log_odds, sample_weight=rows).predict(middle)
    kept = np.diff(rising, prepend=-np.inf) > 0
    together = np.cumsum(kept) - 1
    weight = np.bincount(together, rows)
    return Curve.through(np.bincount(together, rows * middle) / weight, rising[kept])


@dataclass(frozen=True)
class Reliability:
    """How far probabilities can be trusted on some rows: Brier score, expected calibration error, and the curve.

    `said` and `true` are the mean score and the share of frauds in groups of as many rows each, `rows` their sizes.
    """

    brier: float
    error: float
    said: tuple[float, ...]
    true: tuple[float, ...]
    rows: tuple[int, ...]


def reliability(fraud: Labels, scores: Reals, bins: int = BINS) -> Reliability:
    """Measure probabilities against what was; lower is better in both figures.

    Groups are made by rank, for most scores are near 0. Source: Naeini et al. 2015 (expected calibration error).
    """
    order = np.argsort(scores, kind="stable")
    groups = [group for group in np.array_split(order, bins) if len(group)]
    said = [float(scores[group].mean()) for group in groups]
    true = [float(np.asarray(fraud)[group].mean()) for group in groups]
    rows = [len(group) for group in groups]
    error = float(np.average(np.abs(np.subtract(said, true)), weights=rows))
    return Reliability(float(brier_score_loss(fraud, scores)), error, tuple(said), tuple(true), tuple(rows))
