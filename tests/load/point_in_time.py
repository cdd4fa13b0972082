"""A training set of all features; one within limited memory; and Feast's stock DuckDB store on the same plain views.

Each retrieval has a process of its own, whose peak memory counts everything in it: the rows asked about, the history
read, the answer. The clock runs from the rows in memory to the vectors.
"""

from __future__ import annotations

import resource
import time
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow as pa

from feature_repo.historical import vectors
from feature_repo.settings import Settings
from feature_repo.store import apply, feature_store
from tests.load import stock
from tests.load.apart import MB, MeasurementFailed, apart, status
from tests.load.backfill import SPAN_DAYS, first_run, load
from tests.load.payments import PER_DAY, Payments, last_hour, payments
from tests.load.sizes import Sizes

LIMIT = 0.5
"""The share of a history's size in memory by which a process may grow when its memory is limited."""


SPELLS = 20
"""Parts of a history that is asked about where memory is limited."""


def measure(sizes: Sizes) -> dict[str, Any]:
    """The training set, its memory, and the stock store's time for views that it can retrieve."""
    with TemporaryDirectory(prefix="tollgate-bench-") as home:
        given = {"home": home, "events": sizes.rows, "end": last_hour().isoformat()}
        apart(make_history, **given)
        whole = apart(retrieve, **given, rows=sizes.rows)
    found = {**whole, **stock.measure(sizes.stock_rows)}
    if sizes.limited_history:
        found["limited"] = _limited(sizes.limited_history, sizes.limited_rows)
    return found


def _limited(events: int, rows: int) -> dict[str, Any]:
    """What becomes of a retrieval whose process may not grow by as much as the history weighs."""
    with TemporaryDirectory(prefix="tollgate-bench-") as home:
        given = {"home": home, "events": events, "end": last_hour().isoformat()}
        size = apart(make_history, **given)["history_mb"]
        said = {"history_rows": events, "history_mb": size, "growth_mb": round(size * LIMIT, 1)}
        try:
            return {**said, **apart(retrieve, **given, rows=rows, growth_mb=size * LIMIT), "within": True}
        except MeasurementFailed as error:
            return {**said, "rows": rows, "within": False, "error": str(error).splitlines()[-1]}


def make_history(home: str, events: int, end: str) -> dict[str, float]:
    """Load generated payments, with labels and profiles, below `home`; the size of the payments in memory."""
    current = Settings(home=Path(home))
    apply(current)
    drawn = _drawn(events, end)
    load(current, drawn)
    few = pa.Table.from_pandas(drawn.frame(0, 10_000), preserve_index=False)
    return {"history_mb": round(few.nbytes / len(few) * events / MB, 1)}


def retrieve(home: str, events: int, end: str, rows: int, growth_mb: float | None = None) -> dict[str, float]:
    """All features of the service for `rows` payments of a history that `make_history` has made.

    They are its last ones; where memory is limited, some of every part of it, so that all of it has to be read.
    """
    memory = None if growth_mb is None else int(growth_mb * MB / 2)
    current = Settings(home=Path(home), offline_memory=memory)
    store = feature_store(current)
    drawn = _drawn(events, end)
    spells = 1 if growth_mb is None else SPELLS
    ends = [events * (n + 1) // spells for n in range(spells)]
    asked = pd.concat([drawn.frame(to - rows // spells, to) for to in ends], ignore_index=True)
    first_run(store, current, asked)
    if growth_mb is not None:
        # Data alone: code and files that are mapped, and address space that is merely reserved, cost no memory.
        limit = int(status("VmData") + growth_mb * MB)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    began = time.perf_counter()
    found, ordered = vectors(store, asked)
    return {"rows": len(found), "features": len(ordered), "seconds": round(time.perf_counter() - began, 2)}


def _drawn(events: int, end: str) -> Payments:
    return payments(events, max(events // (SPAN_DAYS * PER_DAY), 1), end=datetime.fromisoformat(end))
