"""The benchmark of models runs from end to end at a tiny size, and its report has the shape that was promised."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from tests.load import bench_models
from tests.load.models_ceiling import ceiling
from tests.load.models_measures import REQUEST_ONLY, means, spread
from tests.load.models_oracle import hindsight
from tests.load.models_published import METRICS
from tests.load.models_sizes import QUICK
from tests.load.models_table import lines, markdown
from training.datasets.handbook import FILE
from training.generate import generate
from training.split import HANDBOOK

MODELS = ("logistic_regression",)
TINY = replace(QUICK, models=MODELS)


def test_the_models_are_compared_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_models, "QUICK", TINY)
    output = tmp_path / "bench.json"
    assert bench_models.main(["--quick", "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    assert set(report["synthetic"]) == {*MODELS, REQUEST_ONLY}
    for figures in report["synthetic"].values():
        assert set(METRICS) <= set(figures)
        assert 0.5 < figures["auc_roc"] <= 1.0, "better than chance, or the features say nothing"
    reached = report["ceiling"]["synthetic"]
    assert reached["average_precision"] > report["synthetic"][MODELS[0]]["average_precision"]
    for name in MODELS:
        assert {"seconds", "peak_mb", "plain_seconds"} <= set(report["training"][name])
    assert {"machine", "versions", "command", "date"} <= set(report)
    printed = capsys.readouterr().out
    assert bench_models.main(["--markdown", str(output)]) == 0
    assert capsys.readouterr().out == markdown(report) + "\n"
    for line in lines(report):
        assert line.what.strip() in printed


def test_a_set_that_is_not_there_is_said_to_be_missing() -> None:
    report = bench_models.run([], ["nowhere.csv"], TINY, lambda text: None)
    assert "does not exist" in report["nowhere.csv"]["missing"]


def test_several_runs_are_told_as_mean_and_deviation() -> None:
    runs = [{"a": {"auc_roc": 0.8}}, {"a": {"auc_roc": 0.9}}]
    assert spread(runs) == {"a": {"auc_roc": [pytest.approx(0.85), pytest.approx(0.05)]}}
    assert means(spread(runs)) == {"a": {"auc_roc": pytest.approx(0.85)}}


def test_the_oracle_of_a_generated_history_is_never_told_the_payment_itself() -> None:
    raw = generate(4_000, seed=3, days=60)
    told = pd.DataFrame(hindsight(raw))
    for row in raw.index[raw["is_fraud"] == 1][:25]:
        other = raw.assign(is_fraud=raw["is_fraud"].where(raw.index != row, 0))
        assert_frame_equal(told.loc[[row]], pd.DataFrame(hindsight(other)).loc[[row]])


def published(frauds: list[dict[str, Any]]) -> pd.DataFrame:
    """Two payments a day of 300 cards, 10 to 30 each, and some frauds; terminal 50 has no others from 08-07 on."""
    rng = np.random.default_rng(1)
    days = pd.date_range("2018-07-01", "2018-08-14")
    card = np.tile(np.arange(300), len(days) * 2)
    rows = pd.DataFrame(
        {
            "TX_DATETIME": np.repeat(days.to_numpy(), 600) + pd.to_timedelta(rng.integers(0, 86_400, len(card)), "s"),
            "CUSTOMER_ID": card,
            "TERMINAL_ID": rng.integers(0, 90, len(card)),
            "TX_AMOUNT": rng.uniform(10, 30, len(card)).round(2),
            "TX_FRAUD": 0,
            "TX_FRAUD_SCENARIO": 0,
        }
    )
    taken_over = (rows["TERMINAL_ID"] == 50) & (rows["TX_DATETIME"] >= "2018-08-07")
    rows = pd.concat([rows[~taken_over], pd.DataFrame(frauds)], ignore_index=True)
    return rows.assign(TRANSACTION_ID=np.arange(len(rows)))


def fraud(day: str, scenario: int, card: int, terminal: int = 0, amount: float = 20.0) -> dict[str, Any]:
    """One fraud at noon."""
    at = pd.Timestamp(f"2018-{day} 12:00")
    return dict(
        zip(
            ("TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD", "TX_FRAUD_SCENARIO"),
            (at, card, terminal, amount, 1, scenario),
            strict=True,
        )
    )


def test_the_oracle_knows_every_fraud_but_those_of_terminals_whose_labels_are_not_known_yet(tmp_path: Path) -> None:
    early, late = fraud("07-31", 2, card=299, terminal=95), fraud("08-07", 2, card=298, terminal=50)
    known = [fraud("08-10", 2, card=1, terminal=95), fraud("08-11", 1, card=2, amount=230.0)]
    known += [fraud("08-12", 3, card=3, amount=100.0)]
    published([early, late, *known]).to_parquet(tmp_path / FILE)
    assert ceiling(tmp_path, HANDBOOK)["average_precision"] == pytest.approx(1.0)
    unknown = fraud("08-12", 2, card=4, terminal=50)
    published([early, late, *known, unknown]).to_parquet(tmp_path / FILE)
    assert 0.75 < ceiling(tmp_path, HANDBOOK)["average_precision"] < 0.8, "one in four looks like any other"
