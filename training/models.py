"""The candidates: one entry each, unfitted. Adding a model is adding an entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from xgboost import XGBClassifier

SEED = 7

CODED = ("category_code", "channel_code", "hour")
"""Columns whose numbers are names: a linear model needs one column for each value."""

Candidate = Callable[[tuple[str, ...]], Any]


def _logistic_regression(columns: tuple[str, ...]) -> Pipeline:
    coded = [i for i, name in enumerate(columns) if name in CODED]
    plain = [i for i, name in enumerate(columns) if name not in CODED]
    codes = Pipeline(
        [
            ("impute", SimpleImputer(strategy="constant", fill_value=-1.0, keep_empty_features=True)),
            ("encode", OneHotEncoder(handle_unknown="ignore", sparse_output=False)),
        ]
    )
    numbers = Pipeline(
        [
            ("impute", SimpleImputer(strategy="median", keep_empty_features=True)),
            ("scale", StandardScaler()),
        ]
    )
    columns_by_kind = ColumnTransformer([("numbers", numbers, plain), ("codes", codes, coded)])
    return Pipeline([("prepare", columns_by_kind), ("classify", LogisticRegression(C=0.1, max_iter=2_000))])


def _random_forest(columns: tuple[str, ...]) -> Pipeline:
    # Outside every column's range, so that a tree can split "unknown" off.
    impute = SimpleImputer(strategy="constant", fill_value=-1e6, keep_empty_features=True)
    forest = RandomForestClassifier(
        n_estimators=100, max_depth=12, min_samples_leaf=5, max_features="sqrt", n_jobs=-1, random_state=SEED
    )
    return Pipeline([("impute", impute), ("classify", forest)])


def _xgboost(columns: tuple[str, ...]) -> XGBClassifier:
    return XGBClassifier(
        n_estimators=200,
        max_depth=4,
        learning_rate=0.05,
        subsample=0.8,
        colsample_bytree=0.5,
        min_child_weight=5,
        base_score=0.5,  # XGBoost 3 fits it; on so few frauds that costs .02 AUC
        tree_method="hist",
        n_jobs=-1,
        random_state=SEED,
    )


CANDIDATES: dict[str, Candidate] = {
    "logistic_regression": _logistic_regression,
    "random_forest": _random_forest,
    "xgboost": _xgboost,
}
