"""The whole platform, exercised and broken: every metric of its parts is set, and nothing else is exported.

Figures of jobs are held in the tests of the jobs; here are those of the processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import httpx
import numpy as np
import orjson
import psutil
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from bentos import keys
from feature_repo.contract import ONNX_FILE, ModelContract
from feature_repo.settings import Settings
from feature_repo.store import apply
from feature_repo.vector import FALLBACK_SERVICE, FEATURE_SERVICE, columns
from monitoring.catalogue_jobs import MonitorMetrics
from monitoring.catalogue_models import ModelMetrics
from monitoring.catalogue_service import ServiceMetrics
from monitoring.catalogue_stream import DecisionsMetrics, FeedbackMetrics, StreamMetrics
from monitoring.controls import WEIGHT_TAG
from monitoring.declaration import Metric, declared
from monitoring.job_runner import JobRunner
from monitoring.jobs import Job
from monitoring.metrics import Catalogue
from monitoring.processes import Platform, at_free_ports
from monitoring.targets import read_targets
from stream_jobs.transports.redis_streams import publish
from tests import tiny_model
from tests.chaos.load import until
from tests.integration.test_service import give_history
from tests.postgres_server import Postgres

OURS = ("service", "stream", "decisions", "feedback", "monitor")
LIBRARIES = ("python_", "process_")
"""What prometheus_client tells of a process."""

CARD, SHOP = "card-7f3a91", "shop-5c21e0"
BRITTLE_FROM = 1e5
HELD_ELSEWHERE = {
    "state_overflow": "tests/unit/test_stream_steps.py: a state holds 131,072 events",
    "state_sealed": "tests/unit/test_stream_steps.py: an event that is weeks behind the others",
}
"""Counters that stay at 0 here, and where they are made to grow."""


def brittle(contract: ModelContract, bias: float) -> dict[str, bytes]:
    """A version that is sound where training looked, and gives NaN for amounts above `BRITTLE_FROM`."""
    from onnx import helper, numpy_helper

    made = tiny_model.graph(contract.columns, bias)
    graph = made.graph
    limit = numpy_helper.from_array(np.float32([BRITTLE_FROM / 100]), "limit")
    graph.initializer.append(limit)
    extra = [
        helper.make_node("Sub", ["limit", "product"], ["left"]),
        helper.make_node("Log", ["left"], ["log left"]),
        helper.make_node("Mul", ["log left", "zero"], ["nothing or NaN"]),
        helper.make_node("Add", ["plain", "nothing or NaN"], ["logit"]),
    ]
    place = next(n for n, node in enumerate(graph.node) if "logit" in node.output)
    graph.node[place].output[0] = "plain"
    for offset, node in enumerate(extra, 1):
        graph.node.insert(place + offset, node)
    parity = tiny_model.sample(made, contract.columns).dumps()
    return tiny_model.files(contract, bias) | {ONNX_FILE: made.SerializeToString(), "parity.json": parity}


@dataclass
class Live:
    """The platform, what was sent to it, and what it tells."""

    platform: Platform
    key: str
    contract: ModelContract
    sent: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return self.platform.settings

    @cached_property
    def client(self) -> httpx.Client:
        url = f"http://127.0.0.1:{self.settings.port}"
        return httpx.Client(base_url=url, timeout=60, headers={"x-api-key": self.key})

    def payment(self, **changed: Any) -> dict[str, Any]:
        name = f"payment-{len(self.sent)}-b71d"
        self.sent.append(name)
        given = {"transaction_id": name, "timestamp": datetime.now(UTC).isoformat(), "card_id": CARD}
        return given | {"merchant_id": SHOP, "amount": 120.0, "country": "GB", "channel": "online"} | changed

    def predict(self, **changed: Any) -> httpx.Response:
        return self.client.post("/predict", json=self.payment(**changed))

    def tag(self, key: str, value: str) -> None:
        asked = {"name": self.settings.model_name, "key": key, "value": value}
        url = f"{self.settings.mlflow_url}/api/2.0/mlflow/registered-models/set-tag"
        httpx.post(url, json=asked, timeout=30).raise_for_status()

    def scrape(self) -> dict[str, list[Sample]]:
        """The samples of each part, by its job label."""
        found: dict[str, list[Sample]] = {}
        for target in read_targets(self.settings):
            [address] = target["targets"]
            text = httpx.get(f"http://{address}/metrics", timeout=60).raise_for_status().text
            families = text_string_to_metric_families(text)
            found[target["labels"]["job"]] = [sample for family in families for sample in family.samples]
        return found

    def value(self, name: str, **labels: str) -> float:
        """The sum of a name's samples that have these labels, over all parts; 0 where there is none."""
        every = [sample for samples in self.scrape().values() for sample in samples]
        return sum(s.value for s in every if s.name == name and labels.items() <= s.labels.items())

    def workers(self) -> list[psutil.Process]:
        every = self.platform.running["service"].processes()
        return [each for each in every if "_bentoml_impl.worker.service" in each.cmdline()]


