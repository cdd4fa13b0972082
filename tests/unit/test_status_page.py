"""The status page says what was measured, a dash for what was not, and quotes nobody's markup."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from feature_repo.settings import ROOT, Settings
from monitoring import documents, status_page
from monitoring.status_figures import figures
from monitoring.status_prometheus import PAST, Alert, firing, past

NOTHING: dict[str, Any] = {"at": 0.0, "up": {}, "samples": {}, "rates": {}, "jobs": {}}
BUCKETS = {"0.05": 90.0, "0.1": 98.0, "0.2": 100.0, "+Inf": 100.0}
RATES = {
    "total_transactions_total": 100.0,
    "high_risk_transactions_total": 2.0,
    'model_errors_total{error_type="internal"}': 25.0,
    'model_errors_total{error_type="invalid_input"}': 500.0,
    'fraud_degraded_answers_total{cause="stale_features"}': 10.0,
    'predictions_total{model_version="1",prediction="approve"}': 60.0,
    'predictions_total{model_version="2",prediction="approve"}': 30.0,
    'predictions_total{model_version="2",prediction="decline"}': 10.0,
    **{f'prediction_latency_seconds_bucket{{le="{bound}"}}': count for bound, count in BUCKETS.items()},
}
SAMPLES = {
    'active_model_version{model_name="fraud",version="2"}': 1.0,
    'active_model_version{model_name="fraud",version="1"}': 0.0,
    'fraud_feature_drift{feature="amount"}': 0.3,
    'fraud_feature_drift{feature="hour"}': 0.25,
    'fraud_feature_drift_threshold{feature="amount"}': 0.1,
    'fraud_feature_drift_threshold{feature="hour"}': 0.4,
    "fraud_drift_share": 0.5,
    'fraud_live_auc_roc{maturity="full"}': 0.91,
    'fraud_live_promised{metric="auc_roc"}': 0.95,
    "fraud_skew_audited": 40.0,
    'fraud_skew_mismatches{feature="amount"}': 0.025,
    'fraud_skew_mismatches{feature="hour"}': 0.0,
}
JOB = {"period": 3600.0, "absent": [], "failed": 0.0, "duration": 2.5, "last_success": 1.7e9}
LOOK = {"at": 1.7e9, "up": {"service": 1.0}, "samples": SAMPLES, "rates": RATES, "jobs": {"drift": JOB}}


def shown(
    snapshot: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    alerts: list[Alert] | None = None,
    before: dict[str, list[float]] | None = None,
) -> str:
    monkeypatch.setattr(status_page, "firing", lambda _: alerts)
    monkeypatch.setattr(status_page, "past", lambda *_: before or {})
    return status_page.render(Path("nowhere"), Settings(), snapshot)


def test_rates_shares_and_quantiles_are_those_of_the_last_minute():
    now = figures(LOOK)["now"]
    assert now["payments"] == 100
    assert now["errors"] == pytest.approx(0.2), "25 of 125; what breaks the schema is its sender's"
    assert (now["degraded"], now["high_risk"]) == (pytest.approx(0.1), pytest.approx(0.02))
    assert now["p50"] == pytest.approx(0.05 * 50 / 90)
    assert now["p99"] == pytest.approx(0.1 + 0.1 * 1 / 2)
    assert now["freshness"] is None


def test_decisions_models_drift_quality_and_skew_are_told():
    found = figures(LOOK)
    assert found["decisions"]["rates"] == {"approve": 90, "decline": 10}
    assert found["models"] == [{"name": "fraud", "version": "2"}]
    assert found["drift"]["share"] == 0.5
    top = [(one["column"], one["drifted"]) for one in found["drift"]["top"]]
    assert top == [("amount", True), ("hour", False)], "chance alone explains the second"
    assert found["quality"] == [{"metric": "auc_roc", "full": 0.91, "partial": None, "promised": 0.95}]
    assert found["skew"] == {"audited": 40, "features": {"amount": 0.025}}
    json.dumps(found, allow_nan=False)


def test_what_is_not_known_is_null_and_a_dash(monkeypatch: pytest.MonkeyPatch):
    assert set(figures(NOTHING)["now"].values()) == {None}
    page = shown(NOTHING, monkeypatch)
    assert page.count('<b class="">–</b>') == 7
    for told in ("no part is running", "No payment was decided", "No report yet", "No labels yet", "not audited yet"):
        assert told in page
    assert "no alert is evaluated" in page


def test_the_worst_is_said_first(monkeypatch: pytest.MonkeyPatch):
    warning = Alert("DriftHigh", "warning", "Drift of amount is 0.3.", "http://x/docs/runbook.md#drifthigh")
    critical = Alert("ErrorRateVeryHigh", "critical", "20% get no decision.", "")
    assert "<title>Tollgate: all is up, no alert fires</title>" in shown(LOOK, monkeypatch, [])
    assert "<title>Tollgate: all is up</title>" in shown(LOOK, monkeypatch)
    assert "<title>Tollgate: something needs a look</title>" in shown(LOOK, monkeypatch, [warning])
    assert "seriously wrong" in shown(LOOK, monkeypatch, [critical, warning])
    assert "the service is away" in shown(LOOK | {"up": {"service": 0.0}}, monkeypatch, [])
    failed = LOOK | {"jobs": {"skew": JOB | {"failed": 1.0}}}
    assert "job skew failed" in shown(failed, monkeypatch, [])
    page = shown(LOOK, monkeypatch, [warning, warning])
    assert '<a href="http://x/docs/runbook.md#drifthigh">DriftHigh</a> Drift of amount is 0.3.' in page
    assert "and 1 more" in page


def test_nobodys_markup_gets_into_the_page(monkeypatch: pytest.MonkeyPatch):
    evil = "<script>alert(1)</script>"
    samples = {
        f'fraud_feature_drift{{feature="{evil}"}}': 0.5,
        f'active_model_version{{model_name="{evil}",version="1"}}': 1.0,
    }
    look = LOOK | {"samples": samples, "up": {evil: 0.0}, "jobs": {evil: JOB}}
    page = shown(look, monkeypatch, [Alert(evil, evil, evil, "javascript:alert(1)")])
    assert evil not in page
    assert "javascript:" not in page
    assert page.count("&lt;script&gt;alert(1)") >= 6


def test_the_page_needs_nothing_from_elsewhere():
    template = status_page.TEMPLATE.read_text()
    assert "//" not in template.replace("http://www.w3.org/2000/svg", "").replace("// The page", "")
    assert '<link rel="stylesheet"' not in template
    assert "src=" not in template


def answering(document: Any, status: int = 200) -> httpx.MockTransport:
    return httpx.MockTransport(lambda request: httpx.Response(status, json=document))


def test_alerts_are_those_that_fire_the_worst_first_and_unknown_without_a_prometheus():
    def alert(name: str, severity: str, state: str = "firing") -> dict[str, Any]:
        told = {"summary": f"{name}!", "runbook_url": f"#{name}"}
        return {"labels": {"alertname": name, "severity": severity}, "annotations": told, "state": state}

    alerts = [alert("A", "warning"), alert("B", "critical"), alert("C", "critical", "pending")]
    found = firing(Settings(), answering({"data": {"alerts": alerts}}))
    assert found == [Alert("B", "critical", "B!", "#B"), Alert("A", "warning", "A!", "#A")]
    assert firing(Settings(), answering({"data": {"alerts": []}})) == []
    assert firing(Settings(), answering({}, 503)) is None
    assert firing(Settings(), answering({"something": "else"})) is None


def test_the_last_half_hour_is_a_line_from_left_to_right(monkeypatch: pytest.MonkeyPatch):
    values = [["1", "0"], ["2", "NaN"], ["3", "50"], ["4", "100"]]
    found = past(Settings(), 1.7e9, answering({"data": {"result": [{"values": values}]}}))
    assert found == {name: [0, 50, 100] for name in PAST}
    assert past(Settings(), 1.7e9, answering({"data": {"result": []}})) == {}
    assert past(Settings(), 1.7e9, answering({}, 503)) == {}
    page = shown(LOOK, monkeypatch, [], {"payments": [0, 50, 100], "p99": [0.1]})
    assert '<polyline points="0.0,23.0 50.0,12.0 100.0,1.0"/>' in page
    assert page.count("<polyline points") == 1


def test_documents_are_those_of_the_folder_with_anchors_to_link_to():
    page = documents.page("runbook.md")
    assert page is not None
    assert '<h3 id="servicedown">ServiceDown</h3>' in page
    assert "<pre><code" in page
    for name in ("../README.md", "nothing.md", "runbook.md/..", "RUNBOOK.md", "..%2fREADME.md"):
        assert documents.page(name) is None
    assert documents.anchor("On record, and who asks") == "on-record-and-who-asks"


def test_links_between_documents_lead_to_documents():
    for file in (ROOT / "docs").glob("*.md"):
        assert documents.page(file.name) is not None
