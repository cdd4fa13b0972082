"""The drift report is silent on the same world, names what moved, and leaves readable files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from monitoring.comparison import CATEGORICAL_FROM, NUMERICAL_FROM, categorical_noise, compare, numerical_noise
from monitoring.drift import DriftSummary, NothingToCompare, drift_report
from monitoring.metrics import metrics


def payments(rows: int, seed: int, *, amount: float = 1.0, night: float = 0.1, unknown: float = 0.2) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "amount": rng.lognormal(3, 1, rows) * amount,
            "is_night": (rng.random(rows) < night).astype("float64"),
            "hour": rng.integers(0, 24, rows).astype("float64"),
            "card_std_amount_24h": np.where(rng.random(rows) < unknown, np.nan, rng.gamma(2, 10, rows)),
            "country_differs": np.full(rows, np.nan),
            "merchant_category": rng.choice(["grocery", "travel", "cash"], rows, p=[0.6, 0.3, 0.1]),
            "score": rng.beta(1, 20, rows),
        }
    )


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> DriftSummary:
    """Amount x 1.3, the night's share doubled, and more nulls in one feature."""
    out = tmp_path_factory.mktemp("moved")
    return drift_report(payments(8_000, 1), payments(6_000, 2, amount=1.3, night=0.2, unknown=0.4), out)


def test_the_same_world_is_silent(tmp_path: Path):
    summary = drift_report(payments(8_000, 1), payments(6_000, 2), tmp_path)
    assert summary.drifted == ()
    assert summary.share == 0.0
    assert not summary.detected
    assert all(column.value < column.threshold for column in summary.columns)


def test_a_planted_shift_is_found_and_named(moved: DriftSummary):
    assert set(moved.drifted) == {"amount", "is_night", "card_std_amount_24h is null"}
    assert moved.share == pytest.approx(3 / len(moved.columns))


def test_the_farthest_column_comes_first(moved: DriftSummary):
    beyond = [column.value / column.threshold for column in moved.columns]
    assert beyond == sorted(beyond, reverse=True)
    assert {column.column for column in moved.columns[:3]} == set(moved.drifted)


def test_the_values_are_those_of_the_named_methods(moved: DriftSummary):
    before, after = payments(8_000, 1), payments(6_000, 2, amount=1.3, night=0.2, unknown=0.4)
    found = {column.column: column for column in moved.columns}
    amount = wasserstein_distance(before["amount"], after["amount"]) / before["amount"].std(ddof=0)
    shares = [[1 - side["is_night"].mean(), side["is_night"].mean()] for side in (before, after)]
    assert found["amount"].value == pytest.approx(amount, rel=1e-6)
    assert found["is_night"].value == pytest.approx(jensenshannon(*shares), rel=1e-6)


def test_a_column_that_is_null_everywhere_is_listed(moved: DriftSummary):
    assert moved.left_out == {"country_differs": "null on both sides"}
    assert "country_differs" not in {column.column for column in moved.columns}


def test_the_json_holds_the_summary_and_evidently_s_own_results(moved: DriftSummary):
    written = json.loads(Path(moved.json_file).read_text(), parse_constant=pytest.fail)
    assert DriftSummary.model_validate(written["summary"]) == moved
    counted = written["evidently"]["metrics"][0]["value"]
    assert counted == {"count": len(moved.drifted), "share": pytest.approx(moved.share)}


def test_the_html_needs_nothing_from_elsewhere(moved: DriftSummary):
    html = Path(moved.html).read_text()
    assert "amount" in html
    assert not re.search(r"<(script|img|iframe)[^>]*\bsrc\s*=\s*[\"']?(https?:)?//", html)
    assert not re.search(r"<link[^>]*\bhref\s*=\s*[\"']?(https?:)?//", html)
    assert not re.search(r"@import\s+(url|[\"'])|url\(\s*[\"']?(https?:)?//", html)