def counted(live: Live, name: str, at_least: float = 1.0, **labels: str) -> None:
    until(lambda: live.value(name, **labels) >= at_least)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str, postgres_server: Postgres) -> Iterator[Live]:
    home = tmp_path_factory.mktemp("metrics")
    file = home / "keys.json"
    given = {"feature_budget": 5.0, "workers": 2, "registry_poll": timedelta(seconds=0.5), "shadow_waiting": 50}
    given |= {
        "control_share": 1.0,
        "control_key": "0123456789abcdef",
        "control_max_amount": 500.0,
        "challenger_weight": 0.3,
        "challenger_max_failures": 1_000,
        "model_name": "metered",
        "api_keys": file,
    }
    # Jobs are run below, by the monitor's own runner; they would find little in a platform that is minutes old.
    given |= {"drift_every": None, "quality_every": None, "skew_every": None}
    current = at_free_ports(Settings(home=home, postgres_url=postgres_server.schema(), **given))
    current = current.model_copy(update={"mlflow_url": mlflow_server})
    printed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda *text, **_: printed.extend(map(str, text)))
        assert keys.main(["new", "--id", "test", "--scopes", "score,feedback,admin", "--file", str(file)]) == 0
    with Platform(current) as platform:
        platform.start("redis")
        store = apply(current)
        give_history(store, "card_velocity", "overrun", 20, room=19)
        contract = tiny_model.contract(columns(store.get_feature_service(FEATURE_SERVICE)))
        alone = tiny_model.contract(columns(store.get_feature_service(FALLBACK_SERVICE)), FALLBACK_SERVICE)
        tiny_model.publish(mlflow_server, current.model_name, brittle(contract, -2.0))
        tiny_model.publish(mlflow_server, current.model_name, brittle(contract, 0.0), alias="challenger")
        tiny_model.publish(mlflow_server, current.fallback_model_name, tiny_model.files(alone, -2.5))
        platform.start(*OURS)
        running = Live(platform, printed[-1], contract)
        yield running
        running.client.close()


@pytest.fixture(scope="module")
def exercised(live: Live) -> Live:
    """After everything that a platform meets, one thing after the other."""
    ordinary(live)
    refused_and_repeated(live)
    degraded_by_its_models(live)
    streamed(live)
    told_of_labels(live)
    registry_faults(live)
    shadow_faults(live)
    redis_lost(live)
    jobs_run(live.settings)
    return live


def ordinary(live: Live) -> None:
    for amount in (20.0, 250.0, 450.0, 900.0) * 10:
        assert live.predict(amount=amount, merchant_category="space tourism").status_code == 200
    counted(live, "predictions_total", prediction="decline")
    counted(live, "fraud_shadow_scores_total")
    counted(live, "fraud_shadow_disagreements_total")


def refused_and_repeated(live: Live) -> None:
    same = live.payment()
    assert live.client.post("/predict", json=same).status_code == 200
    assert live.client.post("/predict", json=same).status_code == 200
    assert live.client.post("/predict", json=same | {"amount": 130.0}).status_code == 409
    assert live.predict(amount=-1.0).status_code == 422
    assert live.client.post("/predict", json=live.payment(), headers={"x-api-key": "no"}).status_code == 401
    for path in ("/nowhere", f"/{CARD}"):
        live.client.get(path)
    counted(live, "fraud_decisions_repeated_total")
    counted(live, "fraud_decision_conflicts_total")


