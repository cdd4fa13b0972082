"""The drift report is silent on the same world, names what moved, and leaves readable files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import norm, rankdata, wasserstein_distance

from monitoring import evidently_report
from monitoring.comparison import ALARMS, CATEGORICAL_FROM, NUMERICAL_FROM, compare, distance
from monitoring.drift import DriftSummary, NothingToCompare, Question, drift_report
from monitoring.drift_distance import RESAMPLES, Scale, category_noise, effective, numeric_noise


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
    asked = Question(name="training", at=datetime(2026, 3, 4, tzinfo=UTC), workspace=out / "evidently")
    now = payments(6_000, 2, amount=1.3, night=0.2, unknown=0.4)
    return drift_report(payments(8_000, 1), now, out, question=asked)


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
    scores = norm.ppf((rankdata(before["amount"]) - 0.5) / len(before))
    order = np.argsort(before["amount"])
    moved_to = np.interp(after["amount"], before["amount"].iloc[order], scores[order])
    amount = wasserstein_distance(scores, moved_to) / scores.std()
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


def test_evidently_s_own_ui_opens_the_snapshot(moved: DriftSummary):
    code = """
import json, sys, warnings
warnings.simplefilter("ignore")
from evidently.ui.workspace import Workspace
workspace = Workspace(sys.argv[1])
(project,) = workspace.list_projects()
(run,) = workspace.list_runs(project.id)
found = workspace.get_run(project.id, run)
values = {m.dict()["display_name"]: m.dict()["value"] for m in found.metric_results.values() if "value" in m.dict()}
print(json.dumps([project.name, found.name, str(found.timestamp), values]))
"""
    folder = Path(moved.html).parent / "evidently"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    project, name, at, values = json.loads(done.stdout)
    assert (project, name, at[:19]) == ("tollgate against training", "training", "2026-03-04 00:00:00")
    for column in moved.columns:
        assert values[f"Value drift for {column.column}"] == pytest.approx(column.value)


def test_the_workspace_keeps_the_last_runs_of_each_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evidently_report, "KEPT", 2)
    kept = []
    for name in ("training", "training", "last_week", "training"):
        asked = Question(name=name, workspace=tmp_path / "evidently")
        columns = ["amount", "is_night"]
        drift_report(payments(300, 1)[columns], payments(300, 2)[columns], tmp_path / name, question=asked)
        runs = {path.stem for path in (tmp_path / "evidently").rglob("snapshots/*.json")}
        kept.append(runs)
    assert [len(runs) for runs in kept] == [1, 2, 3, 3]
    assert not kept[0] & kept[-1], "the oldest of its kind went"
    assert kept[1] - kept[0] < kept[-1]


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


def test_columns_of_their_own_lengths_are_compared_each_with_its_own():
    before = pd.DataFrame({"amount": np.linspace(1, 100, 900), "is_fraud": np.r_[np.ones(9), np.zeros(891)]})
    after = {"amount": before["amount"], "is_fraud": before["is_fraud"].iloc[:300], "score": pd.Series([0.5])}
    made = compare(before.assign(score=np.nan), after, partial=("score", "is_fraud"))
    assert made.left_out == {"score": "no row on the reference side"}
    assert len(made.current["is_fraud"]) == 300
    assert distance(made, "amount") == 0.0


def test_thresholds_of_large_samples_are_the_distances_that_matter():
    made = compare(payments(20_000, 1), payments(20_000, 2))
    numbers = {made.thresholds[name] for name in made.numerical}
    assert numbers == {NUMERICAL_FROM}
    assert made.thresholds["is_night"] == CATEGORICAL_FROM


@pytest.mark.parametrize("rows", [50, 1_000])
def test_chance_alone_passes_a_threshold_as_often_as_it_says(rows: int):
    rng, alarms, once = np.random.default_rng(7), 0, 0.02
    for draw in (rng.normal, rng.exponential, rng.standard_cauchy, lambda size: rng.poisson(0.05, size)):
        for _ in range(5):
            scale = Scale.of(draw(size=5_000))
            limit = numeric_noise(scale, 5_000, rows, once)
            alarms += sum(scale.distance(draw(size=rows)) > limit for _ in range(40))
    for shares in ([0.5, 0.5], [0.99, 0.01], np.full(24, 1 / 24)):
        limit = category_noise(np.array(shares), rows, rows, once)
        for _ in range(200):
            alarms += jensenshannon(*rng.multinomial(rows, shares, size=2)) > limit
    assert alarms <= 50, "of 1,400, of which 28 are expected"


def test_the_tail_beyond_the_resamples_is_that_of_many_more():
    shares, rows = np.array([0.9, 0.06, 0.03, 0.01]), 4_000
    drawn = np.random.default_rng(11).multinomial(int(effective(rows, rows)), shares, size=200_000) / effective(
        rows, rows
    )
    found = np.quantile(jensenshannon(drawn, shares[None], axis=1), 1 - 1e-3)
    assert len(drawn) > 100 * RESAMPLES
    assert category_noise(shares, rows, rows, 1e-3) == pytest.approx(found, rel=0.1)


def test_one_huge_amount_moves_nothing():
    before = np.random.default_rng(5).lognormal(3, 1, 5_000)
    after = before[:1_000].copy()
    plain = wasserstein_distance(before, after)
    scale = Scale.of(before)
    calm = scale.distance(after)
    after[0] = 1e7
    assert wasserstein_distance(before, after) / before.std() > 50 > plain
    assert scale.distance(after) == pytest.approx(calm, abs=0.01)


def test_the_alarms_are_shared_by_all_columns():
    before, after = payments(20_000, 1)[["amount"]], payments(300, 2)[["amount"]]
    alone = compare(before, after).thresholds["amount"]
    many = {f"amount_{place}": before["amount"] for place in range(50)}
    now = dict.fromkeys(many, after["amount"])
    assert (
        compare(many, now).thresholds["amount_0"]
        > alone
        > numeric_noise(Scale.of(before["amount"]), 20_000, 300, ALARMS * 10)
    )


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
