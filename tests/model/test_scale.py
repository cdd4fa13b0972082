"""Training out of core gives what training in memory gives: the same rows, the same vectors, the same model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo import sources
from feature_repo.settings import Settings
from feature_repo.store import apply, feature_store
from feature_repo.vector import FEATURE_SERVICE, columns
from tests.model.conftest import Past
from training import backfill, chunks, external, fingerprint, scale, scale_history
from training.dataset import TrainingSet, training_set
from training.export import onnx_scores, to_onnx
from training.models import CANDIDATES
from training.split import Protocol

DAYS = timedelta(days=1)
TREES = 20


@pytest.fixture(scope="module")
def whole(past: Past) -> TrainingSet:
    return training_set(past.store, past.settings, past.begin + 10 * DAYS, past.end)


@pytest.fixture(scope="module")
def files(past: Past, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    spilling = feature_store(past.settings.model_copy(update={"offline_memory": 100_000}))
    return chunks.write(spilling, past.begin + 10 * DAYS, past.end, tmp_path_factory.mktemp("chunks"), 9)


def test_the_files_together_are_the_training_set_bit_for_bit(past: Past, whole: TrainingSet, files: list[Path]):
    assert len(files) == 6
    parts = list(chunks.batches(files, 1_000, past.begin, past.end))
    assert len(parts) > 3
    rows = pd.concat([part for part, _ in parts], ignore_index=True)
    pd.testing.assert_frame_equal(rows, whole.rows[rows.columns])
    assert np.concatenate([vectors for _, vectors in parts]).tobytes() == whole.vectors.tobytes()


def test_a_period_of_the_files_is_cut_to_the_instant(past: Past, whole: TrainingSet, files: list[Path]):
    stamps = whole.rows["timestamp"]
    begin, end = stamps.iloc[1_000].to_pydatetime(), stamps.iloc[5_000].to_pydatetime()
    rows = pd.concat([part for part, _ in chunks.batches(files, 700, begin, end)], ignore_index=True)
    expected = whole.rows[(stamps >= begin) & (stamps < end)]
    assert rows["transaction_id"].tolist() == expected["transaction_id"].tolist()


def test_a_corrected_label_and_a_payment_delivered_twice_are_read_as_the_training_set_reads_them(
    past: Past, tmp_path: Path
):
    current = past.settings.model_copy(update={"home": tmp_path})
    begin, end = past.begin, past.begin + 3 * DAYS
    apply(current)
    first = past.payments[past.payments["timestamp"] < end]
    backfill.load(first, current, "one")
    backfill.load(first.assign(is_fraud=1 - first["is_fraud"]).head(40), current, "two")
    store = feature_store(current)
    source = store.get_data_source("labels")
    later = sources.read(source, current.offline_path, sources.schema(source, current.offline_path).names).to_pandas()
    newest = later.head(25).assign(is_fraud=1.0, published_at=later["published_at"] + DAYS)
    kinds = sources.schema(source, current.offline_path)
    sources.append(source, current.offline_path, pa.Table.from_pandas(newest, kinds, False), "three")
    profiles = past.store.get_data_source("card_profiles")
    none = sources.schema(profiles, past.settings.offline_path).empty_table()
    sources.append(profiles, current.offline_path, none, "none")
    expected = training_set(store, current, begin, end)
    [(rows, vectors)] = chunks.batches(chunks.write(store, begin, end, tmp_path / "c", 9), 10_000, begin, end)
    corrected = rows["transaction_id"].isin(newest["transaction_id"])
    assert rows["is_fraud"][corrected].sum() == 25
    clear = ~rows["transaction_id"].isin(first["transaction_id"].head(40))  # of two said at once either may stand
    ours, theirs = rows[clear | corrected], expected.rows[clear | corrected]
    pd.testing.assert_frame_equal(ours, theirs[rows.columns])
    assert vectors.tobytes() == expected.vectors.tobytes()


def test_a_file_that_answers_the_question_is_left_and_any_other_is_made_anew(past: Past, tmp_path: Path):
    begin, end = past.begin + 20 * DAYS, past.begin + 22 * DAYS
    [file] = chunks.write(past.store, begin, end, tmp_path, 5, "a history")
    os.utime(file, (1, 1))
    chunks.write(past.store, begin, end, tmp_path, 5, "a history")
    assert file.stat().st_mtime == 1
    file.with_suffix(".writing").write_bytes(b"half a file")
    chunks.write(past.store, begin, end, tmp_path, 5, "another history")
    assert file.stat().st_mtime > 1
    assert pq.read_metadata(file).num_rows > 0
    assert list(tmp_path.iterdir()) == [file]


def test_a_fingerprint_tells_what_the_rows_say_and_not_where_they_lie(past: Past, tmp_path: Path):
    current = past.settings.model_copy(update={"home": tmp_path})
    end, store = past.begin + 9 * DAYS, apply(current)
    rows = past.payments[past.payments["timestamp"] < end]
    backfill.load(rows, current, "a")
    whole = fingerprint.of_history(store, current, end)
    backfill.load(rows.iloc[::2], current, "a")
    half = fingerprint.of_history(store, current, end)
    backfill.load(rows.iloc[1::2], current, "b")
    assert fingerprint.of_history(store, current, end) == whole != half
    backfill.load(past.payments[past.payments["timestamp"] >= end], current, "later")
    assert fingerprint.of_history(store, current, end) == whole, "what comes later doesn't count"
    backfill.load(rows.iloc[1::2].assign(amount=rows["amount"] + 0.01), current, "b")
    assert fingerprint.of_history(store, current, end) not in (whole, half)


def test_the_matrix_in_pages_gives_the_model_of_the_matrix_in_memory(whole: TrainingSet, tmp_path: Path):
    fraud = whole.rows["is_fraud"].to_numpy()
    given: list[int] = []

    def pages() -> Iterator[external.Labelled]:
        for begin in range(0, len(fraud), 1_500):
            given.append(begin)
            yield whole.vectors[begin : begin + 1_500], fraud[begin : begin + 1_500]

    def unfitted() -> object:
        return CANDIDATES["xgboost"](whole.columns).set_params(n_estimators=TREES, n_jobs=1)  # type: ignore[attr-defined]

    on_disk = external.fit(unfitted(), pages, tmp_path)
    assert max(given) > 4_000, "there is more than one page"
    assert list(tmp_path.iterdir()) == []
    held = external.fit(unfitted(), pages, tmp_path, on_disk=False)
    plain = unfitted().fit(whole.vectors, fraud)  # type: ignore[attr-defined]
    scores = [model.predict_proba(whole.vectors)[:, 1] for model in (on_disk, held, plain)]
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_allclose(scores[0], scores[2], atol=0.02)
    assert np.abs(scores[0] - scores[2]).mean() < 1e-4
    assert np.ptp(scores[0]) > 0.1, "it has learned something"
    np.testing.assert_allclose(onnx_scores(to_onnx(on_disk, len(whole.columns)), whole.vectors), scores[0], atol=1e-5)


def test_a_round_out_of_core_says_what_it_found_and_goes_on_where_it_was(past: Past, tmp_path: Path):
    current = past.settings.model_copy(
        update={"home": tmp_path, "registry_url": past.settings.registry, "offline_memory": 200_000}
    )
    (tmp_path / "offline").symlink_to(past.settings.offline_folder)
    protocol = Protocol(past.begin, 40, 7, 10)
    sizes = scale.Sizes(chunk_days=20, page_rows=3_000, trees=TREES, threads=1)
    lines: list[str] = []
    report = scale.run(current, protocol, sizes, lines.append)
    data = training_set(past.store, past.settings, past.begin, protocol.test_end)
    assert report["train_rows"] == protocol.train(data.rows).sum()
    assert report["test_rows"] == protocol.test(data.rows).sum()
    assert report["columns"] == len(columns(past.store.get_feature_service(FEATURE_SERVICE)))
    assert report["test"]["auc_roc"] > 0.6
    assert [*report["steps"]] == ["retrieve", "fit", "test"]
    assert report["peak_mb"] > 50
    json.dumps(report)
    again: list[str] = []
    assert scale.run(current, protocol, sizes, again.append)["test"] == report["test"]
    assert sum("is there" in line for line in again) == 3
    assert not any("is there" in line for line in lines)


def test_a_generated_history_is_many_worlds_and_an_interrupted_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scale_history, "WORLD", 1_500)
    current = Settings(home=tmp_path / "home")
    told: list[str] = []
    scale_history.fill(current, 2_001, 35, told=told.append)
    assert [line.split(":")[0] for line in told] == ["world 1", "world 2"]
    store = feature_store(current)
    rows = sources.read(store.get_data_source("transactions"), current.offline_path, ["card_id", "transaction_id"])
    frame = rows.to_pandas()
    assert len(frame) == frame["transaction_id"].nunique() == 2_001
    assert set(frame["card_id"].str[:4]) == {"000-", "001-"}
    profiles = current.offline_folder / "card_profiles"
    (profiles / "world-001.parquet").unlink()
    scale_history.fill(current, 2_001, 35, told=told.append)
    assert [line.split(":")[0] for line in told] == ["world 1", "world 2", "world 2"]
    with pytest.raises(ValueError, match="holds another history"):
        scale_history.fill(current, 3_000, 35)
    assert [path.name for path in current.home.glob("tollgate-world-*")] == []
