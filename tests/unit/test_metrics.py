"""The catalogue keeps its rules, and its metrics add up across processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram

from feature_repo.settings import ROOT
from monitoring.declaration import Metric, declared, observe_many
from monitoring.metrics import (
    AMOUNT_MEMORY,
    Catalogue,
    decayed_mean,
    in_document,
    main,
    markdown,
    metrics,
    record_amounts,
)

ENTRIES = list(declared(Catalogue))
# Names given from outside; every other one follows the house rule.
SEEDED = {
    "total_transactions_total",
    "high_risk_transactions_total",
    "fraud_score_distribution",
    "avg_transaction_amount",
    "predictions_total",
    "prediction_latency_seconds",
    "feature_retrieval_latency_seconds",
    "model_errors_total",
    "active_model_version",
}
IDENTIFIERS = ("card", "merchant", "transaction", "payment", "device", "ip", "id")


def in_fresh_python(code: str, **environment: str) -> str:
    """Run code in a process of its own and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_seeded_name_is_in_the_catalogue():
    missing = SEEDED - {entry.name for entry in ENTRIES}
    assert not missing


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.attribute)
def test_an_entry_follows_the_naming_rule(entry: Metric):
    assert entry.name in SEEDED or entry.name.startswith("fraud_")
    assert entry.name.endswith("_total") == (entry.kind == "counter")
    assert entry.name.endswith("_seconds") == entry.unit.startswith("seconds")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.attribute)
def test_an_entry_says_what_it_means_and_what_to_do(entry: Metric):
    assert len(entry.meaning) > 10
    assert len(entry.action) > 20
    assert entry.unit
    assert "|" not in entry.meaning + entry.action + entry.unit


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.attribute)
def test_no_label_can_name_a_card_or_a_payment(entry: Metric):
    for label, bound in entry.labels.items():
        assert not set(label.split("_")) & set(IDENTIFIERS)
        assert bound, f"label {label} must say what bounds its values"


def test_no_name_is_declared_twice():
    names = [entry.name for entry in ENTRIES]
    assert len(names) == len(set(names))


def test_every_entry_makes_the_object_it_declares():
    for entry in ENTRIES:
        made = getattr(metrics, entry.attribute)
        assert made is getattr(metrics, entry.attribute), "made once"
        (family,) = made.describe()
        assert family.type == entry.kind
        exported = family.name + ("_total" if entry.kind == "counter" else "")
        assert exported == entry.name


def test_the_score_and_its_buckets_cover_zero_to_one():
    assert Catalogue.score.options["buckets"][0] == 0.0
    assert Catalogue.score.options["buckets"][-1] == 1.0


def test_nothing_is_made_at_import():
    loaded = in_fresh_python("import sys, monitoring.metrics; print('prometheus_client' in sys.modules)")
    assert loaded == "False"


def test_threads_meeting_at_first_use_share_one_object():
    code = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from monitoring.metrics import metrics
gate = Barrier(8)
def use(_):
    gate.wait()
    metrics.total_transactions.inc()
    return id(metrics.total_transactions)
with ThreadPoolExecutor(8) as pool:
    print(len(set(pool.map(use, range(8)))))
"""
    assert in_fresh_python(code) == "1"


def test_workers_add_up(tmp_path: Path):
    worker = """
