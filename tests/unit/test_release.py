"""Releases against a cluster that is a few dictionaries: who gets the payments, and where they are after a failure."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s import release
from k8s.release import PROBE, Release, ReleaseFailed, main


class Cluster:
    """Two colours with their pods; answers what `kubectl` would. `fails` is the share of payments a colour fails."""

    def __init__(self) -> None:
        self.colour, self.weights = "blue", list[str]()
        self.image: dict[str, str] = {"blue": "service:1"}
        self.replicas = {"blue": 6}
        self.fails: dict[str, float] = {}
        self.payments = self.errors = 0.0
        self.ready = True
        self.order: list[str] = []

    def __call__(self, *words: str, given: str | None = None) -> str:
        handler: Any = getattr(self, f"_{words[0]}")
        answer: str = handler(words, given)
        return answer

    def _get(self, words: tuple[str, ...], _: str | None) -> str:
        if words[1] == "service":
            return json.dumps({"spec": {"selector": {release.LABEL: self.colour}}})
        if words[1] == "pods":
            colour = words[3].split("=")[-1]
            return "\n".join(f"pod/service-{colour}-{number}" for number in range(self.replicas.get(colour, 0)))
        return str(self.replicas[words[1].rpartition("-")[2]])

    def _kustomize(self, words: tuple[str, ...], _: str | None) -> str:
        container = {"name": "service", "image": "service:of-git"}
        template = {"spec": {"containers": [container]}}
        assert Path(words[1]).is_dir()
        name = f"service-{words[1].rpartition('-')[2]}"
        return yaml.safe_dump({"kind": "StatefulSet", "metadata": {"name": name}, "spec": {"template": template}})

    def _apply(self, words: tuple[str, ...], given: str | None) -> str:
        assert words == ("apply", "-f", "-")
        [made] = yaml.safe_load_all(given or "")
        colour = made["metadata"]["name"].rpartition("-")[2]
        self.image[colour] = made["spec"]["template"]["spec"]["containers"][0]["image"]
        self.replicas[colour] = made["spec"]["replicas"]
        self.order.append(f"applied {colour}")
        return ""

    def _rollout(self, words: tuple[str, ...], _: str | None) -> str:
        self.order.append(f"rolled out {words[2].rpartition('-')[2]}")
        return ""

    def _scale(self, words: tuple[str, ...], _: str | None) -> str:
        self.replicas[words[1].rpartition("-")[2]] = int(words[2].partition("=")[2])
        return ""

    def _patch(self, words: tuple[str, ...], _: str | None) -> str:
        self.colour = json.loads(words[-1])["spec"]["selector"][release.LABEL]
        self.order.append(f"to {self.colour}")
        return ""

    def _exec(self, words: tuple[str, ...], _: str | None) -> str:
        if "monitoring.traffic" in words:
            self.weights.append(words[-1])
            return ""
        return json.dumps({"ready": self.ready, "errors": self.errors, "payments": self.payments})

    def passes(self, _: float) -> None:
        """Some time, in which each pod takes a hundred payments."""
        failed = 100 * self.fails.get(self.colour, 0.0)
        self.errors, self.payments = self.errors + failed, self.payments + 100 - failed


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def made(cluster: Cluster) -> Release:
    return Release(cluster, lambda _: None, cluster.passes)


def test_the_idle_colour_gets_the_image_and_as_many_pods_before_the_payments(cluster: Cluster, made: Release):
    assert made.switch("service:2", watch=10) == "green"
    assert cluster.order == ["applied green", "rolled out green", "to green"]
    assert cluster.image == {"blue": "service:1", "green": "service:2"}
    assert cluster.replicas == {"blue": 6, "green": 6}


def test_a_version_that_fails_payments_goes_back_by_itself(cluster: Cluster, made: Release):
    cluster.fails = {"green": 0.02}
    with pytest.raises(ReleaseFailed, match="green failed"):
        made.switch("service:2", watch=10)
    assert cluster.order[-2:] == ["to green", "to blue"]


def test_what_a_colour_failed_before_is_not_held_against_it(cluster: Cluster, made: Release):
    cluster.errors = 1_000.0
    assert made.switch("service:2", watch=10) == "green"


def test_a_version_that_is_not_ready_gets_no_payment(cluster: Cluster, made: Release):
    cluster.ready = False
    with pytest.raises(ReleaseFailed, match="not ready"):
        made.switch("service:2", watch=10)
    assert cluster.colour == "blue"
    assert "to green" not in cluster.order


def test_back_waits_until_the_former_colour_is_as_large_again(cluster: Cluster, made: Release):
    made.switch("service:2", watch=10)
    cluster.replicas["blue"] = 3  # it has been idle
    cluster.order.clear()
    assert made.back() == "blue"
    assert cluster.replicas["blue"] == 6
    assert cluster.order == ["rolled out blue", "to blue"]


def test_there_is_no_way_back_to_what_never_was(cluster: Cluster, made: Release):
    with pytest.raises(ReleaseFailed, match="no pods of green"):
        made.back()
    assert cluster.colour == "blue"


def test_a_canary_grows_and_is_taken_back_where_payments_fail(cluster: Cluster, made: Release):
    made.canary([0.05, 0.2], watch=10)
    assert cluster.weights == ["0.05", "0.2"]
    cluster.fails = {"blue": 0.5}
    with pytest.raises(ReleaseFailed, match="blue failed"):
        made.canary([0.05, 0.2], watch=10)
    assert cluster.weights[2:] == ["0.05", "0"]


def test_the_command_says_by_its_exit_code_how_it_went(cluster: Cluster, made: Release, capsys):
    assert main(["--watch", "10", "switch", "--image", "service:2"], made) == 0
    assert main(["back"], made) == 0
    cluster.fails = {"green": 1.0}
    assert main(["--watch", "10", "switch", "--image", "service:3"], made) == 1
    assert "green failed" in capsys.readouterr().err
    assert cluster.colour == "blue"


class Pod(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ready, metrics = 503, (
            b'model_errors_total{error_type="model"} 3.0\nmodel_errors_total{error_type="invalid_input"} 50.0\n'
            b"# HELP total_transactions_total x\ntotal_transactions_total 40.0\n"
        )  # fmt: skip
        self.send_response(ready if self.path == "/readyz" else 200)
        self.end_headers()
        self.wfile.write(metrics)

    def log_message(self, *_: object) -> None:
        pass


def test_what_is_asked_inside_a_pod_counts_failures_that_are_the_services_own(capsys):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pod)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        exec(PROBE.replace("127.0.0.1:3000", f"127.0.0.1:{server.server_port}"), {})
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert json.loads(capsys.readouterr().out) == {"ready": False, "errors": 3.0, "payments": 40.0}
