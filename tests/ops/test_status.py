"""The status page of a running platform: it shows what Prometheus saw, and its links lead somewhere."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.ops.stage import Stage


def asked(watched: Stage, path: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{watched.settings.monitor_port}{path}", timeout=30)


def test_the_figures_are_those_that_prometheus_has(watched: Stage):
    told = asked(watched, "/status.json").json()
    assert set(told["up"]) == {"service", "stream", "decisions", "feedback"}
    assert set(told["up"].values()) == {1.0}
    assert [sum(told["decisions"]["totals"].values())] == watched.values("sum(predictions_total)")
    assert [told["drift"]["share"]] == watched.values("fraud_drift_share")
    assert [told["skew"]["audited"]] == watched.values("fraud_skew_audited")
    quality = {row["metric"]: row["full"] for row in told["quality"]}
    assert [quality["auc_roc"]] == watched.values('fraud_live_auc_roc{maturity="full"}')
    assert {job["failed"] for job in told["jobs"].values() if job["period"] is not None} == {0.0}
    assert told["jobs"]["loop"]["failed"] is None, "off unless asked for"


def test_the_page_shows_alerts_drift_and_quality_and_its_own_links_lead_somewhere(watched: Stage):
    page = asked(watched, "/")
    assert page.headers["content-type"].startswith("text/html")
    alerts = set(re.findall(r'href="[^"]*/docs/runbook\.md#(\w+)"', page.text))
    fires = {
        one["metric"]["alertname"].lower()
        for one in watched.ask("query", query='ALERTS{alertstate="firing"}')["result"]
    }
    assert alerts == fires != set()
    assert "auc roc" in page.text
    links = set(re.findall(r'href="(/[^"]*)"', page.text))
    assert {"/reports/drift/training/drift.html", "/docs/runbook.md", "/status.json"} <= links
    for link in links:
        assert asked(watched, link).status_code == 200, link
    for address in (watched.settings.mlflow_url, f"http://127.0.0.1:{watched.settings.port}/model"):
        assert f'href="{address}"' in page.text
        assert httpx.get(address, timeout=30).status_code == 200


@pytest.mark.parametrize(
    "path", ["/nothing", "/docs/../README.md", "/docs/%2e%2e%2fREADME.md", "/reports/../platform.json"]
)
def test_nothing_else_is_told(watched: Stage, path: str):
    assert asked(watched, path).status_code == 404
