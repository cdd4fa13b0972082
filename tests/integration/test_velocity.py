"""The velocity job as a process of its own against a real Redis: what was sent can be read, each event once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow.dataset as ds
import pytest

from feature_repo.settings import Settings
from monitoring.parts import environment
from monitoring.processes import Platform, at_free_ports
from stream_jobs.transports.redis_streams import publish
from tests.integration.velocity_platform import START, VELOCITY, VelocityPlatform, body, deliveries, payments, questions
from tests.parity.three_ways import microseconds
from training import batch

DAY = timedelta(days=1)
END = START + 12 * DAY


@dataclass
class Replayed:
    """A platform on which everything was sent and done; `rows` are the valid payments, each once."""

    platform: VelocityPlatform
    rows: pd.DataFrame
    sent: pd.DataFrame
    dead: dict[bytes, str]
    metrics: str


def letters(rows: pd.DataFrame) -> dict[bytes, str]:
    """Bodies that are no valid events, with the beginning of the reason."""
    first = rows.iloc[0].to_dict()
    return {
        b"{ not json": "invalid: Transaction in record",
        body(first | {"transaction_id": "bad", "amount": -1.0}): "invalid: Transaction in record",
        body(first | {"transaction_id": "late"}): "late: 600.000001 s behind; at most 0:10:00",
        body(first | {"transaction_id": "early"}): "early: 300.000001 s ahead; at most 0:05:00",
    }


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replayed]:
    current = at_free_ports(Settings(home=tmp_path_factory.mktemp("velocity")))
    past = payments(1, 400, START - 40 * DAY, 40 * DAY - timedelta(minutes=11), cards=8, merchants=5, name="past")
    rows = payments(2, 1_200, START, 11 * DAY, cards=8, merchants=5)
    with Platform(current) as platform:
        job = VelocityPlatform(platform, past)
        batch.put_online(job.store, START - 60 * DAY, START, [*VELOCITY, *batch.BATCH_VIEWS])
        platform.start("stream")
        sent = deliveries(3, rows)
        dead = letters(rows)
        half = len(sent) // 2
        job.send(sent.iloc[:half])
        at = int(microseconds(rows["timestamp"])[0])
        publish(job.client, current.transactions_stream, list(dead), [at, at, at + 600_000_001, at - 300_000_001])
        job.send(sent.iloc[half:])
        job.drain()
        with urllib.request.urlopen(f"http://127.0.0.1:{current.stream_metrics_port}/metrics", timeout=10) as reply:
            metrics = reply.read().decode()
        yield Replayed(job, pd.concat([past, rows], ignore_index=True), sent, dead, metrics)


def test_online_history_and_brute_force_agree_on_what_was_sent(replayed: Replayed):
    asked = questions(replayed.rows, [END, END + timedelta(microseconds=1), END + DAY, END + 29 * DAY])
    # Labels of the past have become known since; their batch is due before the question.
    batch.put_online(replayed.platform.store, START, END, ["merchant_risk"])
    assert replayed.platform.wrong(replayed.rows, asked) == []


def test_what_cannot_be_counted_lies_among_the_dead_letters_with_the_reason(replayed: Replayed):
    client, current = replayed.platform.client, replayed.platform.settings
    found = {fields[b"body"]: fields[b"reason"].decode() for _, fields in client.xrange(current.dead_letter_stream)}
    assert found.keys() == replayed.dead.keys()
    for text, reason in replayed.dead.items():
        assert found[text].startswith(reason)
    assert set(replayed.platform.pending().values()) == {0}


def test_history_holds_the_valid_payments_as_they_came(replayed: Replayed):
    folder = replayed.platform.settings.offline_path / "transactions"
    written = ds.dataset(folder).to_table().to_pandas()
    written = written[~written["transaction_id"].str.startswith("past")]
    assert len(written) == len(replayed.sent)  # duplicates too: the readers count them once
    once = written.drop_duplicates().sort_values("transaction_id").reset_index(drop=True)
    expected = replayed.sent.drop_duplicates("transaction_id").sort_values("transaction_id").reset_index(drop=True)
    pd.testing.assert_frame_equal(once, expected[list(once.columns)], check_dtype=False)


def test_every_record_is_counted_by_what_became_of_it(replayed: Replayed):
    once = replayed.sent["transaction_id"].nunique()
    found = dict(line.rsplit(" ", 1) for line in replayed.metrics.splitlines() if line.startswith("fraud_"))
    expected = {
        'fraud_stream_events_total{outcome="applied"}': once,
        'fraud_stream_events_total{outcome="duplicate"}': len(replayed.sent) - once,
        'fraud_stream_events_total{outcome="dead"}': len(replayed.dead),
        'fraud_dead_letters_total{reason="invalid"}': 2,
        'fraud_dead_letters_total{reason="late"}': 1,
        'fraud_dead_letters_total{reason="early"}': 1,
        'fraud_state_events_dropped_total{view="card_velocity"}': 0,
        'fraud_state_events_dropped_total{view="merchant_velocity"}': 0,
        "fraud_feature_freshness_seconds_count": 2 * len(replayed.sent),
    }
    assert {name: float(found[name]) for name in expected} == expected


def test_the_job_says_until_when_the_features_have_everything(replayed: Replayed):
    client, current = replayed.platform.client, replayed.platform.settings

    def told() -> int:
        (up_to,) = client.hgetall(current.progress_key).values()
        return int(up_to)

    first, deadline = told(), time.monotonic() + 30
    while told() == first and time.monotonic() < deadline:  # an idle log is caught up with, again and again
        time.sleep(0.05)
    assert told() > first
    assert abs(told() / 1e3 - time.time()) < 30


def stored(job: VelocityPlatform) -> dict[bytes, dict[bytes, bytes]]:
    """Every entity's states and stamps as Redis has them."""
    told = job.settings.progress_key.encode()  # no entity's
    keys = [key for key in job.client.scan_iter() if job.client.type(key) == b"hash" and key != told]
    return {key: job.client.hgetall(key) for key in keys}


def test_a_stream_that_was_processed_already_changes_nothing(replayed: Replayed):
    job = replayed.platform
    before = stored(job)
    assert len(before) == 8 + 5
    job.send(replayed.sent.sample(frac=1.0, random_state=5))
    job.drain()
    assert stored(job) == before
    job.platform.stop("stream")  # nor when nothing is remembered but what Redis has
    job.send(replayed.sent)
    job.platform.start("stream")
    job.drain()
    assert stored(job) == before


def test_a_job_without_a_registry_says_what_to_do(tmp_path: Path, redis_server: str):
    current = Settings(home=tmp_path, redis_url=redis_server, transactions_stream="nobody's", consumer_group="nobody")
    ended = subprocess.run(
        [sys.executable, "-m", "bytewax.run", "stream_jobs.velocity"],
        env=os.environ | environment(current),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode != 0
    assert (
        "Stream source 'transactions_stream' feeds no view with aggregations. Run `feast apply` first." in ended.stderr
    )
