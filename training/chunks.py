"""A training set larger than memory: rows and vectors of a period as Parquet files, one for each stretch of days.

Each file is what `training.dataset.training_set` gives for its stretch, bit for bit, and is there whole or not at all;
one that is there for the same question is not asked for again. The offline store answers in batches, so what is held
is a stretch's rows, the events that their windows reach as far as the store may keep them in memory, and a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.context import AT
from feature_repo.historical import KEYS, REQUEST
from feature_repo.schema import TIMESTAMP
from feature_repo.vector import FEATURE_SERVICE, columns, to_vector

ROWS = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in KEYS),
        pa.field("timestamp", TIMESTAMP),
        pa.field("amount", pa.float64()),
        pa.field("is_fraud", pa.int8()),
    ]
)
"""What a file says of a payment beside its vector; the vector's columns follow, float32, named `f0`, `f1`, ...

They are numbered because some of them are called as the payment's own fields are.
"""

QUESTION = b"question"

_INSTANT = "CAST(round(extract(epoch FROM t.timestamp) * 1000000) AS BIGINT)"


def stretches(begin: datetime, end: datetime, days: int) -> list[tuple[datetime, datetime]]:
    """[begin, end) cut into stretches of at most `days` days."""
    step, cuts = timedelta(days=days), [begin]
    while cuts[-1] < end:
        cuts.append(min(cuts[-1] + step, end))
    return list(pairwise(cuts))


def question(begin: datetime, end: datetime) -> str:
    """The query for the labelled payments of [begin, end) in time order, each once, with the newest label of each."""
    fields = ", ".join(f"t.{name}" for name in (*KEYS, *REQUEST))
    bounds = f"t.timestamp >= TIMESTAMPTZ '{begin.isoformat()}' AND t.timestamp < TIMESTAMPTZ '{end.isoformat()}'"
    once = f"SELECT DISTINCT ON (t.transaction_id) * FROM transactions t WHERE {bounds} ORDER BY t.transaction_id"  # noqa: S608
    newest = (
        "SELECT DISTINCT ON (t.transaction_id) t.transaction_id, t.is_fraud FROM labels t "  # noqa: S608
        f"WHERE {bounds} ORDER BY t.transaction_id, t.published_at DESC, t.known_at DESC"
    )
    return (
        f"SELECT {fields}, t.timestamp AS event_timestamp, {_INSTANT} AS {AT}, l.is_fraud "  # noqa: S608
        f"FROM ({once}) t JOIN ({newest}) l ON l.transaction_id = t.transaction_id "
        "ORDER BY t.timestamp, t.transaction_id"
    )


def write(
    store: Any,
    begin: datetime,
    end: datetime,
    folder: Path,
    days: int,
    fingerprint: str = "",
    told: Callable[[str], object] = lambda line: None,
) -> list[Path]:
    """The files of [begin, end), those made that are not there yet for this question and history (`fingerprint`)."""
    folder.mkdir(parents=True, exist_ok=True)
    service = store.get_feature_service(FEATURE_SERVICE)
    ordered = columns(service)
    files = []
    for first, last in stretches(begin, end, days):
        file = folder / f"{first:%Y%m%dT%H%M}-{last:%Y%m%dT%H%M}.parquet"
        asked = "\n".join((question(first, last), *ordered, fingerprint)).encode()
        files.append(file)
        if file.exists() and (pq.read_schema(file).metadata or {}).get(QUESTION) == asked:
            told(f"{file.name} is there")
            continue
        rows = _retrieve(store, service, ordered, question(first, last), file, asked)
        told(f"{file.name}: {rows:,} rows")
    return files


def _retrieve(store: Any, service: Any, ordered: Sequence[str], query: str, file: Path, asked: bytes) -> int:
    job = store.get_historical_features(query, service, filter_by_created_timestamp=True)
    vector = [pa.field(f"f{place}", pa.float32()) for place in range(len(ordered))]
    schema = pa.schema([*ROWS, *vector], metadata={QUESTION: asked})
    unfinished = file.with_suffix(".writing")
    done = 0
    with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
        for batch in job.batches():
            writer.write_table(_table(batch, ordered, schema))
            done += batch.num_rows
    unfinished.replace(file)
    return done


def _table(batch: pa.RecordBatch, ordered: Sequence[str], schema: pa.Schema) -> pa.Table:
    found = to_vector({name: batch[name] for name in ordered}, ordered).T
    given = [
        batch["event_timestamp" if name == "timestamp" else name].cast(ROWS.field(name).type) for name in ROWS.names
    ]
    return pa.table([*given, *(pa.array(np.ascontiguousarray(column)) for column in found)], schema=schema)


def batches(
    files: Sequence[Path], rows: int, begin: datetime, end: datetime
) -> Iterator[tuple[pd.DataFrame, npt.NDArray[np.float32]]]:
    """Rows (`ROWS`) and vectors (float32, null as NaN) of the payments of [begin, end), some `rows` at a time."""
    held: list[pa.Table] = []
    for file in files:
        for table in _groups(file, begin, end):
            held.append(table)
            if sum(len(one) for one in held) >= rows:
                yield _split(pa.concat_tables(held))
                held = []
    if held:
        yield _split(pa.concat_tables(held))


def _groups(file: Path, begin: datetime, end: datetime) -> Iterator[pa.Table]:
    with pq.ParquetFile(file, memory_map=False) as opened:
        for number in range(opened.num_row_groups):
            table = opened.read_row_group(number)
            stamps = table["timestamp"].to_numpy()
            first, last = np.searchsorted(stamps, [_naive(begin), _naive(end)])
            if last > first:
                yield table.slice(first, last - first)


def _naive(instant: datetime) -> np.datetime64:
    return pd.Timestamp(instant).tz_convert(None).to_datetime64()


def _split(table: pa.Table) -> tuple[pd.DataFrame, npt.NDArray[np.float32]]:
    rows = table.select(ROWS.names).to_pandas()
    found = np.empty((len(table), table.num_columns - len(ROWS)), np.float32)
    for place in range(found.shape[1]):
        found[:, place] = table.column(len(ROWS) + place).to_numpy()
    return rows, found
