"""How much is measured: as reported, and smaller to see that all of it works."""

from __future__ import annotations

from dataclasses import dataclass

from training.models import CANDIDATES


@dataclass(frozen=True)
class ModelSizes:
    """The models, the parts that are run where none is named, and the generated histories."""

    models: tuple[str, ...] = tuple(CANDIDATES)
    parts: tuple[str, ...] = ("handbook_ch3", "handbook_folds", "sparkov", "synthetic", "training")
    rows: int = 600_000
    days: int = 150
    seeds: tuple[int, ...] = (201, 202, 203)
    oracle_seeds: tuple[int, ...] = (901, 902, 903, 904, 905)
    repeats: int = 3


REPORTED = ModelSizes()
QUICK = ModelSizes(
    models=("logistic_regression", "xgboost"),
    parts=("synthetic", "training"),
    rows=12_000,
    days=75,
    seeds=(201,),
    oracle_seeds=(901,),
    repeats=1,
)
