"""Alerts from a metric to the person: the routes by amtool, and the whole way with a real Prometheus and a receiver."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, Gauge, Histogram, start_http_server

from feature_repo.settings import Settings
from monitoring.metrics import Catalogue
from monitoring.processes import at_free_ports
from monitoring.prometheus_local import alertmanager, alertmanager_config, prometheus, prometheus_config
from monitoring.supervision import Part, PartFailed, free_ports, start, stop, tail, wait
from monitoring.targets import targets_file
from tests.ops.tools import ROUTES, RULES, run

DEADLINE = 120.0


def routed(**labels: str) -> str:
    told = [f"{name}={value}" for name, value in labels.items()]
    return run("amtool", "config", "routes", "test", f"--config.file={ROUTES}", *told).strip()


def test_alertmanager_accepts_the_configuration():
    assert "SUCCESS" in run("amtool", "check-config", ROUTES)


def test_critical_alerts_go_to_who_is_on_call_and_all_others_to_the_desk():
    assert routed(alertname="ServiceDown", severity="critical", about="service") == "on-call"
    assert routed(alertname="DriftHigh", severity="warning", about="drift", feature="amount") == "desk"
    assert routed(alertname="SomebodyElses") == "desk"


def test_whom_to_tell_comes_from_a_file_and_without_one_nobody_is_told(tmp_path: Path):
    file = tmp_path / "webhook"
    file.write_text("https://chat.example.com/hook/secret\n")
    told = alertmanager_config(Settings(home=tmp_path, alert_webhook=file))
    urls = {one["name"]: one["webhook_configs"][0]["url"] for one in told["receivers"]}
    assert urls == {name: f"https://chat.example.com/hook/secret/{name}" for name in ("on-call", "desk")}
    silent = tmp_path / "silent.yml"
    silent.write_text(yaml.safe_dump(alertmanager_config(Settings(home=tmp_path))))
    assert "2 receivers" in run("amtool", "check-config", silent)
    file.write_text("secret")
    with pytest.raises(PartFailed, match="no http") as refused:
        alertmanager_config(Settings(home=tmp_path, alert_webhook=file))
    assert "secret" not in str(refused.value)
    with pytest.raises(PartFailed, match="No such file"):
        alertmanager_config(Settings(home=tmp_path, alert_webhook=tmp_path / "nowhere"))


def test_the_local_configuration_is_valid_and_speaks_of_this_platform(tmp_path: Path):
    current = at_free_ports(Settings(home=tmp_path))
    made = tmp_path / "prometheus.yml"
    made.write_text(yaml.safe_dump(prometheus_config(current)))
    assert "SUCCESS" in run("promtool", "check", "config", made)
    assert f":{current.monitor_port}/docs/runbook.md" in made.read_text()


def test_a_missing_program_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("monitoring.prometheus_local.UNPACKED", tmp_path)
    with pytest.raises(PartFailed, match="apt-get install prometheus prometheus-alertmanager"):
        prometheus(Settings(home=tmp_path))
    with pytest.raises(pytest.fail.Exception, match="apt-get install"):
        run("promtool")


class Receiver:
    """A webhook that keeps what it is told, by path."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        kept = self.told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                kept.extend((self.path, alert) for alert in body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def of(self, name: str, status: str) -> list[tuple[str, dict[str, Any]]]:
        """What was told of an alert: path and alert."""
        return [one for one in self.told if one[1]["labels"]["alertname"] == name and one[1]["status"] == status]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


def edited(file: Path, change: Callable[[Any], None]) -> None:
    config = yaml.safe_load(file.read_text())
    change(config)
    file.write_text(yaml.safe_dump(config))


def at_once(folder: Path) -> Callable[[Any], None]:
    """The same rules without their patience, which `promtool test rules` holds: evaluated each second."""

    def change(config: Any) -> None:
        config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(folder / "*.yml")]
        for file in RULES.glob("*.yml"):
            (folder / file.name).write_text(re.sub(r"\bfor: \w+", "for: 1s", file.read_text()))

    return change


def quick_routes(config: Any) -> None:
    quick = {"group_wait": "1s", "group_interval": "1s"}
    config["route"] |= quick
    config["route"]["routes"][0] |= quick


def test_a_metric_over_its_threshold_reaches_the_receiver_with_its_runbook_and_resolves(
    tmp_path: Path, receiver: Receiver
):
    webhook = tmp_path / "webhook"
    webhook.write_text(f"http://127.0.0.1:{receiver.server.server_port}/")
    ports = free_ports(2)
    current = at_free_ports(Settings(home=tmp_path, alert_webhook=webhook)).model_copy(
        update={"prometheus_url": f"http://127.0.0.1:{ports[0]}", "alertmanager_url": f"http://127.0.0.1:{ports[1]}"}
    )
    registry = CollectorRegistry()
    skew = Gauge(Catalogue.skew_mismatches.name, "skew", ["feature"], registry=registry)
    latency = Histogram(
        Catalogue.prediction_latency.name,
        "latency",
        registry=registry,
        buckets=Catalogue.prediction_latency.options["buckets"],
    )
    skew.labels("amount").set(0)
    exporter, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    entry = {"targets": [f"127.0.0.1:{exporter.server_port}"], "labels": {"job": "service"}}
    rules = tmp_path / "rules"
    rules.mkdir()
    watching = prometheus(current)
    # An alert that fires before Alertmanager is discovered would else be told again after a minute only.
    watching = replace(watching, command=(*watching.command, "--rules.alert.resend-delay=1s"))
    parts: list[Part] = [alertmanager(current), watching]
    targets_file(current).write_text(json.dumps([entry]))
    edited(tmp_path / "prometheus" / "prometheus.yml", at_once(rules))
    edited(tmp_path / "alertmanager" / "alertmanager.yml", quick_routes)
    running = []

    def until(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, (receiver.told, [tail(each.log) for each in running])
            latency.observe(0.3)
            time.sleep(0.1)

    try:
        for part in parts:
            running.append(start(part, tmp_path / "logs"))
            wait(part, running[-1])
        # Nothing says how the stream and the monitor are: that they are away arrives without any doing of ours.
        until(lambda: receiver.of("StreamJobDown", "firing") and receiver.of("MonitorDown", "firing"))
        until(lambda: receiver.of("LatencyVeryHigh", "firing"))
        assert not receiver.of("SkewFound", "firing")
        skew.labels("amount").set(0.02)
        until(lambda: receiver.of("SkewFound", "firing"))
        skew.labels("amount").set(0)
        until(lambda: receiver.of("SkewFound", "resolved"))
    finally:
        for each in reversed(running):
            stop(each)
        exporter.shutdown()
        exporter.server_close()
        thread.join()
    [(path, found), *_] = receiver.of("SkewFound", "firing")
    assert path == "/desk"
    assert found["labels"] == {
        "alertname": "SkewFound", "severity": "warning", "about": "skew", "feature": "amount", "platform": "local"
    }  # fmt: skip
    assert found["annotations"] == {
        "summary": "2% of the audited values of amount are not what history gives.",
        "runbook_url": f"http://127.0.0.1:{current.monitor_port}/docs/runbook.md#skewfound",
    }
    assert {path for path, _ in receiver.of("LatencyVeryHigh", "firing")} == {"/on-call"}
    assert not receiver.of("LatencyHigh", "firing"), "the worse of two about one thing is told alone"
    assert not receiver.of("InstanceDown", "firing")
