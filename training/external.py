"""XGBoost over a training set that is never in memory: its matrix in pages on disk, read once for each tree's levels.

The model that comes out is the candidate's own classifier, fitted; everything downstream takes it as any other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost

Labelled = tuple[npt.NDArray[np.float32], npt.NDArray[Any]]
"""Vectors (float32, rows × columns, null as NaN) and whether each is a fraud."""


class Pages(xgboost.DataIter):
    """Labelled vectors that can be gone through again and again; XGBoost keeps what it makes of them at `cache`."""

    def __init__(self, batches: Callable[[], Iterator[Labelled]], cache: Path | None) -> None:
        self._batches = batches
        self._running = batches()
        self.rows = 0
        super().__init__(cache_prefix=None if cache is None else str(cache / "pages"), release_data=True)

    def next(self, input_data: Any) -> bool:
        """Hand the next batch over; False where there is none."""
        for vectors, fraud in self._running:
            self.rows += len(vectors)
            input_data(data=vectors, label=fraud)
            return True
        return False

    def reset(self) -> None:
        """Begin again."""
        self._running = self._batches()
        self.rows = 0


def fit(unfitted: Any, batches: Callable[[], Iterator[Labelled]], folder: Path, *, on_disk: bool = True) -> Any:
    """Fit an `XGBClassifier` on all batches; with `on_disk`, its matrix lies in pages below `folder` meanwhile.

    The columns' quantiles are made from the batches one after the other, so the cuts of a column with many values
    differ a little from those over the whole; with the same batches both ways of keeping the matrix agree.
    """
    parameters = unfitted.get_xgb_params()
    bins = parameters.pop("max_bin", None)
    rounds = unfitted.get_num_boosting_rounds()
    with tempfile.TemporaryDirectory(prefix="tollgate-pages-", dir=folder) as cache:
        pages = Pages(batches, Path(cache) if on_disk else None)
        make = xgboost.ExtMemQuantileDMatrix if on_disk else xgboost.QuantileDMatrix
        matrix = make(pages, max_bin=bins, missing=np.nan, nthread=parameters.get("n_jobs"))
        booster = xgboost.train(parameters, matrix, num_boost_round=rounds)
        del matrix  # before its pages
    return adopt(unfitted, booster)


def adopt(unfitted: Any, booster: xgboost.Booster) -> Any:
    """The classifier as if it had been fitted itself."""
    unfitted.load_model(booster.save_raw("ubj"))
    return unfitted
