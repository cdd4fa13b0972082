"""The alerts that fire, asked of Prometheus: the page judges nothing by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from feature_repo.settings import Settings

PATIENCE = 1.0
"""Seconds that a page may wait for it."""


@dataclass(frozen=True)
class Alert:
    """One that fires: `severity` is warning or critical, `link` leads to its section of the runbook."""

    name: str
    severity: str
    summary: str
    link: str


def firing(current: Settings, transport: httpx.BaseTransport | None = None) -> list[Alert] | None:
    """What fires, the worst first; None where no Prometheus answers at FRAUD_PROMETHEUS_URL, or not with alerts."""
    try:
        with httpx.Client(timeout=PATIENCE, transport=transport) as client:
            answer = client.get(f"{current.prometheus_url.rstrip('/')}/api/v1/alerts").raise_for_status()
        found: list[dict[str, Any]] = answer.json()["data"]["alerts"]
        alerts = [_alert(one) for one in found if one["state"] == "firing"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None
    return sorted(alerts, key=lambda one: (one.severity != "critical", one.name, one.summary))


def _alert(one: dict[str, Any]) -> Alert:
    labels, told = one["labels"], one.get("annotations", {})
    return Alert(
        labels["alertname"], labels.get("severity", "warning"), told.get("summary", ""), told.get("runbook_url", "")
    )