def degraded_by_its_models(live: Live) -> None:
    assert live.predict(card_id="overrun").json()["degraded_cause"] == "incomplete_features"
    causes = {live.predict(amount=2 * BRITTLE_FROM).json()["degraded_cause"] for _ in range(25)}
    assert causes == {"model_failed"}
    counted(live, "fraud_challenger_failures_total")
    counted(live, "fraud_degraded_answers_total", cause="model_failed")


def streamed(live: Live) -> None:
    with redis.Redis.from_url(live.settings.redis_url) as client:
        paid = [orjson.dumps(live.payment()) for _ in range(40)]
        stream = live.settings.transactions_stream
        publish(client, stream, [*paid, paid[0], b"{ not json"], [None] * 42)
        counted(live, "fraud_stream_events_total", 40.0, outcome="applied")
        publish(client, stream, paid[:3], [None] * 3)
    counted(live, "fraud_stream_events_total", 4.0, outcome="duplicate")
    counted(live, "fraud_dead_letters_total", reason="invalid")
    counted(live, "fraud_state_cache_hits_total")
    counted(live, "fraud_stream_last_event_timestamp_seconds", datetime.now(UTC).timestamp() - 600)
    until(lambda: live.predict().json()["feature_age_seconds"] is not None)


def told_of_labels(live: Live) -> None:
    now, decided = datetime.now(UTC), live.payment()
    assert live.client.post("/predict", json=decided).status_code == 200
    recent = {"transaction_id": decided["transaction_id"]}
    ancient = {"transaction_id": "payment-of-old", "paid_at": (now - timedelta(days=30)).isoformat()}
    for about in (recent, ancient):
        said = about | {"kind": "chargeback", "occurred_at": now.isoformat()}
        assert live.client.post("/feedback", json=said).status_code == 202
    counted(live, "fraud_feedback_carried_total", outcome="labelled")
    counted(live, "fraud_feedback_carried_total", outcome="unmatched")
    counted(live, "fraud_decisions_carried_total", outcome="added")


def registry_faults(live: Live) -> None:
    live.tag(WEIGHT_TAG, "a third")
    tiny_model.publish(live.settings.mlflow_url, live.settings.model_name, {"MLmodel": b"{}"})
    counted(live, "fraud_control_refusals_total")
    counted(live, "fraud_model_refusals_total")


def shadow_faults(live: Live) -> None:
    many = [live.payment() for _ in range(120)]
    assert live.client.post("/predict_batch", json={"transactions": many}).status_code == 200
    counted(live, "fraud_shadow_dropped_total")
    with redis.Redis.from_url(live.settings.redis_url) as client:
        client.delete(live.settings.shadow_stream)
        client.set(live.settings.shadow_stream, "no stream")
    until(lambda: live.predict().status_code == 200 and live.value("fraud_shadow_unrecorded_total") >= 1)


def answered(live: Live, count: int) -> bool:
    return {live.predict().status_code for _ in range(count)} == {200}


def redis_lost(live: Live) -> None:
    with redis.Redis.from_url(live.settings.redis_url) as client:
        pid: Any = client.info("server")["process_id"]
    os.kill(pid, signal.SIGKILL)
    live.platform.stop("redis")
    until(lambda: answered(live, 3) and live.value("fraud_breaker_open") == 1)
    # While it is open, one call in each half second is tried all the same: a few payments come sooner than that.
    until(lambda: answered(live, 6) and live.value("fraud_features_unavailable_total", cause="open"))
    counted(live, "fraud_decisions_journaled_total")
    assert live.value("fraud_journal_in_use") == 1
    live.platform.start("redis")
    until(lambda: live.predict().status_code == 200 and live.value("fraud_breaker_open") == 0)
    until(lambda: live.value("fraud_journal_in_use") == 0)


def jobs_run(current: Settings) -> None:
    """By the monitor's own runner, in the monitor's home."""
    once = current.model_copy(update={"jobs_after": timedelta(0), "drift_every": timedelta(hours=1)})
    programs = {"drift": "pass", "skew": "raise SystemExit(1)"}
    table = [Job(name, (sys.executable, "-c", code), "drift_every", ()) for name, code in programs.items()]
    runner, ended = JobRunner(once, table), threading.Event()
    thread = threading.Thread(target=runner.run, args=(ended,))
    thread.start()
    until(lambda: set(runner.runs) >= set(programs))
    ended.set()
    thread.join()


