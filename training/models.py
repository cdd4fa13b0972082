"""The candidates: one entry each, unfitted. Adding a model is adding an entry.

A candidate's parameters are its estimator's own, and three that all have: `imbalance` (`training.imbalance`),
`fraud_weight` where that is `weight`, and `fraud_share` where it is `smote`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from imblearn.pipeline import Pipeline as ResamplingPipeline
from lightgbm import LGBMClassifier
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from xgboost import XGBClassifier

from training import imbalance
from training.imbalance import SEED

if TYPE_CHECKING:
    from optuna import Trial

CODED = ("category_code", "channel_code", "hour")
"""Columns whose numbers are names: a linear model needs one column for each value."""

Columns = tuple[str, ...]
Steps = list[tuple[str, Any]]
Parameters = dict[str, Any]

IMBALANCE: Mapping[str, Any] = {"imbalance": "none", "fraud_weight": 1.0, "fraud_share": 0.05}


@dataclass(frozen=True)
class Candidate:
    """`prepare` gives the steps ahead of the classifier, `classifier` the class itself with its fixed arguments.

    `weighs` turns the weight of a fraud into the classifier's own argument.
    """

    classifier: Callable[..., Any]
    weighs: Callable[[float], Parameters]
    search: Callable[[Trial], Parameters]
    settled: Mapping[str, Any]
    """What it is fitted with unless told otherwise; docs/training-candidates.md says what it was held against."""
    prepare: Callable[[Columns], Steps] = field(default=lambda columns: [])
    explained: bool = True
    """Whether the service can give a model's reasons with each answer. One without is compared, and serves only where
    nothing else was asked for: a decision that nobody can explain is no decision a payment team may send."""

    def __call__(self, columns: Columns, **parameters: Any) -> Any:
        """An unfitted scikit-learn estimator over these columns; `parameters` override the settled ones."""
        own = {**IMBALANCE, **self.settled, **parameters}
        strategy, weight, share = (own.pop(name) for name in IMBALANCE)
        imbalance.require(strategy)
        if strategy == "weight":
            own |= self.weighs(float(weight))
        steps = [*self.prepare(columns), ("classify", self.classifier(**own))]
        if strategy == "smote":
            codes = tuple(i for i, name in enumerate(columns) if name in CODED)
            return ResamplingPipeline([("resample", imbalance.sampler(codes, share)), *steps])
        return Pipeline(steps) if len(steps) > 1 else steps[0][1]

    def space(self, trial: Trial) -> Parameters:
        """One choice of parameters, asked of an optuna trial."""
        chosen = self.search(trial)
        strategy = trial.suggest_categorical("imbalance", list(imbalance.STRATEGIES))
        chosen["imbalance"] = strategy
        if strategy == "weight":
            chosen["fraud_weight"] = trial.suggest_float("fraud_weight", 1.5, 50.0, log=True)
        if strategy == "smote":
            chosen["fraud_share"] = trial.suggest_float("fraud_share", 0.02, 0.3, log=True)
        return chosen


def _class_weight(weight: float) -> Parameters:
    return {"class_weight": imbalance.class_weight("weight", weight)}


def _scale_pos_weight(weight: float) -> Parameters:
    return {"scale_pos_weight": weight}


def _numbers_and_codes(columns: Columns) -> Steps:
    coded = [i for i, name in enumerate(columns) if name in CODED]
    plain = [i for i, name in enumerate(columns) if name not in CODED]
    codes = Pipeline(
        [
            ("impute", SimpleImputer(strategy="constant", fill_value=-1.0, keep_empty_features=True)),
            ("encode", OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32)),
        ]
    )
    numbers = Pipeline(
        [
            ("impute", SimpleImputer(strategy="mean", keep_empty_features=True)),  # medians take longer than the fit
            ("scale", StandardScaler()),
        ]
    )
    return [("prepare", ColumnTransformer([("numbers", numbers, plain), ("codes", codes, coded)]))]


def _unknown_apart(columns: Columns) -> Steps:
    # Outside every column's range, so that a tree can split "unknown" off.
    return [("impute", SimpleImputer(strategy="constant", fill_value=-1e6, keep_empty_features=True))]


def _logistic_regression(**own: Any) -> LogisticRegression:
    return LogisticRegression(max_iter=2_000, **own)


def _random_forest(**own: Any) -> RandomForestClassifier:
    return RandomForestClassifier(n_jobs=-1, random_state=SEED, **own)


class HistGradientBoosting(HistGradientBoostingClassifier):
    """scikit-learn's own, which refuses a column without any value; here no split falls on it."""

    def fit(self, vectors: npt.NDArray[np.float32], fraud: Any) -> HistGradientBoosting:
        """Fit as scikit-learn does; a column that is null throughout says nothing."""
        empty = np.isnan(vectors).all(axis=0)
        return super().fit(np.where(empty, np.float32(0), vectors) if empty.any() else vectors, fraud)


