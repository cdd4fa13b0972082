"""One trace crosses the service, the decision log and the job behind it, as a real collector's protocol tells it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from feature_repo.settings import Settings
from feature_repo.store import apply
from feature_repo.vector import FEATURE_SERVICE, columns
from monitoring.decision_log import read_decisions
from monitoring.processes import Platform, at_free_ports
from tests import tiny_model
from tests.chaos.load import until
from tests.postgres_server import Postgres
from tests.unit.test_metrics import in_fresh_python

TRACE, SENDER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
IN_SERVICE = {"decide a payment", "features", "model", "log"}


class Collector:
    """Takes OTLP over HTTP as JSON, and keeps every span with the service that it is of."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/json")
                for told in body["resourceSpans"]:
                    named = {one["key"]: one["value"] for one in told["resource"]["attributes"]}
                    of = named["service.name"]["stringValue"]
                    collector.spans += [span | {"of": of} for scope in told["scopeSpans"] for span in scope["spans"]]
                self.send_response(200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def of(self, trace: str) -> dict[str, dict[str, Any]]:
        """The trace's spans by name; each name once."""
        found = [span for span in self.spans if span["traceId"] == trace]
        named = {span["name"]: span for span in found}
        assert len(named) == len(found)
        return named

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module")
def platform(
    tmp_path_factory: pytest.TempPathFactory, mlflow_server: str, postgres_server: Postgres, collector: Collector
) -> Iterator[Platform]:
    """The service and the job behind its log; only what asks for a trace is traced."""
    given = {"traces_endpoint": collector.url, "traces_share": 0.0, "feature_budget": 5.0, "model_name": "traced"}
    home, url = tmp_path_factory.mktemp("traces"), postgres_server.schema()
    current = at_free_ports(Settings(home=home, postgres_url=url, **given))
    current = current.model_copy(update={"mlflow_url": mlflow_server})
    with Platform(current) as running:
        running.start("redis")
        store = apply(current)
        contract = tiny_model.contract(columns(store.get_feature_service(FEATURE_SERVICE)))
        tiny_model.publish(mlflow_server, current.model_name, tiny_model.files(contract))
        running.start("service", "decisions")
        yield running


def payment(name: str) -> dict[str, Any]:
    at = datetime.now(UTC).isoformat()
    return {"transaction_id": name, "timestamp": at, "card_id": "card-9d", "merchant_id": "shop-4e", "amount": 30.0}


def ask(platform: Platform, path: str, body: Any, parent: str = "", **headers: str) -> httpx.Response:
    url = f"http://127.0.0.1:{platform.settings.port}{path}"
    sent = headers | ({"traceparent": parent} if parent else {})
    return httpx.post(url, json=body, headers=sent, timeout=60).raise_for_status()


def numbered(number: int) -> str:
    return f"{number:032x}"


# A plain request is answered at the express counter; one that says `te` goes the long way.
@pytest.mark.parametrize(
    ("trace", "headers"), [(TRACE, {}), (numbered(7), {"te": "trailers"})], ids=["express", "lane"]
)
def test_one_trace_crosses_http_features_model_log_and_stream(
    platform: Platform, collector: Collector, trace: str, headers: dict[str, str]
):
    ask(platform, "/predict", payment(f"traced-{trace}"), f"00-{trace}-{SENDER}-01", **headers)
    until(lambda: set(collector.of(trace)) == IN_SERVICE | {"carry a decision"})
    spans = collector.of(trace)
    root = spans["decide a payment"]
    assert root["parentSpanId"] == SENDER
    assert {spans[name]["parentSpanId"] for name in {*spans} - {"decide a payment"}} == {root["spanId"]}
    assert {name: span["of"] for name, span in spans.items()} == dict.fromkeys(IN_SERVICE, "tollgate-service") | {
        "carry a decision": "tollgate-decisions"
    }
    begun = [int(spans[name]["startTimeUnixNano"]) for name in ("decide a payment", "features", "model", "log")]
    ended = [int(spans[name]["endTimeUnixNano"]) for name in ("features", "model", "log", "decide a payment")]
    assert begun == sorted(begun)
    assert ended == sorted(ended)
    assert int(spans["carry a decision"]["endTimeUnixNano"]) > begun[-1]
    told = {a["key"]: a["value"] for a in root["attributes"]}
    assert told["tollgate.decision"] == {"stringValue": "approve"}
    assert "traced-" not in json.dumps(collector.spans)
    assert "card-9d" not in json.dumps(collector.spans)


def test_what_is_not_asked_for_is_not_traced_and_leaves_nothing_in_the_log(platform: Platform, collector: Collector):
    quiet, loud = numbered(11), numbered(12)
    ask(platform, "/predict", payment("silent"))
    ask(platform, "/predict", payment("unsampled"), f"00-{quiet}-{SENDER}-00")
    ask(platform, "/predict", payment("garbled"), "no traceparent at all")
    ask(platform, "/predict", payment("last"), f"00-{loud}-{SENDER}-01")
    until(lambda: "carry a decision" in collector.of(loud))
    assert collector.of(quiet) == {}
    logged = read_decisions(platform.settings.redis_url, platform.settings.decisions_stream)
    traced = {one.transaction_id: one.trace for one in logged}
    assert [traced[name] for name in ("silent", "unsampled", "garbled")] == [b"", b"", b""]
    assert traced["last"].startswith(f"00-{loud}-".encode())


def test_each_payment_of_a_batch_has_its_span(platform: Platform, collector: Collector):
    trace = numbered(21)
    batch = {"transactions": [payment(f"batch-{n}") for n in range(3)]}
    ask(platform, "/predict_batch", batch, f"00-{trace}-{SENDER}-01")

    def names() -> list[str]:
        return sorted(span["name"] for span in collector.spans if span["traceId"] == trace)

    until(lambda: names() == sorted([*IN_SERVICE, "carry a decision"] * 3))


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported():
    """By us; BentoML and redis-py import some of it for themselves."""
    code = """
import sys
from feature_repo.settings import Settings
from monitoring.tracing import traces
assert traces(Settings(), "service") is None
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    assert in_fresh_python(code) == "[]"


def test_a_collector_that_is_away_costs_no_payment(platform: Platform, collector: Collector):
    collector.close()
    for number in range(3):
        answer = ask(platform, "/predict", payment(f"alone-{number}"), f"00-{numbered(31)}-{SENDER}-01")
        assert answer.json()["decision"] == "approve"
    until(lambda: "Traces do not reach" in platform.log("service").read_text())
