"""The stream benchmark runs from end to end at tiny sizes, and its report has the shape that was promised."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.kafka_broker import Broker
from tests.load import backfill, bench_stream, freshness, payments, point_in_time, stock, stream
from tests.load.peers import NAMES, HandWritten
from tests.load.sizes import QUICK
from tests.load.table import lines, markdown

SHAPE = {
    "stream": {"events_per_s", "peer_handwritten", "peer_push_batch", "peer_push_row"},
    "freshness": {"rate", "p50_ms", "p99_ms"},
    "backfill": {"events", "seconds", "per_event_us"},
    "point_in_time": {"rows", "seconds", "peak_mb", "stock_duckdb_seconds"},
    "state": {"cards", "mb"},
}
SIZES = replace(
    QUICK,
    stream_events=4_000,
    stream_cards=400,
    warm_events=0,
    peer_events=500,
    peer_row_events=8,
    freshness_seconds=1.0,
    freshness_warm_seconds=0.5,
    backfill_events=(1_000,),
    backfill_skewed=(),
    dataset_events=5_000,
    rows=2_000,
    stock_rows=(500,),
    limited_history=0,
    state_cards=500,
    state_chunk=300,
)


def here(function: Callable[..., Mapping[str, Any]], /, **given: Any) -> dict[str, Any]:
    """`apart` without the process, which takes seconds to start; arguments and result still pass through JSON."""
    found: dict[str, Any] = json.loads(json.dumps(function(**json.loads(json.dumps(given)))))
    return {**found, "peak_mb": 1.0}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, kafka_broker: Broker) -> None:
    if not kafka_broker.real:
        pytest.skip(f"Kafka is {kafka_broker.described}")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_broker.bootstrap)
    monkeypatch.setattr(bench_stream, "REPORTED", SIZES)
    for module in (stream, freshness, backfill, point_in_time, stock):
        monkeypatch.setattr(module, "apart", here)


# ibis, under Feast's own DuckDB store, calls DuckDB by a name that is about to go.
@pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
@pytest.mark.usefixtures("quick")
def test_every_part_reports_what_was_promised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "bench.json"
    assert bench_stream.main(["--output", str(output)]) == 0
    report = json.loads(output.read_text())
    for part, names in SHAPE.items():
        assert names <= set(report[part]), report[part]
    assert {"machine", "versions", "command", "date"} <= set(report)
    assert report["stream"]["dead_letters"] == 0
    assert report["point_in_time"]["stock_runs"]["500"]["equal"] is True
    printed = capsys.readouterr().out
    assert bench_stream.main(["--markdown", str(output)]) == 0
    shown = capsys.readouterr().out
    assert shown == markdown(report) + "\n"
    for line in lines(report):
        assert line.what.strip() in printed
        assert line.what.strip() in shown


def test_generated_payments_are_in_order_and_never_at_one_instant() -> None:
    drawn = payments.payments(5_000, 100)
    assert (drawn.ts[1:] > drawn.ts[:-1]).all()
    rows = drawn.frame()
    assert [json.loads(body)["transaction_id"] for body in drawn.bodies(10, 12)] == ["t10", "t11"]
    assert json.loads(next(drawn.bodies(7, 8)))["card_id"] == rows["card_id"][7]
    assert (rows["ingested_at"] >= rows["timestamp"]).all()


def test_the_peer_keeps_the_windows_it_is_said_to_keep() -> None:
    windows = HandWritten()
    for day, amount in ((1, 10.0), (8, 20.0), (9, 40.0)):
        event = {"card_id": "c", "merchant_id": "m", "amount": amount, "timestamp": f"2026-03-{day:02d}T12:00:00Z"}
        found = windows.features(event)
    assert set(found) == set(NAMES)
    assert (found["count_1h"], found["count_24h"], found["count_7d"]) == (1, 2, 2)
    assert (found["sum_7d"], found["std_7d"], found["max_7d"], found["nunique_7d"]) == (60.0, 10.0, 40.0, 1)
