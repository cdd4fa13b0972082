"""The demo as a person starts it: a real process on generated data, to its end, interrupted, and failing half-way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from feature_repo.settings import ROOT, Settings
from feature_repo.sources import MissingTable
from monitoring.supervision import PartFailed, free_ports
from stream_jobs.transports.kafka_topics import admin
from tests.kafka_broker import Broker
from tests.running import naming
from training import demo
from training.datasets.synthetic import load
from training.export import ParityError
from training.models import CANDIDATES
from training.prepare import Steps, UnfitData, prepare

ROWS, REPLAYED = 6_000, 300
MODELS = set(CANDIDATES)
DEADLINE = 300.0


@dataclass
class Demo:
    """A demo that was started, with a platform's home and a folder of reports of its own."""

    process: subprocess.Popen[str]
    home: Path
    reports: Path

    def finish(self) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, err

    def processes(self) -> list[str]:
        """What runs for this demo, told by its home in a command line or an environment, but for the demo itself."""
        return naming(str(self.home), self.process.pid, os.getpid())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Starts a demo; one that a failing test leaves behind is ended with the test."""
    started: list[Demo] = []

    def begin(*arguments: str, **settings: str) -> Demo:
        home, reports = tmp_path / "home", tmp_path / "reports"
        process = subprocess.Popen(
            [sys.executable, "-m", "training.demo", *arguments, "--reports", str(reports)],
            cwd=ROOT,
            env=os.environ | {"FRAUD_HOME": str(home)} | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(Demo(process, home, reports))
        return started[-1]

    yield begin
    for each in started:
        if each.process.poll() is None:
            each.process.terminate()
            each.process.communicate(timeout=60)


def generated(replayed: int = REPLAYED) -> list[str]:
    return ["--dataset", "synthetic", "--rows", str(ROWS), "--replay", str(replayed)]


def eventually(condition: Callable[[], bool], running: Demo) -> None:
    """Return when the condition holds; the demo must still be running then."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert running.process.poll() is None, running.finish()
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def test_the_demo_shows_the_whole_loop_and_leaves_nothing_behind(start: Callable[..., Demo]):
    running = start(*generated())
    code, out, err = running.finish()
    assert code == 0, out + err
    assert running.processes() == []
    report = json.loads((running.reports / "demo.json").read_text())
    assert report["dataset"] == "synthetic"
    assert report["transactions"] == ROWS
    assert report["fraud_rate"] == pytest.approx(0.012)
    assert set(report["models"]) == MODELS
    for metrics in report["models"].values():
        assert {"auc_roc", "average_precision", "card_precision_100"} <= set(metrics)
        saved = metrics.pop("cost_saved_share")
        assert saved is None or saved <= 1
        assert all(0 <= value <= 1 for value in metrics.values())
    assert report["champion"] in MODELS
    live = report["replay"]
    assert live["scored"] == REPLAYED
    assert live["vectors_checked"] == live["scored"]
    assert live["vectors_different"] == 0, live["different_by_feature"]
    assert live["decisions_logged"] == live["scored"]
    assert 0 < live["p50_ms"] <= live["p99_ms"]
    for share in ("precision", "recall"):
        assert live[share] is None or 0 <= live[share] <= 1
    assert (ROOT / report["drift_report"]).resolve() == (running.reports / "drift" / "drift.html").resolve()
    assert (running.reports / "drift" / "drift.html").stat().st_size > 100_000
    assert "served vectors recomputed from history: 300, different: 0" in out
    assert "Traceback" not in out + err


def test_over_kafka_no_served_vector_differs_and_no_topic_is_left(start: Callable[..., Demo], kafka_broker: Broker):
    if not kafka_broker.real:
        pytest.skip(f"Kafka is {kafka_broker.described}")
    before = topics_at(kafka_broker)
    running = start(
        *generated(), FRAUD_TRANSPORT="kafka", FRAUD_KAFKA_BOOTSTRAP=kafka_broker.bootstrap, FRAUD_KAFKA_PARTITIONS="3"
    )
    during: set[str] = set()

    def replaying() -> bool:
        during.update(topics_at(kafka_broker) - before)
        return running.process.poll() is not None or (running.home / "demo" / "answers.jsonl").exists()

    deadline = time.monotonic() + DEADLINE
    while not replaying():
        assert time.monotonic() < deadline
        time.sleep(0.5)
    code, out, err = running.finish()
    assert code == 0, out + err
    live = json.loads((running.reports / "demo.json").read_text())["replay"]
    assert (live["scored"], live["vectors_checked"], live["vectors_different"]) == (REPLAYED, REPLAYED, 0)
    assert live["decisions_logged"] == REPLAYED
    kinds = {"transactions", "transactions.dead", "decisions", "predictions", "feature-updates"}
    assert {name.split(".", 1)[1] for name in during if name.startswith("demo-")} == kinds
    assert not {name for name in topics_at(kafka_broker) - before if name.startswith("demo-")}
    assert running.processes() == []


