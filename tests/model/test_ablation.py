"""The ablation finds the view and the column that carry the label, and takes its views from Feast's own registry."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from feature_repo.vector import columns
from training import ablation
from training.dataset import TrainingSet
from training.datasets import synthetic
from training.models import CANDIDATES
from training.offline import Offline, offline
from training.split import Protocol

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
PROTOCOL = Protocol(BEGIN, train_days=10, delay_days=1, test_days=9)
VIEWS = {"request": ("a", "b"), "card_velocity": ("c",), "merchant_risk": ("d",)}


@pytest.fixture(scope="module")
def made_up() -> TrainingSet:
    """20 days of payments of ever new cards, whose label column `d` tells, `a` a little, and the others not at all."""
    rng = np.random.default_rng(5)
    count = 4_000
    fraud = (rng.random(count) < 0.1).astype("int8")
    vectors = rng.normal(size=(count, 4)).astype(np.float32)
    vectors[:, 3] += 2.5 * fraud
    vectors[:, 0] += 0.5 * fraud
    at = pd.Timestamp(BEGIN) + pd.to_timedelta(np.sort(rng.integers(0, 20 * 86_400, count)), unit="s")
    rows = pd.DataFrame({"timestamp": at, "card_id": [f"c{n}" for n in range(count)], "is_fraud": fraud})
    return TrainingSet(rows, vectors, ("a", "b", "c", "d"))


@pytest.fixture(scope="module")
def report(made_up: TrainingSet) -> dict[str, object]:
    return ablation.ablation(made_up, PROTOCOL, VIEWS)


def average(steps: list[dict[str, object]]) -> dict[str, float]:
    return {step["name"]: step["metrics"]["average_precision"] for step in steps}  # type: ignore[index, misc]


def test_views_are_added_in_their_order_and_the_one_with_the_label_brings_most(report: dict[str, object]):
    added = average(report["added"])
    assert list(added) == ["request", "+ card_velocity", "+ merchant_risk"]
    assert [step["columns"] for step in report["added"]] == [2, 3, 4]
    assert added["+ merchant_risk"] > added["+ card_velocity"] + 0.2
    assert abs(added["+ card_velocity"] - added["request"]) < 0.05


def test_without_the_view_that_carries_the_label_most_is_lost(report: dict[str, object]):
    left = average(report["left_out"])
    assert min(left, key=left.__getitem__) == "without merchant_risk"
    assert left["without merchant_risk"] == pytest.approx(average(report["added"])["+ card_velocity"])


def test_permutation_and_shap_rank_the_column_with_the_label_first(report: dict[str, object]):
    assert next(iter(report["permutation"])) == next(iter(report["shap"])) == "d"
    assert report["permutation"]["d"] > 0.3
    assert abs(report["permutation"]["c"]) < 0.05


@pytest.mark.parametrize("name", [name for name in ("xgboost", "lightgbm") if name in CANDIDATES])
def test_shap_values_rank_the_columns_of_either_booster(name: str, made_up: TrainingSet):
    model = CANDIDATES[name](made_up.columns).fit(made_up.vectors, made_up.rows["is_fraud"])
    found = ablation.shap(model, made_up)
    assert set(found) == set(made_up.columns)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert next(iter(found)) == "d"


def test_a_model_without_exact_shap_values_is_refused(made_up: TrainingSet):
    linear = LogisticRegression().fit(made_up.vectors, made_up.rows["is_fraud"])
    with pytest.raises(ablation.NoTrees, match="must be XGBoost or LightGBM"):
        ablation.shap(linear, made_up)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Offline:
    dataset = synthetic.load(2_000, seed=4, days=40)
    begin = dataset.transactions["timestamp"].min().floor("D").to_pydatetime() + timedelta(days=20)
    return offline(dataset, tmp_path_factory.mktemp("offline"), begin, begin + timedelta(days=20))


def test_the_views_of_the_registry_hold_every_column_once(small: Offline):
    views = ablation.groups(small.store)
    assert list(views) == ["request", "card_velocity", "merchant_velocity", "merchant_risk", "card_profile"]
    assert sorted(name for names in views.values() for name in names) == sorted(small.data.columns)
    ordered = columns(small.store.get_feature_service("fraud_request_v1"))
    assert views["request"] == ordered


def test_columns_are_taken_by_name_and_keep_the_vector_s_order(small: Offline):
    first, second, third = small.data.columns[:3]
    narrow = ablation.with_columns(small.data, [third, first])
    assert narrow.columns == (first, third)
    np.testing.assert_array_equal(narrow.vectors, small.data.vectors[:, [0, 2]])
    assert second not in narrow.columns


def test_the_command_writes_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "ablation.json"
    ablation.main(["--dataset", "synthetic", "--rows", "4000", "--out", str(out)])
    written = json.loads(out.read_text())
    assert {"dataset", "model", "added", "left_out", "permutation", "shap"} <= set(written)
    assert "without merchant_risk" in capsys.readouterr().out
