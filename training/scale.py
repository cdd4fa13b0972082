"""Training out of core: a training set and its matrix on disk, a few hundred thousand rows of them in memory at a time.

`python -m training.scale --train-start 2024-01-01 --train-days 60` trains on what the offline store holds;
`--rows 20000000` first generates a history whose training days hold that many payments. An interrupted run goes on with
what it had retrieved.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
from rich.console import Console

from feature_repo.settings import Settings, settings
from feature_repo.store import feature_store
from feature_repo.vector import FEATURE_SERVICE, columns
from training import chunks, external, fingerprint, scale_history
from training.evaluate import metrics_of
from training.export import check_parity, onnx_scores, to_onnx
from training.generate import START
from training.models import CANDIDATES
from training.split import Protocol

MODEL = "xgboost"
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass
class Costs:
    """Seconds of each step, and the most memory (MB) that the process has had resident by its end."""

    told: Callable[[str], object]
    steps: dict[str, dict[str, float]] = field(default_factory=dict)

    def measure(self, name: str, began: float) -> None:
        """Note that a step is done."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT / 1e6
        self.steps[name] = {"seconds": round(time.perf_counter() - began, 1), "peak_mb": round(peak)}
        self.told(f"{name}: {self.steps[name]['seconds']:,} s, peak {peak:,.0f} MB")


@dataclass(frozen=True)
class Sizes:
    """What is held at a time: days of one retrieval, rows of a page of the matrix. How many trees, by how many threads.

    Null is as the candidate has it.
    """

    chunk_days: int = 7
    page_rows: int = 500_000
    trees: int | None = None
    threads: int | None = None


def run(current: Settings, protocol: Protocol, sizes: Sizes, told: Callable[[str], object] = print) -> dict[str, Any]:
    """Retrieve, fit, export and test; returns the report. The files lie below `current.home / "chunks"`."""
    costs, store = Costs(told), feature_store(current)
    folder = current.home / "chunks"
    began = time.perf_counter()
    known = fingerprint.of_history(store, current, protocol.test_end)
    files = chunks.write(store, protocol.train_start, protocol.test_end, folder, sizes.chunk_days, known, told)
    costs.measure("retrieve", began)

    def labelled() -> Iterator[external.Labelled]:
        for rows, vectors in chunks.batches(files, sizes.page_rows, protocol.train_start, protocol.train_end):
            yield vectors, rows["is_fraud"].to_numpy()

    ordered = columns(store.get_feature_service(FEATURE_SERVICE))
    given = {"n_estimators": sizes.trees, "n_jobs": sizes.threads}
    unfitted = CANDIDATES[MODEL](ordered).set_params(**{name: n for name, n in given.items() if n is not None})
    began = time.perf_counter()
    model = external.fit(unfitted, labelled, folder)
    costs.measure("fit", began)
    began = time.perf_counter()
    graph = to_onnx(model, len(ordered))
    test, scores = _test(files, protocol, model, graph, sizes.page_rows)
    costs.measure("test", began)
    (current.home / "scaled.onnx").write_bytes(graph)
    trained = sum(len(fraud) for _, fraud in labelled())
    return {
        "model": MODEL,
        "trees": int(model.get_num_boosting_rounds()),
        "train_rows": trained,
        "columns": len(ordered),
        "matrix_mb": round(trained * len(ordered) * 4 / 1e6),
        "chunks_mb": round(sum(file.stat().st_size for file in files) / 1e6),
        "test_rows": len(test),
        "test": metrics_of(test, scores),
        "steps": costs.steps,
        "peak_mb": max(step["peak_mb"] for step in costs.steps.values()),
    }


def _test(files: list[Path], protocol: Protocol, model: Any, graph: bytes, rows: int) -> tuple[pd.DataFrame, Any]:
    """The tested rows and their scores by the graph, which must be the model's."""
    found, scores = [], []
    for some, vectors in chunks.batches(files, rows, protocol.test_start, protocol.test_end):
        scores.append(onnx_scores(graph, vectors))
        check_parity(graph, vectors, model.predict_proba(vectors)[:, 1].astype(np.float64), (0.5, 0.5))
        found.append(some)
    seen = ds.dataset(files, format="parquet")
    past = (ds.field("is_fraud") == 1) & (ds.field("timestamp") < pd.Timestamp(protocol.test_start))
    frauds = seen.to_table(columns=chunks.ROWS.names, filter=past).to_pandas()
    together = pd.concat([frauds, *found], ignore_index=True)
    tested = protocol.test(together).to_numpy()
    every = np.concatenate([np.full(len(frauds), np.nan), *scores])
    return together[tested].reset_index(drop=True), every[tested]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.scale", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, help="generate a history with so many payments in its training days")
    parser.add_argument("--train-start", type=lambda text: datetime.fromisoformat(text + "T00:00:00+00:00"))
    for name, days in (("train", 136), ("delay", 7), ("test", 7)):
        parser.add_argument(f"--{name}-days", type=int, default=days)
    parser.add_argument("--chunk-days", type=int, default=Sizes.chunk_days, help="days retrieved at a time")
    parser.add_argument("--page-rows", type=int, default=Sizes.page_rows, help="rows of a page of the matrix")
    parser.add_argument("--memory-mb", type=int, default=512, help="for the events of one retrieval; more go to disk")
    parser.add_argument("--trees", type=int, help="instead of the candidate's own number")
    parser.add_argument("--threads", type=int, help="of XGBoost; on cores that others use too, 1 is the quickest")
    parser.add_argument("--keep", action="store_true", help="leave the generated history and the retrieved files")
    parser.add_argument("--out", type=Path, help="write the report here as JSON")
    given = parser.parse_args()
    if given.rows is None and given.train_start is None:
        parser.error("--train-start names the first day (UTC) to train on; or give --rows for a generated history.")
    return given


def main() -> None:
    """Train on what the offline store holds, or on a generated history that is removed afterwards."""
    given, console = _arguments(), Console()
    current = settings().model_copy(update={"offline_memory": given.memory_mb * 1_000_000})
    if given.rows is not None:
        current = current.model_copy(update={"home": current.home / "scale", "profile": "embedded"})
    protocol = Protocol(
        START.to_pydatetime() if given.rows is not None else given.train_start,
        given.train_days, given.delay_days, given.test_days,
    )  # fmt: skip
    report: dict[str, Any] = {}
    if given.rows is not None:
        began, days = time.perf_counter(), (protocol.test_end - protocol.train_start).days
        scale_history.fill(current, given.rows * days // given.train_days, days, told=console.print)
        report["generate_seconds"] = round(time.perf_counter() - began, 1)
    sizes = Sizes(given.chunk_days, given.page_rows, given.trees, given.threads)
    report |= run(current, protocol, sizes, console.print)
    console.print_json(json.dumps(report))
    if given.out:
        given.out.write_text(json.dumps(report, indent=2) + "\n")
    if not given.keep:
        shutil.rmtree(current.home if given.rows is not None else current.home / "chunks")


if __name__ == "__main__":
    main()
