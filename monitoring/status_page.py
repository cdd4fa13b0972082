"""The status page: one look at the platform for people without Grafana. Self-contained HTML, no build step.

Invariant: what is shown was measured; what is not known is a dash, and every text from outside is escaped.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any

from feature_repo.settings import Settings
from monitoring import job_results, tls
from monitoring.status_cards import BAD, GOOD, WARN, card, decisions, drift, jobs, quality, scores, tiles
from monitoring.status_figures import figures
from monitoring.status_prometheus import Alert, firing, past

TEMPLATE = Path(__file__).with_suffix(".html")
ICONS = {GOOD: "1a7f4b", WARN: "b26a00", BAD: "c62f3b"}
FEAST_UI = ("127.0.0.1", 8888)


def render(home: Path, current: Settings, snapshot: Mapping[str, Any]) -> str:
    """The page as HTML, out of the monitor's last look; asks Prometheus what fires and what was before."""
    found = figures(snapshot)
    alerts = firing(current)
    before = past(current, found["at"]) if alerts is not None else {}
    state, said = _state(found, alerts)
    columns = (
        (decisions(found), scores(found["scores"]), _parts(found)),
        (drift(found),),
        (quality(found["quality"]), jobs(found["jobs"], found["at"])),
    )
    sections = (
        _header(found, state, said),
        tiles(found["now"], before),
        _alerts(current, alerts),
        _grid(columns),
        _links(home, current),
    )
    template = Template(TEMPLATE.read_text())
    return template.substitute(title=escape(said), icon=ICONS[state], body="\n".join(sections))


def _grid(columns: Iterable[Iterable[str]]) -> str:
    """Columns of cards, as many side by side as the window has room for."""
    return '<div class="grid">' + "".join(f"<div>{''.join(cards)}</div>" for cards in columns) + "</div>"


def _state(found: dict[str, Any], alerts: list[Alert] | None) -> tuple[str, str]:
    """The worst that is known, and how it is put."""
    away = [name for name, up in found["up"].items() if not up]
    if "service" in away or any(one.severity == "critical" for one in alerts or ()):
        return BAD, "the service is away" if "service" in away else "something is seriously wrong"
    if away or alerts:
        return WARN, f"{', '.join(away)} away" if away else "something needs a look"
    failed = [name for name, job in found["jobs"].items() if job["failed"]]
    if failed:
        return WARN, f"job {', '.join(failed)} failed"
    if not found["up"]:
        return WARN, "no part is running"
    return GOOD, "all is up, no alert fires" if alerts is not None else "all is up"


def _header(found: dict[str, Any], state: str, said: str) -> str:
    models = ", ".join(f"{escape(one['name'])} version {escape(one['version'])}" for one in found["models"])
    at = datetime.fromtimestamp(found["at"], UTC) if found["at"] else None
    when = f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "not looked yet"
    return (
        f'<header><h1>Tollgate</h1><span id="state" class="badge {state}">{escape(said)}</span>'
        f'<span class="note">{models}</span><span class="when">{when}</span></header>'
    )


def _alerts(current: Settings, alerts: list[Alert] | None) -> str:
    if alerts is None:
        how = "<code>python -m monitoring.processes up prometheus alertmanager</code>"
        told = f"No Prometheus answers at {escape(current.prometheus_url)}, so no alert is evaluated. Start one: {how}"
        return card("Alerts", f'<p class="note">{told}</p>')
    if not alerts:
        return card("Alerts", '<p class="note">None fires.</p>')
    kinds = [list(same) for _, same in groupby(alerts, key=lambda one: one.name)]
    return card("Alerts", f"<ul>{''.join(_alert(same) for same in kinds)}</ul>")


def _alert(same: list[Alert]) -> str:
    """The first of an alert's kind, and how many more of it fire."""
    one, more = same[0], len(same) - 1
    level = BAD if one.severity == "critical" else WARN
    name = escape(one.name)
    linked = f'<a href="{escape(one.link)}">{name}</a>' if one.link.startswith(("http://", "https://")) else name
    also = f' <span class="note">and {more} more</span>' if more else ""
    return f'<li><span class="chip {level}">{escape(one.severity)}</span>{linked} {escape(one.summary)}{also}</li>'


def _parts(found: dict[str, Any]) -> str:
    chips = "".join(
        f'<span class="chip {GOOD if up else BAD}">{escape(name)} {"up" if up else "away"}</span>'
        for name, up in found["up"].items()
    )
    return card("Parts that tell metrics", chips or '<p class="note">None is running.</p>')


def _links(home: Path, current: Settings) -> str:
    reached = "127.0.0.1" if current.host in ("0.0.0.0", "::") else current.host  # noqa: S104 - compared, not bound
    service = f"{tls.scheme(current)}://{reached}:{current.port}"
    folder = home / job_results.FOLDER
    reports = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.html"))
    links = [
        ("API", f"{service}/", "documentation of the service, to try out"),
        ("Model", f"{service}/model", "who answers, and what was refused"),
        ("MLflow", current.mlflow_url, "runs, versions, model cards"),
        *((f"Evidently: {_of(name)}", f"/reports/{name}", "drift, column by column") for name in reports),
        ("Prometheus", current.prometheus_url, "queries and rules"),
        ("Runbook", "/docs/runbook.md", "what to do about each alert"),
        ("This page's figures", "/status.json", "as JSON; /metrics for Prometheus"),
    ]
    shown = "".join(
        f'<div><a href="{escape(address)}">{escape(name)}</a><small>{escape(told)}</small></div>'
        for name, address, told in links
    )
    return card("Look further", f'<div class="links">{shown}{_feast_ui()}</div>')


def _of(report: str) -> str:
    """`against last week`, of `drift/last_week/drift.html`."""
    folder = Path(report).parent.name
    return f"against {folder.replace('_', ' ')}" if folder else report


def _feast_ui() -> str:
    """Feast's own pages are no part of the platform: a link where somebody has started them, else how to."""
    host, port = FEAST_UI
    with socket.socket() as probe:
        probe.settimeout(0.2)
        if probe.connect_ex(FEAST_UI) == 0:
            return f'<div><a href="http://{host}:{port}">Feast UI</a><small>feature views and services</small></div>'
    return (
        "<div>Feast UI<small>not running: <code>cd feature_repo &amp;&amp; ../.venv/bin/feast ui</code></small></div>"
    )
