"""Frauds made out of frauds: what is added, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from training.imbalance import UnknownStrategy, oversample, require

CODES = (1,)


def payments(frauds: int = 40, genuine: int = 400):
    """An amount, a code, and a number that is unknown for half of the frauds; a fourth column nobody fills."""
    rng = np.random.default_rng(1)
    rows = frauds + genuine
    vectors = np.column_stack(
        [rng.normal(50, 5, rows), rng.integers(0, 3, rows), rng.normal(size=rows), np.zeros(rows)]
    )
    vectors = vectors.astype(np.float32)
    fraud = (np.arange(rows) < frauds).astype(np.int8)
    vectors[fraud == 1, 0] += 200
    vectors[:frauds:2, 2] = np.nan
    vectors[::7, 1] = np.nan
    vectors[:, 3] = np.nan
    return vectors, fraud


def test_the_rows_that_were_there_stay_and_frauds_follow_until_there_are_enough():
    vectors, fraud = payments()
    grown, labels = oversample(vectors, fraud, CODES, 0.5)
    np.testing.assert_array_equal(grown[: len(vectors)], vectors)
    np.testing.assert_array_equal(labels[: len(fraud)], fraud)
    assert labels[len(fraud) :].tolist() == [1] * 160
    assert grown.dtype == np.float32


def test_a_new_fraud_is_like_the_frauds():
    """Between them in its numbers, with a code that there is, unknown where they are."""
    vectors, fraud = payments()
    new = oversample(vectors, fraud, CODES, 0.5)[0][len(vectors) :]
    of_frauds = vectors[fraud == 1]
    assert of_frauds[:, 0].min() <= new[:, 0].min() < new[:, 0].max() <= of_frauds[:, 0].max()
    assert len(np.unique(new[:, 0])) > 100, "new ones, not copies"
    assert set(new[~np.isnan(new[:, 1]), 1]) <= {0.0, 1.0, 2.0}
    assert 0.2 < np.isnan(new[:, 2]).mean() < 0.8
    assert np.isnan(new[:, 3]).all()


def test_the_same_rows_give_the_same_frauds():
    first, second = (oversample(*payments(), CODES, 0.3)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("frauds", "share"), [(0, 0.5), (1, 0.5), (40, 0.1), (40, 0.05)])
def test_where_there_is_nothing_to_do_nothing_is_done(frauds: int, share: float):
    vectors, fraud = payments(frauds)
    grown, labels = oversample(vectors, fraud, CODES, share)
    np.testing.assert_array_equal(grown, vectors)
    np.testing.assert_array_equal(labels, fraud)


def test_two_frauds_are_enough():
    assert oversample(*payments(2), CODES, 0.1)[1].sum() == 40


def test_an_unknown_strategy_is_refused():
    with pytest.raises(UnknownStrategy, match="is 'hope'; must be one of none, weight, smote"):
        require("hope")