def _hist_gradient_boosting(**own: Any) -> HistGradientBoosting:
    return HistGradientBoosting(early_stopping=False, random_state=SEED, **own)


def _xgboost(**own: Any) -> XGBClassifier:
    # XGBoost 3 fits the base score; on so few frauds that costs .02 AUC.
    return XGBClassifier(base_score=0.5, tree_method="hist", n_jobs=-1, random_state=SEED, **own)


def _lightgbm(**own: Any) -> LGBMClassifier:
    # Rows are drawn anew for each tree, or `subsample` would say nothing.
    return LGBMClassifier(
        subsample_freq=1, deterministic=True, force_row_wise=True, verbose=-1, n_jobs=-1, random_state=SEED, **own
    )


def _linear_space(trial: Trial) -> Parameters:
    return {"C": trial.suggest_float("C", 1e-4, 10.0, log=True)}


def _forest_space(trial: Trial) -> Parameters:
    return {
        "max_depth": trial.suggest_int("max_depth", 4, 20),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 1, 30, log=True),
        "max_features": trial.suggest_float("max_features", 0.05, 0.6, log=True),
    }


def _histogram_space(trial: Trial) -> Parameters:
    return {
        "max_iter": trial.suggest_int("max_iter", 40, 300, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.3, log=True),
        "max_depth": trial.suggest_int("max_depth", 2, 6),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 5, 200, log=True),
        "l2_regularization": trial.suggest_float("l2_regularization", 1e-2, 100.0, log=True),
        "max_features": trial.suggest_float("max_features", 0.1, 1.0),
    }


def _xgboost_space(trial: Trial) -> Parameters:
    return {
        "n_estimators": trial.suggest_int("n_estimators", 40, 300, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.3, log=True),
        "max_depth": trial.suggest_int("max_depth", 2, 6),
        "min_child_weight": trial.suggest_float("min_child_weight", 0.5, 50.0, log=True),
        "subsample": trial.suggest_float("subsample", 0.5, 1.0),
        "colsample_bytree": trial.suggest_float("colsample_bytree", 0.1, 1.0),
        "reg_lambda": trial.suggest_float("reg_lambda", 0.1, 100.0, log=True),
        "gamma": trial.suggest_float("gamma", 0.0, 5.0),
    }


def _lightgbm_space(trial: Trial) -> Parameters:
    return {
        "n_estimators": trial.suggest_int("n_estimators", 40, 300, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.3, log=True),
        "max_depth": trial.suggest_int("max_depth", 2, 6),
        "min_child_samples": trial.suggest_int("min_child_samples", 5, 200, log=True),
        "subsample": trial.suggest_float("subsample", 0.5, 1.0),
        "colsample_bytree": trial.suggest_float("colsample_bytree", 0.1, 1.0),
        "reg_lambda": trial.suggest_float("reg_lambda", 0.1, 100.0, log=True),
    }


CANDIDATES: dict[str, Candidate] = {
    "logistic_regression": Candidate(
        _logistic_regression, _class_weight, _linear_space, {"C": 0.1}, prepare=_numbers_and_codes
    ),
    "random_forest": Candidate(
        _random_forest,
        _class_weight,
        _forest_space,
        {"n_estimators": 100, "max_depth": 12, "min_samples_leaf": 5, "max_features": "sqrt"},
        prepare=_unknown_apart,
        explained=False,  # trees of twelve levels have no tables
    ),
    "hist_gradient_boosting": Candidate(
        _hist_gradient_boosting,
        _class_weight,
        _histogram_space,
        {"max_iter": 100, "learning_rate": 0.05, "max_depth": 4, "min_samples_leaf": 20, "max_features": 0.5},
    ),
    "xgboost": Candidate(
        _xgboost,
        _scale_pos_weight,
        _xgboost_space,
        {
            "n_estimators": 200,
            "max_depth": 4,
            "learning_rate": 0.05,
            "subsample": 0.8,
            "colsample_bytree": 0.5,
            "min_child_weight": 5,
        },
    ),
    "lightgbm": Candidate(
        _lightgbm,
        _scale_pos_weight,
        _lightgbm_space,
        {
            "n_estimators": 150,
            "max_depth": 4,
            "learning_rate": 0.05,
            "subsample": 0.8,
            "colsample_bytree": 0.5,
            "min_child_samples": 20,
        },
    ),
}