def topics_at(broker: Broker) -> set[str]:
    return set(admin(broker.bootstrap).list_topics(timeout=20).topics)


def test_a_broker_that_is_not_there_is_named_before_anything_is_done(start: Callable[..., Demo]):
    (port,) = free_ports(1)
    running = start(FRAUD_TRANSPORT="kafka", FRAUD_KAFKA_BOOTSTRAP=f"127.0.0.1:{port}")
    code, _, err = running.finish()
    assert code == 1
    assert err.strip() == (
        f"FRAUD_KAFKA_BOOTSTRAP is '127.0.0.1:{port}': no Kafka broker answers there. "
        "Start one, name another as host:port, or unset FRAUD_TRANSPORT."
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_interrupted_in_the_replay_leaves_nothing_behind(start: Callable[..., Demo], number: signal.Signals):
    running = start(*generated(replayed=1_000))
    answers = running.home / "demo" / "answers.jsonl"
    eventually(answers.exists, running)
    assert any("redis-server" in line for line in running.processes()), "what is to be ended is found at all"
    assert any("stream_jobs.replay" in line for line in running.processes())
    running.process.send_signal(number)
    code, out, err = running.finish()
    assert code == (130 if number == signal.SIGINT else 143)
    assert running.processes() == []
    assert "Traceback" not in out + err
    if number == signal.SIGINT:
        assert "Interrupted; every process of the demo has been stopped." in out
    assert not (running.reports / "demo.json").exists()


def test_data_that_fails_a_gate_end_the_demo_with_the_gate_and_no_traceback(start: Callable[..., Demo], tmp_path: Path):
    rows = load(2_000, days=60).transactions
    file = tmp_path / "unlabelled.parquet"
    rows.assign(is_fraud=0).to_parquet(file)
    running = start("--dataset", str(file))
    code, out, err = running.finish()
    assert code == 1
    assert running.processes() == []
    assert err.strip().splitlines()[0] == "Data set 'unlabelled' is not fit to train on:"
    assert "Gate 'fraud rate': value is 0; must be from 0.001 to 0.05." in err
    assert "Traceback" not in out + err


FAILURES = [
    UnfitData("Data set 'x' spans 3 days."),
    PartFailed("Part 'redis': port 6379 cannot be used."),
    MissingTable("labels", "a folder"),
    ParityError("The ONNX graph differs."),
    demo.DemoFailed("The replay ended with code 1."),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_what_may_go_wrong_is_said_in_a_line(
    failure: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(*_: Any) -> int:
        raise failure

    monkeypatch.setattr(demo, "run", fail)
    monkeypatch.setattr(sys, "argv", ["demo"])
    with pytest.raises(SystemExit) as ended:
        demo.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.strip() == str(failure)


def test_a_fault_of_the_code_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any) -> int:
        raise AssertionError("rows were lost")

    monkeypatch.setattr(demo, "run", fail)
    monkeypatch.setattr(sys, "argv", ["demo"])
    with pytest.raises(AssertionError, match="rows were lost"):
        demo.main()


@pytest.mark.parametrize(
    ("dataset", "rows", "message"),
    [
        ("nowhere.csv", 1_000, r"'nowhere\.csv'"),
        ("no-such-name", 1_000, r"no such name; must be handbook, sparkov, synthetic"),
        ("synthetic", 10, r"needs rows >= 1000"),
    ],
)
def test_data_that_cannot_be_had_are_unfit(dataset: str, rows: int, message: str, tmp_path: Path):
    steps = Steps(Console(quiet=True))
    with pytest.raises(UnfitData, match=message):
        prepare(Settings(home=tmp_path), lambda: None, dataset, steps, rows)


def test_a_history_that_is_too_short_is_unfit(tmp_path: Path):
    rows = load(9_000, days=60).transactions
    brief = rows[rows["timestamp"] < rows["timestamp"].min().floor("D") + pd.Timedelta(days=15)]
    brief.to_parquet(tmp_path / "brief.parquet")
    with pytest.raises(UnfitData, match=r"Data set 'brief' spans 15 days; training with a 7-day label delay"):
        prepare(Settings(home=tmp_path), lambda: None, str(tmp_path / "brief.parquet"), Steps(Console(quiet=True)))
