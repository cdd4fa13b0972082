"""The generated history is reproducible, and each fraud bears its documented signature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from training.generate import generate, main
from training.scenarios import SCENARIOS

ROWS, DAYS = 60_000, 150


@pytest.fixture(scope="module")
def history() -> pd.DataFrame:
    return generate(ROWS, seed=3, days=DAYS)


@pytest.fixture(scope="module")
def honest(history: pd.DataFrame) -> pd.DataFrame:
    return history[history["is_fraud"] == 0]


def frauds(history: pd.DataFrame, scenario: str) -> pd.DataFrame:
    rows = history[history["scenario"] == scenario]
    assert len(rows) > 50, f"{scenario} has too few rows to judge"
    return rows


def against_usual(rows: pd.DataFrame, honest: pd.DataFrame) -> pd.Series:
    return rows["amount"] / rows["card_id"].map(honest.groupby("card_id")["amount"].mean())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    main(["--rows", "2000", "--seed", "5", "--out", str(tmp_path / "first.parquet")])
    main(["--rows", "2000", "--seed", "5", "--out", str(tmp_path / "second.parquet")])
    assert (tmp_path / "first.parquet").read_bytes() == (tmp_path / "second.parquet").read_bytes()
    assert not generate(2_000, seed=5).equals(generate(2_000, seed=6))


def test_the_history_has_the_rows_columns_and_fraud_rate_asked_for(history: pd.DataFrame) -> None:
    assert len(history) == ROWS
    assert history.shape[1] >= 25
    assert 0.005 <= history["is_fraud"].mean() <= 0.02
    assert history["transaction_id"].is_unique
    required = ["transaction_id", "timestamp", "card_id", "merchant_id", "amount", "merchant_category", "country"]
    assert not history[required].isna().any(axis=None)


def test_time_runs_forward_within_the_days_asked_for(history: pd.DataFrame) -> None:
    assert history["timestamp"].is_monotonic_increasing
    assert history["timestamp"].min() >= pd.Timestamp("2024-01-01", tz="UTC")
    assert history["timestamp"].max() < pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(days=DAYS)
    assert (history["timestamp"].dt.microsecond != 0).mean() > 0.9
    assert (history["ingested_at"] > history["timestamp"]).all()


def test_no_honest_payment_precedes_the_account(honest: pd.DataFrame) -> None:
    assert (honest["timestamp"] >= honest["account_opened"]).all()


def test_card_testing_is_small_online_payments_followed_by_large_ones(
    history: pd.DataFrame, honest: pd.DataFrame
) -> None:
    rows = frauds(history, "card_testing")
    tests = rows["amount"] <= SCENARIOS.card_testing.test_amount[1]
    first = rows.groupby("card_id").head(1)
    assert (rows["channel"] == "online").all()
    assert (first["amount"] <= SCENARIOS.card_testing.test_amount[1]).all()
    assert 0.45 < tests.mean() < 0.7
    assert against_usual(rows[~tests], honest).mean() == pytest.approx(5.0, rel=0.1)


def test_seven_of_ten_off_hours_frauds_happen_at_night(history: pd.DataFrame, honest: pd.DataFrame) -> None:
    assert (frauds(history, "off_hours")["hour"] < 6).mean() == pytest.approx(0.70, abs=0.05)
    assert 0.02 < (honest["hour"] < 6).mean() < 0.15


def test_six_of_ten_foreign_frauds_happen_abroad(history: pd.DataFrame, honest: pd.DataFrame) -> None:
    rows = frauds(history, "foreign")
    assert (rows["country"] != rows["home_country"]).mean() == pytest.approx(0.60, abs=0.03)
    assert 0.05 < (honest["country"] != honest["home_country"]).mean() < 0.25


def test_a_velocity_burst_is_ten_times_the_usual_rate(history: pd.DataFrame, honest: pd.DataFrame) -> None:
    rows = frauds(history, "velocity_burst")
    newest = pd.Timestamp("2024-01-01", tz="UTC")
    cards = history.drop_duplicates("card_id").set_index("card_id")
    open_days = DAYS - (cards["account_opened"].clip(lower=newest) - newest) / pd.Timedelta(days=1)
    usual = honest.groupby("card_id").size() / open_days
    bursts = rows.groupby("card_id")["timestamp"].agg(["size", "min", "max"])
    ratio = bursts["size"] / usual.reindex(bursts.index)
    # The last burst may be cut short by the number of rows asked for.
    assert (ratio >= 10.0).mean() >= 1 - 1.5 / len(ratio)
    single = bursts[bursts["size"] < 2 * SCENARIOS.velocity_burst.least]
    assert ((single["max"] - single["min"]) < pd.Timedelta(days=1)).all()


def test_compromised_merchants_stay_so_for_weeks_and_defraud_their_own_customers(
    history: pd.DataFrame, honest: pd.DataFrame
) -> None:
    rows = frauds(history, "compromised_merchant")
    spans = rows.groupby("merchant_id")["timestamp"].agg(lambda times: (times.max() - times.min()).days)
    customers = set(zip(honest["merchant_id"], honest["card_id"], strict=True))
    assert spans.between(20, 61).all()
    assert rows["merchant_id"].nunique() <= 8
    assert all(pair in customers for pair in zip(rows["merchant_id"], rows["card_id"], strict=True))


def test_the_delayed_risk_of_a_merchant_tells_fraud_from_honest_payments(history: pd.DataFrame) -> None:
    # A merchant's fraud share in one month against the labels of the next: nothing of the future.
    month = (history["timestamp"] - pd.Timestamp("2024-01-01", tz="UTC")).dt.days // 30
    rows = history[history["scenario"].isin(["legitimate", "compromised_merchant"])]
    scores = []
    for past in range(3):
        risk = history[month == past].groupby("merchant_id")["is_fraud"].mean()
        now = rows[month.loc[rows.index] == past + 1]
        scores.append(roc_auc_score(now["is_fraud"], now["merchant_id"].map(risk).fillna(0.0)))
    assert np.mean(scores) > 0.65


def test_no_single_raw_column_separates_the_frauds(history: pd.DataFrame) -> None:
    numeric = history.select_dtypes("number").drop(columns="is_fraud").fillna(0.0)
    words = history[["merchant_category", "country", "channel", "entry_mode", "card_type", "currency"]]
    raw = pd.concat([numeric, pd.get_dummies(words, dtype=float)], axis=1)
    scores = {column: abs(roc_auc_score(history["is_fraud"], raw[column]) - 0.5) + 0.5 for column in raw}
    assert max(scores.values()) < 0.85, scores


@pytest.mark.parametrize("arguments", [{"rows": 999}, {"days": 29}, {"fraud_share": 0.0}, {"fraud_share": 0.5}])
def test_a_history_too_small_or_too_crooked_is_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="raise or correct the argument"):
        generate(**arguments)


@pytest.mark.parametrize(("rows", "days", "share"), [(1_000, 30, 0.001), (1_000, 400, 0.02), (3_000, 30, 0.3)])
def test_the_smallest_and_oddest_histories_still_have_the_frauds_asked_for(rows: int, days: int, share: float) -> None:
    history = generate(rows, seed=1, days=days, fraud_share=share)
    assert len(history) == rows
    assert history["is_fraud"].sum() == round(rows * share)
    assert history["amount"].between(0.5, 1e7).all()


def test_the_command_refuses_bad_arguments_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--rows", "10", "--out", str(tmp_path / "x.parquet")])
    assert "rows >= 1000" in capsys.readouterr().err
