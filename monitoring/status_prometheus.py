"""What the status page asks of Prometheus where one answers: the alerts that fire, and the last half hour."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import httpx

from feature_repo.settings import Settings
from monitoring.metrics import Catalogue

PATIENCE = 1.0
"""Seconds that a page may wait for an answer."""

SPAN, STEP = 1_800, 30
"""Seconds of the past that are shown, and between two points of it."""

PAST = {
    "payments": f"sum(rate({Catalogue.total_transactions.name}[1m]))",
    "p50": f"histogram_quantile(0.5, sum by (le) (rate({Catalogue.prediction_latency.name}_bucket[1m])))",
    "p99": f"histogram_quantile(0.99, sum by (le) (rate({Catalogue.prediction_latency.name}_bucket[1m])))",
}
"""The figures whose past is shown, by their names on the page."""


@dataclass(frozen=True)
class Alert:
    """One that fires: `severity` is warning or critical, `link` leads to its section of the runbook."""

    name: str
    severity: str
    summary: str
    link: str


def firing(current: Settings, transport: httpx.BaseTransport | None = None) -> list[Alert] | None:
    """What fires, the worst first; None where no Prometheus answers at FRAUD_PROMETHEUS_URL."""
    found = _ask(current, "alerts", {}, transport)
    if found is None:
        return None
    alerts = [_alert(one) for one in found["alerts"] if one["state"] == "firing"]
    return sorted(alerts, key=lambda one: (one.severity != "critical", one.name, one.summary))


def past(current: Settings, now: float, transport: httpx.BaseTransport | None = None) -> dict[str, list[float]]:
    """The figures of `PAST` over the last half hour, oldest first; without those that Prometheus does not have.

    `now` is in seconds since 1970.
    """
    found = {}
    for name, query in PAST.items():
        asked = {"query": query, "start": now - SPAN, "end": now, "step": STEP}
        data = _ask(current, "query_range", asked, transport)
        if data is None:
            return {}
        values = [float(value) for one in data["result"] for _, value in one["values"]]
        found[name] = [value for value in values if math.isfinite(value)]
    return {name: values for name, values in found.items() if len(values) > 1}


def _ask(current: Settings, what: str, asked: dict[str, Any], transport: httpx.BaseTransport | None) -> Any:
    """The data of an answer; None without one, and where what answers is no Prometheus."""
    try:
        with httpx.Client(timeout=PATIENCE, transport=transport) as client:
            answer = client.get(f"{current.prometheus_url.rstrip('/')}/api/v1/{what}", params=asked).raise_for_status()
        return answer.json()["data"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


def _alert(one: dict[str, Any]) -> Alert:
    labels, told = one["labels"], one.get("annotations", {})
    return Alert(
        labels["alertname"], labels.get("severity", "warning"), told.get("summary", ""), told.get("runbook_url", "")
    )
