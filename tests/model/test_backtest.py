"""Backtests: what a version would have said then, from what was known then, and what it was worth."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from feature_repo import sources
from feature_repo.contract import ONNX_FILE, ContractMismatch, ModelContract
from feature_repo.parity_sample import PARITY_FILE, ParitySample
from feature_repo.settings import Settings, settings
from feature_repo.store import apply
from feature_repo.vector import FEATURE_SERVICE
from tests import tiny_model
from tests.model.conftest import Past
from training import backfill, backtest
from training.dataset import training_set
from training.export import onnx_scores, to_onnx
from training.hindsight import NOW, THEN, Scorer, score_column
from training.models import CANDIDATES
from training.periods import by_days, figures
from training.registered import NoSuchVersion, Registered, fetch

DAY = timedelta(days=1)
REVIEW, DECLINE = 0.15, 0.25


@pytest.fixture(scope="module")
def learned(past: Past) -> tuple[bytes, ModelContract]:
    """A model that leans on every kind of feature, trained on the first half."""
    data = training_set(past.store, past.settings, past.begin + 5 * DAY, past.begin + 30 * DAY)
    made = CANDIDATES["xgboost"](data.columns).set_params(n_estimators=30, n_jobs=1)
    model = made.fit(data.vectors, data.rows["is_fraud"])
    contract = ModelContract(
        feature_service=FEATURE_SERVICE,
        columns=data.columns,
        review_from=REVIEW,
        decline_from=DECLINE,
        algorithm="xgboost",
        trained_until=(past.begin + 30 * DAY).isoformat(),
    )
    return to_onnx(model, len(data.columns)), contract


@pytest.fixture(scope="module")
def versions(
    past: Past, learned: tuple[bytes, ModelContract], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Registered, Registered]:
    """The learned model and the tiny one, as they come back from MLflow."""
    graph, contract = learned
    vectors = np.zeros((3, len(contract.columns)), np.float32)
    sample = ParitySample(contract.columns, vectors, onnx_scores(graph, vectors))
    tiny = tiny_model.files(tiny_model.contract(contract.columns))
    ours = tiny_model.files(contract) | {ONNX_FILE: graph, PARITY_FILE: sample.dumps()}
    found = []
    for files, alias in ((ours, "champion"), (tiny, None)):
        version = tiny_model.publish(past.settings.mlflow_url, past.settings.model_name, files, alias)
        found.append(fetch(past.settings, past.settings.model_name, version, tmp_path_factory.mktemp("version")))
    return found[0], found[1]


def copied(past: Past, home: Path, until: datetime) -> Settings:
    """A store of its own with the payments before `until`, and the profiles."""
    current = past.settings.model_copy(update={"home": home})
    apply(current)
    backfill.load(past.payments[past.payments["timestamp"] < until], current, "history")
    (current.offline_folder / "card_profiles").symlink_to(past.settings.offline_folder / "card_profiles")
    return current


def test_a_backtest_gives_the_scores_that_the_graph_gives_to_the_training_set_s_vectors(
    past: Past, versions: tuple[Registered, Registered]
):
    begin, end = past.begin + 40 * DAY, past.begin + 52 * DAY
    report, rows = backtest.run(past.settings, versions, begin, end, chunk_days=5)
    data = training_set(past.store, past.settings, begin, end)
    assert rows["transaction_id"].tolist() == data.rows["transaction_id"].tolist()
    for model in versions:
        assert rows[score_column(model)].tolist() == model.score(data.vectors, data.columns).tolist()
    fraud, scores = data.rows["is_fraud"].to_numpy(), rows[score_column(versions[0])].to_numpy()
    total = report["versions"][0]["total"]["now"]
    assert total["auc_roc"] == pytest.approx(roc_auc_score(fraud, scores))
    assert total["auc_roc"] > 0.6
    assert total["average_precision"] == pytest.approx(average_precision_score(fraud, scores))
    assert total["reviewed"] == ((scores >= REVIEW) & (scores < DECLINE)).sum()
    assert total["declined"] == (scores >= DECLINE).sum() > 0
    assert total["recall"] == pytest.approx((fraud[scores >= REVIEW]).sum() / fraud.sum())
    assert total["precision"] == pytest.approx(fraud[scores >= REVIEW].mean())
    assert total["expected_frauds"] == pytest.approx(scores.sum())
    value, low, high = report["difference"]["now"]["average_precision"]
    other = average_precision_score(fraud, rows[score_column(versions[1])])
    assert value == pytest.approx(total["average_precision"] - other)
    assert low <= value <= high


def test_stretches_and_processes_change_nothing(past: Past, versions: tuple[Registered, Registered]):
    begin, end = past.begin + 40 * DAY, past.begin + 44 * DAY
    report, rows = backtest.run(past.settings, versions, begin, end, chunk_days=30)
    again, other = backtest.run(past.settings, versions, begin, end, chunk_days=2, jobs=2)
    pd.testing.assert_frame_equal(rows, other, check_exact=True)
    assert again == report


def test_nothing_that_came_later_reaches_a_score(past: Past, versions: tuple[Registered, Registered], tmp_path: Path):
    """Planted: labels published later, payments of the same cards that arrived or happened later, the own label."""
    begin, end = past.begin + 38 * DAY, past.begin + 40 * DAY
    current = copied(past, tmp_path, end)
    scorer = Scorer(current, versions)
    before = scorer.score((begin, end))
    asked = past.payments[(past.payments["timestamp"] >= begin) & (past.payments["timestamp"] < end)]
    backfill.load(asked.assign(is_fraud=1), current, "own labels turned")  # known a week after each of them
    late = asked.assign(transaction_id="late-" + asked["transaction_id"], ingested_at=end, amount=9_999.0)
    early = late.assign(timestamp=begin - timedelta(minutes=1))
    after = asked.assign(
        transaction_id="after-" + asked["transaction_id"], timestamp=end + timedelta(seconds=1), amount=9_999.0
    )
    backfill.load(pd.concat([early, after]), current, "late and after")
    pd.testing.assert_frame_equal(scorer.score((begin, end))[before.columns[:-2]], before[before.columns[:-2]])
    # The same payments count once they have arrived: what was planted is of a kind that does reach a score.
    backfill.load(early.assign(ingested_at=begin), current, "late and after")
    seen = scorer.score((begin, end))
    assert (seen[score_column(versions[0])] != before[score_column(versions[0])]).mean() > 0.1


def test_a_label_that_was_corrected_later_is_known_now_and_was_not_then(
    past: Past, versions: tuple[Registered, Registered], tmp_path: Path
):
    begin, end = past.begin + 20 * DAY, past.begin + 22 * DAY
    current = copied(past, tmp_path, end)
    store = apply(current)
    source = store.get_data_source("labels")
    kinds = sources.schema(source, current.offline_path)
    labels = sources.read(source, current.offline_path, kinds.names, timestamp="timestamp").to_pandas()
    inside = labels[labels["timestamp"] >= begin]
    genuine = inside[inside["is_fraud"] == 0]
    turned = genuine.head(7).assign(is_fraud=1.0, published_at=genuine["published_at"] + 20 * DAY)
    dropped = genuine.tail(4)["transaction_id"]
    kept = labels[~labels["transaction_id"].isin(dropped)]
    for part, frame in (("history", kept), ("corrections", turned)):
        sources.append(source, current.offline_path, pa.Table.from_pandas(frame, kinds, preserve_index=False), part)
    report, rows = backtest.run(current, versions[:1], begin, end)
    by_id = rows.set_index("transaction_id")
    assert (by_id.loc[turned["transaction_id"], THEN] == 0).all()
    assert (by_id.loc[turned["transaction_id"], NOW] == 1).all()
    assert by_id.loc[dropped, [THEN, NOW]].isna().all(axis=None)
    total = report["versions"][0]["total"]
    assert total["now"]["frauds"] == total["then"]["frauds"] + 7
    assert total["now"]["labelled"] == total["now"]["payments"] - 4
    early, _ = backtest.run(current, versions[:1], begin, end, delay=timedelta(days=1))
    assert early["versions"][0]["total"]["then"]["labelled"] == 0, "no label is known after a day"
    assert early["versions"][0]["total"]["then"]["precision"] is None


def test_days_and_weeks_add_up_and_tell_which_were_trained_on(past: Past, versions: tuple[Registered, Registered]):
    begin, end = past.begin + 27 * DAY, past.begin + 37 * DAY
    model = versions[0]
    report, rows = backtest.run(past.settings, versions[:1], begin, end)
    one = report["versions"][0]
    assert [(week["from"], week["days"]) for week in one["weeks"]] == [(f"{begin:%F}", 7), (f"{begin + 7 * DAY:%F}", 3)]
    assert [day["trained_on"] for day in one["days"]] == [True] * 3 + [False] * 7
    for stretches in (one["weeks"], one["days"]):
        for name in ("payments", "frauds", "reviewed", "declined"):
            assert sum(part["then"][name] for part in stretches) == one["total"]["then"][name]
    third = rows[rows["timestamp"].dt.floor("D") == begin + 2 * DAY]
    assert one["days"][2]["now"] == figures(third, score_column(model), NOW, model.contract)
    assert by_days(rows, begin, end, 30, score_column(model), model.contract)[0]["now"] == one["total"]["now"]
    assert report["difference"] == {}


def test_a_version_whose_columns_this_code_has_no_more_is_named(past: Past, tmp_path: Path):
    files = tiny_model.files(tiny_model.contract(["amount", "shoe_size"]))
    version = tiny_model.publish(past.settings.mlflow_url, past.settings.model_name, files, None)
    model = fetch(past.settings, past.settings.model_name, version, tmp_path)
    with pytest.raises(ContractMismatch, match=f"takes shoe_size, which feature service '{FEATURE_SERVICE}'"):
        backtest.run(past.settings, [model], past.begin + 5 * DAY, past.begin + 6 * DAY)


def test_a_period_without_payments_is_named(past: Past, versions: tuple[Registered, Registered]):
    begin = past.begin.replace(year=2001)
    with pytest.raises(LookupError, match=r"No transaction lies in \[2001-01-01, 2001-01-03\)"):
        backtest.run(past.settings, versions, begin, begin + 2 * DAY)


def test_a_version_that_is_not_registered_is_named(past: Past, tmp_path: Path):
    with pytest.raises(NoSuchVersion, match="version '99' cannot be had"):
        fetch(past.settings, past.settings.model_name, "99", tmp_path)
    with pytest.raises(NoSuchVersion, match="version 'nobody' cannot be had"):
        fetch(past.settings, past.settings.model_name, "nobody", tmp_path)


def test_the_command_writes_a_report_for_people_and_for_programs(
    past: Past,
    versions: tuple[Registered, Registered],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    for name, value in (
        ("HOME", past.settings.home),
        ("MLFLOW_URL", past.settings.mlflow_url),
        ("MODEL_NAME", past.settings.model_name),
    ):
        monkeypatch.setenv(f"FRAUD_{name}", str(value))
    settings.cache_clear()
    period = ["--from", f"{past.begin + 40 * DAY:%F}", "--to", f"{past.begin + 49 * DAY:%F}"]
    try:
        given = ["--version", "champion", "--against", versions[1].version, *period, "--out", str(tmp_path / "out")]
        assert backtest.main(given) == 0
        assert backtest.main(["--version", "99", *period]) == 1
    finally:
        settings.cache_clear()
    assert "version '99' cannot be had" in capsys.readouterr().err
    report = json.loads((tmp_path / "out" / "backtest.json").read_text())
    assert [one["version"] for one in report["versions"]] == [model.version for model in versions]
    assert set(report["difference"]) == {"then", "now"}
    payments = pd.read_parquet(tmp_path / "out" / "payments.parquet")
    assert len(payments) == report["payments"] > 1_000
    page, text = ((tmp_path / "out" / f"backtest.{kind}").read_text() for kind in ("html", "md"))
    assert page.count('src="data:image/png;base64,') == text.count(".png)") == 3
    for shown in (f"{report['payments']:,}", f"{report['versions'][0]['total']['then']['auc_roc']:.4g}"):
        assert shown in page
        assert shown in text
    assert all((tmp_path / "out" / name).stat().st_size > 5_000 for name in ("days.png", "weeks.png"))