BY_NAME = {entry.name: entry for entry in declared(Catalogue)}
ENDINGS = ("_bucket", "_count", "_sum")


def entry_of(name: str) -> Metric[Any] | None:
    for candidate in (name, *(name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending))):
        if candidate in BY_NAME:
            return BY_NAME[candidate]
    return None


def of_catalogue(samples: list[Sample]) -> list[Sample]:
    return [sample for sample in samples if not sample.name.startswith(LIBRARIES)]


@pytest.fixture(scope="module")
def scraped(exercised: Live) -> dict[str, list[Sample]]:
    return exercised.scrape()


def test_every_part_is_a_target(scraped: dict[str, list[Sample]]):
    assert set(scraped) == set(OURS)


@pytest.mark.parametrize(
    ("part", "catalogue"),
    [
        ("service", ServiceMetrics),
        ("service", ModelMetrics),
        ("stream", StreamMetrics),
        ("decisions", DecisionsMetrics),
        ("feedback", FeedbackMetrics),
        ("monitor", MonitorMetrics),
    ],
)
def test_each_metric_of_a_part_is_set_by_its_running_code(scraped: dict[str, list[Sample]], part: str, catalogue: type):
    silent = []
    for entry in declared(catalogue):
        told = [sample for sample in scraped[part] if entry_of(sample.name) is entry]
        moved = [sample for sample in told if entry.kind == "gauge" or sample.value > 0]
        if not moved and not (told and entry.attribute in HELD_ELSEWHERE):
            silent.append(entry.name)
    assert silent == []


def test_nothing_outside_the_catalogue_is_exported(scraped: dict[str, list[Sample]]):
    names = {sample.name for samples in scraped.values() for sample in of_catalogue(samples)}
    assert [name for name in sorted(names) if entry_of(name) is None] == []


def test_a_label_has_the_values_that_the_catalogue_says_and_names_no_card_merchant_or_payment(
    exercised: Live, scraped: dict[str, list[Sample]]
):
    bounds = {"feature": set(exercised.contract.columns), "view": {"card_velocity", "merchant_velocity"}}
    bounds |= {"model_version": {"1", "2", "3", "fallback"}, "version": {"1", "2", "3"}}
    names = {exercised.settings.model_name, exercised.settings.fallback_model_name}
    bounds |= {"model_name": names, "job": {"drift", "quality", "skew"}}
    named = {CARD, SHOP, "overrun", "payment-of-old", *exercised.sent}
    for sample in (one for samples in scraped.values() for one in of_catalogue(samples)):
        entry = entry_of(sample.name)
        assert entry is not None
        given = {label: value for label, value in sample.labels.items() if label != "le"}
        assert set(given) == set(entry.labels)
        for label, value in given.items():
            bound = entry.labels[label]
            assert value in (bound if isinstance(bound, tuple) else bounds[label]), sample
        assert not [name for name in named for value in given.values() if name in value]


def test_a_worker_that_dies_takes_no_count_with_it_and_its_state_is_forgotten(exercised: Live):
    with redis.Redis.from_url(exercised.settings.redis_url) as client:
        pid: Any = client.info("server")["process_id"]
    before = exercised.value("total_transactions_total")
    victims = {worker.pid for worker in exercised.workers()}
    os.kill(pid, signal.SIGKILL)
    exercised.platform.stop("redis")
    until(lambda: answered(exercised, 3) and exercised.value("fraud_breaker_open") == 1)
    for worker in exercised.workers():
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    exercised.platform.start("redis")
    until(lambda: len({w.pid for w in exercised.workers()} - victims) == exercised.settings.workers)
    until(lambda: answers(exercised))
    assert exercised.value("total_transactions_total") >= before
    assert exercised.value("fraud_breaker_open") == 0
    exercised.predict()
    until(lambda: exercised.value("total_transactions_total") > before)


def answers(live: Live) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return live.client.get("/readyz").status_code == 200
    return False


def test_counts_begin_at_zero_so_that_the_first_is_an_increase(exercised: Live, scraped: dict[str, list[Sample]]):
    told = {(sample.name, json.dumps(sample.labels, sort_keys=True)) for sample in scraped["service"]}
    for entry in declared(ServiceMetrics):
        if entry.kind == "counter":
            for values in entry.combinations():
                assert (entry.name, json.dumps(values, sort_keys=True)) in told
