"""The steps of a round of retraining, in their order; each finds what the one before it left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from feature_repo import sources
from feature_repo.schema import HISTORY_SCHEMA
from feature_repo.settings import Settings
from feature_repo.store import feature_store
from monitoring.labels import known_labels
from training import train
from training.dataset import TrainingSet, training_set
from training.datasets.dataset import Dataset
from training.evaluate import metrics_of
from training.marks import Marks
from training.models_registry import Registry
from training.promote import Conditions, promote
from training.registered import Registered, fetch
from training.registry import CHALLENGER, CHAMPION
from training.split import Protocol
from training.validate import require, validate
from training.versions import Versions, utc_now
from training.window import of_test_days

ROWS_FILE, VECTORS_FILE = "rows.parquet", "vectors.npy"
Found = dict[str, Any]


@dataclass(frozen=True)
class Round:
    """What a round works with."""

    settings: Settings
    protocol: Protocol
    marks: Marks
    registry: Registry
    told: Callable[[str], None]

    @property
    def name(self) -> str:
        """The round's name in MLflow."""
        return f"round {self.marks.key}"

    def data(self) -> TrainingSet:
        """The training set that the first step left."""
        folder = self.marks.folder
        columns = self.marks.found("data") or {}
        vectors = np.load(folder / VECTORS_FILE)
        return TrainingSet(pd.read_parquet(folder / ROWS_FILE), vectors, tuple(columns["columns"]))

    def tested(self) -> TrainingSet:
        """The payments of the test days."""
        found = self.data()
        return found.where(self.protocol.test(found.rows))

    def found(self, step: str) -> Found:
        """What an earlier step found."""
        found = self.marks.found(step)
        if found is None:
            raise RuntimeError(f"Step '{step}' of {self.name} is not done.")
        return found


def data(this: Round) -> tuple[Found, Sequence[str]]:
    """Retrieve the point-in-time training set into files."""
    store = feature_store(this.settings)
    protocol, folder = this.protocol, this.marks.folder
    found = training_set(store, this.settings, protocol.earlier().train_start, protocol.test_end)
    found.rows.to_parquet(folder / ROWS_FILE, index=False)
    np.save(folder / VECTORS_FILE, found.vectors)
    frauds = int(found.rows["is_fraud"].sum())
    return {"rows": len(found.rows), "frauds": frauds, "columns": found.columns}, (ROWS_FILE, VECTORS_FILE)


def check(this: Round) -> tuple[Found, Sequence[str]]:
    """Hold the history of the window against the gates of `training.validate`; raises `DataQualityError`."""
    current, store = this.settings, feature_store(this.settings)
    begin, end = this.protocol.earlier().train_start, this.protocol.test_end
    source = store.get_data_source("transactions")
    rows = sources.read(source, current.offline_path, HISTORY_SCHEMA.names, begin, end).to_pandas()
    said = [name for name in HISTORY_SCHEMA.names if name != "ingested_at"]  # it may have been delivered twice
    rows = rows.drop_duplicates(said).merge(known_labels(store, current), on="transaction_id")
    rows = rows.sort_values(["timestamp", "transaction_id"], ignore_index=True)
    report = validate(Dataset(this.name, "file", rows.assign(is_fraud=rows["is_fraud"].astype("int8")), None))
    require(report)
    return {gate.name: gate.value for gate in report.gates}, ()


def fit(this: Round) -> tuple[Found, Sequence[str]]:
    """Train every candidate and register the best, once: a version that a killed run had registered is taken."""
    version = this.registry.version_of(this.name)
    if version is None:
        outcome = train.run(this.settings, this.name, this.protocol, this.data(), lambda text: this.told(text))
        version = outcome.version
    else:
        this.told(f"version {version} was registered already")
    this.registry.tag(version, this.marks.key)
    return {"version": version}, ()


def evaluate(this: Round) -> tuple[Found, Sequence[str]]:
    """The version's figures on the test days, and the champion's on the same ones."""
    test = this.tested()
    champion, version = this.registry.alias(CHAMPION), this.found("train")["version"]
    with TemporaryDirectory() as folder:
        ours = _scores(this, version, test, Path(folder) / "new")
        theirs = _scores(this, champion, test, Path(folder) / "champion") if champion else None
    found: Found = {"version": version, "champion": champion, "test": metrics_of(test.rows, ours)}
    if theirs is not None:
        found["champion_test"] = metrics_of(test.rows, theirs)
    return found, ()


def _scores(this: Round, version: str, test: TrainingSet, folder: Path) -> np.ndarray:
    model: Registered = fetch(this.settings, this.settings.model_name, version, folder)
    return model.score(test.vectors, test.columns)


def judge(this: Round) -> tuple[Found, Sequence[str]]:
    """Whether the version may challenge: by the gates of `training.promote`, on the round's test days.

    The verdict is stored with the version, as every one is.
    """
    seen = of_test_days(this.tested(), this.protocol, utc_now())
    version = this.found("train")["version"]
    verdict = promote(this.settings, version, Conditions(window=seen), dry_run=True).verdict
    Versions(this.settings).keep(verdict)
    words = [gate.model_dump(include={"name", "word", "rule", "evidence", "way_out"}) for gate in verdict.gates]
    return {"passed": verdict.passed, "verdict": str(verdict), "gates": words}, ()


def challenge(this: Round) -> tuple[Found, Sequence[str]]:
    """Make the version the challenger."""
    version = this.found("train")["version"]
    this.registry.challenge(version)
    return {"version": version, "alias": CHALLENGER}, ()


STEPS: dict[str, Callable[[Round], tuple[Found, Sequence[str]]]] = {
    "data": data,
    "validate": check,
    "train": fit,
    "evaluate": evaluate,
    "gate": judge,
    "challenger": challenge,
}