import sys
from monitoring.metrics import metrics, record_amounts
metrics.total_transactions.inc(3)
metrics.score.observe(0.7)
metrics.active_model_version.labels(model_name="m", version="1").set(1)
record_amounts([{amount}, {amount}])
"""
    for amount in (10, 30):
        in_fresh_python(worker.format(amount=amount), PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    reader = """
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""
    text = in_fresh_python(reader, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    assert "\ntotal_transactions_total 6.0" in text
    assert "\nfraud_score_distribution_count 2.0" in text
    assert "\navg_transaction_amount 30.0" in text
    assert '\nactive_model_version{model_name="m",version="1"} 1.0' in text
    assert "pid=" not in text


def test_the_average_amount_is_a_plain_mean_at_first():
    mean, _ = decayed_mean(0.0, 0.0, [10.0, 20.0, 60.0])
    assert mean == pytest.approx(30.0, rel=1e-2)


def test_the_average_amount_continues_where_it_stopped():
    amounts = [float(n % 7) + 1 for n in range(500)]
    assert decayed_mean(*decayed_mean(0.0, 0.0, amounts[:123]), amounts[123:]) == decayed_mean(0.0, 0.0, amounts)


def test_the_average_amount_forgets():
    mean, _ = decayed_mean(0.0, 0.0, [1_000.0] * 5_000 + [10.0] * (5 * AMOUNT_MEMORY))
    assert 10.0 < mean < 20.0


def test_recorded_amounts_reach_the_gauge():
    record_amounts([5.0] * 20_000)
    assert metrics.average_amount._value.get() == pytest.approx(5.0, abs=0.01)


def test_the_table_lists_every_metric_once():
    table = markdown()
    rows = table.splitlines()[2:]
    assert len(rows) == len(ENTRIES)
    assert all(row.count("|") == 7 for row in rows)
    for entry in ENTRIES:
        assert table.count(f"| `{entry.name}` |") == 1


def test_the_documents_table_is_the_codes():
    text = (ROOT / "docs" / "metrics.md").read_text()
    assert text == in_document(text), "run `python -m monitoring.metrics --write docs/metrics.md`"


def test_a_document_gets_the_table_between_its_marks_and_nowhere_else(tmp_path: Path):
    file = tmp_path / "page.md"
    file.write_text("before\n<!-- catalogue -->\nold\n<!-- end of catalogue -->\nafter\n")
    assert main(["--write", str(file)]) == 0
    text = file.read_text()
    assert text == f"before\n<!-- catalogue -->\n{markdown()}\n<!-- end of catalogue -->\nafter\n"
    assert in_document(text) == text
    with pytest.raises(ValueError, match="no place"):
        in_document("a page without marks")


def test_with_metrics_off_nothing_is_counted_and_nothing_loaded():
    code = """
import sys
import numpy as np
from monitoring.declaration import begin, observe_many
from monitoring.metrics import Catalogue, metrics, record_amounts
begin(metrics, Catalogue)
metrics.predictions.labels(model_version="1", prediction="review").inc()
metrics.breaker_open.set(1)
observe_many(metrics.score, np.ones(3))
record_amounts([1.0])
print('prometheus_client' in sys.modules)
"""
    assert in_fresh_python(code, FRAUD_METRICS="off") == "False"


def test_counts_begin_at_zero_where_their_label_values_are_known():
    code = """
from prometheus_client import generate_latest
from monitoring.declaration import begin
from monitoring.metrics import Catalogue, metrics
begin(metrics, Catalogue)
print(generate_latest().decode())
"""
    told = in_fresh_python(code).splitlines()
    for entry in ENTRIES:
        if entry.kind == "counter" and not entry.labels:
            assert f"{entry.name} 0.0" in told
    assert 'fraud_degraded_answers_total{cause="model_failed"} 0.0' in told
    assert not [line for line in told if line.startswith(("predictions_total{", "fraud_breaker_open"))]
    assert not [line for line in told if "_created" in line]


def test_a_closed_label_has_every_combination_and_an_open_one_none():
    assert Catalogue.control_refusals.combinations() == [
        {"tag": "tollgate.challenger_weight"},
        {"tag": "tollgate.shadow"},
    ]
    assert Catalogue.predictions.combinations() == []
    assert Catalogue.total_transactions.combinations() == [{}]


def test_many_observations_at_once_leave_what_each_alone_would():
    bounds = (0.1, 1.0, 2.5)
    values = np.array([0.0, 0.1, 0.1000001, 1.0, 2.0, 2.5, 2.6, 1e9])
    one, many = (Histogram(f"h_{n}", "help", buckets=bounds, registry=CollectorRegistry()) for n in ("one", "many"))
    for value in values:
        one.observe(value)
    observe_many(many, values[:3])
    observe_many(many, values[3:])
    observe_many(many, values[:0])

    def samples(made: Histogram) -> list[tuple[str, dict[str, str], float]]:
        (family,) = made.collect()
        found = [(s.name.split("_", 2)[2], s.labels, s.value) for s in family.samples]
        return [sample for sample in found if sample[0] != "created"]

    assert samples(many) == samples(one)
