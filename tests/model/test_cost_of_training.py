"""What a fit costs, measured in processes of their own, against the library called as anybody would."""

from __future__ import annotations

import numpy as np
import pytest

from tests.model.test_export import COLUMNS, drawn
from training.calibrate import classifier_of
from training.cost_of_training import measure, plain
from training.models import CANDIDATES


def test_both_fits_are_measured_and_memory_is_that_of_a_whole_process():
    vectors, fraud = drawn(1)
    found = measure("hist_gradient_boosting", vectors, fraud, COLUMNS, repeats=1)
    assert set(found) == {"seconds", "peak_mb", "plain_seconds", "plain_peak_mb"}
    assert min(found.values()) > 0
    assert found["peak_mb"] > 50, "a process that has loaded scikit-learn"


def test_the_peak_is_of_the_fit_s_own_process_and_not_of_who_started_it():
    vectors, fraud = drawn(1)
    own = measure("lightgbm", vectors, fraud, COLUMNS, repeats=1)["peak_mb"]
    held = np.ones(int((own + 300) * 2**20) // 8)
    beside = measure("lightgbm", vectors, fraud, COLUMNS, repeats=1)["peak_mb"]
    assert held.nbytes / 2**20 > own + 200
    assert beside < own + 100


@pytest.mark.parametrize("name", CANDIDATES)
def test_the_plain_call_has_the_candidate_s_parameters_and_nothing_of_ours(name: str):
    ours, theirs = classifier_of(CANDIDATES[name](COLUMNS)), classifier_of(plain(name, COLUMNS))
    assert type(theirs).__module__.split(".")[0] in ("sklearn", "xgboost", "lightgbm")
    assert {k: v for k, v in theirs.get_params().items() if v is not np.nan} == {
        k: v for k, v in ours.get_params().items() if v is not np.nan
    }
    assert plain(name, COLUMNS) is not plain(name, COLUMNS)