def test_the_gauges_hold_the_last_report(moved: DriftSummary):
    assert metrics.feature_drift.labels(feature="amount")._value.get() > NUMERICAL_FROM
    text = Path(moved.json_file).with_name("drift.prom").read_text()
    assert re.search(r'^fraud_feature_drift\{feature="amount"\} 0\.\d+', text, re.MULTILINE)
    assert re.search(r"^fraud_drift_share 0\.\d+", text, re.MULTILINE)
    assert "total_transactions" not in text


def test_each_side_is_sampled_and_the_sample_is_repeatable(tmp_path: Path):
    before, after = payments(3_000, 1), payments(900, 2)
    first, second = (drift_report(before, after, tmp_path / name, max_rows=1_000) for name in ("a", "b"))
    assert (first.sampled_reference, first.sampled_current) == (1_000, 900)
    assert (first.reference_rows, first.current_rows) == (3_000, 900)
    assert first.columns == second.columns


def test_a_feature_that_died_is_found(tmp_path: Path):
    dead = payments(2_000, 2).assign(card_std_amount_24h=np.nan)
    summary = drift_report(payments(2_000, 1), dead, tmp_path)
    assert summary.drifted == ("card_std_amount_24h is null",)
    assert "null throughout the current side" in summary.left_out["card_std_amount_24h"]


def test_an_empty_side_is_refused(tmp_path: Path):
    with pytest.raises(NothingToCompare, match="the current side has 0 rows"):
        drift_report(payments(10, 1), payments(0, 1), tmp_path)


def test_columns_that_cannot_be_compared_are_listed_with_the_reason():
    before = pd.DataFrame({"at": pd.date_range("2024", periods=200, tz="UTC"), "id": [f"t{n}" for n in range(200)]})
    result = compare(before.assign(old=1.0), before.assign(new=1.0))
    assert set(result.left_out) == {"at", "id", "old", "new"}
    assert not result.thresholds


def test_infinite_values_count_as_null():
    before = pd.DataFrame({"ratio": np.linspace(0, 1, 500)})
    after = before.assign(ratio=before["ratio"].where(before["ratio"] < 0.5, np.inf))
    assert set(compare(before, after).thresholds) == {"ratio is null", "ratio"}


def test_thresholds_of_large_samples_are_the_distances_that_matter():
    assert numerical_noise(20_000, 20_000) < NUMERICAL_FROM
    assert categorical_noise(2, 20_000, 20_000) < CATEGORICAL_FROM


@pytest.mark.parametrize("rows", [50, 300, 2_000])
def test_noise_alone_rarely_passes_the_threshold(rows: int):
    rng = np.random.default_rng(7)
    draws = {"normal": rng.normal, "exponential": rng.exponential, "log-normal": rng.lognormal}
    alarms = 0
    for draw in draws.values():
        for _ in range(100):
            before, after = draw(size=rows), draw(size=rows)
            alarms += wasserstein_distance(before, after) / before.std() > numerical_noise(rows, rows)
    for shares in ([0.5, 0.5], [0.99, 0.01], np.full(24, 1 / 24)):
        for _ in range(100):
            sides = rng.multinomial(rows, shares, size=2)
            alarms += jensenshannon(*sides) > categorical_noise(len(shares), rows, rows)
    assert alarms <= 5, "of 600"


def test_the_command_line_in_a_process_of_its_own(tmp_path: Path):
    payments(1_500, 1).to_parquet(tmp_path / "reference.parquet")
    payments(1_500, 2, amount=2.0).to_parquet(tmp_path / "current.parquet")
    command = [sys.executable, "-W", "error:::monitoring", "-m", "monitoring.drift", "--json"]
    for name in ("reference", "current"):
        command += [f"--{name}", str(tmp_path / f"{name}.parquet")]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], env=os.environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert DriftSummary.model_validate_json(done.stdout).drifted == ("amount",)
    assert done.stderr == ""


def test_importing_the_module_imports_no_evidently():
    code = "import sys, monitoring.drift; sys.exit('evidently' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
