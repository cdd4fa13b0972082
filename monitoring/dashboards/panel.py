"""A Grafana dashboard as data: panels in rows, laid out by themselves, and the JSON that Grafana provisions.

Invariant: the same panels make the same JSON, whatever Grafana would add to it; ids and places follow from the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

SCHEMA_VERSION: Final = 39
"""Grafana 10.4 and later."""

DATASOURCE: Final = {"type": "prometheus", "uid": "tollgate-prometheus"}
"""As monitoring/grafana/provisioning/datasources names it."""

WIDTH: Final = 24
GREEN, ORANGE, RED = "green", "orange", "red"

VERSIONS: Final = (
    "max by (model_name, version) (active_model_version) == 1 "
    "unless max by (model_name, version) (active_model_version offset 1m) == 1"
)
"""A version in the minute after it came into service."""


@dataclass(frozen=True)
class Query:
    """A query of Prometheus with the legend of its series; `$__rate_interval` is Grafana's."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel. `kind` is Grafana's type; `limits` are where it turns orange and red, or red alone; `names` shows the
    names of its series in place of their values."""

    title: str
    queries: Sequence[Query]
    unit: str
    about: str
    kind: str = "timeseries"
    limits: tuple[float, ...] = ()
    width: int = 8
    height: int = 8
    most: float | None = None
    names: bool = False
    stacked: bool = False
    low_is_bad: bool = False

    @property
    def now(self) -> bool:
        """Whether it shows the latest values alone."""
        return self.kind in {"stat", "bargauge", "table"}


@dataclass(frozen=True)
class Row:
    """A heading and the panels below it, from left to right in as many lines as they take."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Dashboard:
    """A dashboard; `variables` maps a name to the query of its values, several of which may be chosen."""

    uid: str
    title: str
    about: str
    rows: Sequence[Row]
    variables: dict[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """What Grafana reads."""
        return {
            "uid": f"tollgate-{self.uid}",
            "title": f"Tollgate: {self.title}",
            "description": self.about,
            "tags": ["tollgate"],
            "schemaVersion": SCHEMA_VERSION,
            "editable": False,
            "graphTooltip": 1,  # one crosshair over all panels
            "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "links": [
                {"type": "dashboards", "title": "Tollgate", "tags": ["tollgate"], "asDropdown": False, "keepTime": True}
            ],
            "annotations": {"list": [_versions()]},
            "templating": {"list": [_variable(name, query) for name, query in self.variables.items()]},
            "panels": _placed(self.rows),
        }


def _versions() -> dict[str, Any]:
    return {
        "name": "Model versions",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": VERSIONS,
        "step": "60s",
        "titleFormat": "{{model_name}} version {{version}}",
        "useValueForTime": False,
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,  # whenever the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _placed(rows: Sequence[Row]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    top = 0
    for row in rows:
        place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        made.append(
            {"id": len(made) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": [], "gridPos": place}
        )
        top, left, tallest = top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > WIDTH:
                top, left, tallest = top + tallest, 0, 0
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            made.append({"id": len(made) + 1, "gridPos": place, **_panel(panel)})
            left, tallest = left + panel.width, max(tallest, panel.height)
        top += tallest
    return made


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "targets": [_target(panel, place, query) for place, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }


def _target(panel: Panel, place: int, query: Query) -> dict[str, Any]:
    form = {"heatmap": "heatmap", "table": "table"}.get(panel.kind, "time_series")
    made: dict[str, Any] = {"refId": chr(ord("A") + place), "datasource": DATASOURCE, "expr": query.expr}
    return made | {
        "legendFormat": query.legend or "__auto",
        "format": form,
        "instant": panel.now,
        "range": not panel.now,
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    made: dict[str, Any] = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": _steps(panel)}}
    if panel.most is not None:
        made["max"] = panel.most
    if panel.kind == "timeseries":
        made["custom"] = {
            "lineWidth": 2,
            "fillOpacity": 25 if panel.stacked else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.limits else "off"},
        }
        made["color"] = {"mode": "palette-classic"}
    else:
        made["color"] = {"mode": "thresholds"}
    return made


def _steps(panel: Panel) -> list[dict[str, Any]]:
    if not panel.limits:
        return [{"color": "blue" if panel.kind == "stat" else GREEN, "value": None}]
    colors = [GREEN, ORANGE, RED] if len(panel.limits) > 1 else [GREEN, RED]
    if panel.low_is_bad:
        colors.reverse()
    return [{"color": color, "value": value} for color, value in zip(colors, [None, *panel.limits], strict=True)]


def _options(panel: Panel) -> dict[str, Any]:
    reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if panel.kind == "stat":
        graph = "none" if panel.names else "area"
        return {"reduceOptions": reduced, "colorMode": "value", "graphMode": graph, "textMode": _text(panel)}
    if panel.kind == "bargauge":
        return {"reduceOptions": reduced, "orientation": "horizontal", "displayMode": "basic"}
    if panel.kind == "heatmap":
        return {"calculate": False, "yAxis": {"unit": panel.unit}, "color": {"scheme": "Oranges", "mode": "scheme"}}
    if panel.kind == "table":
        return {"showHeader": True, "cellHeight": "sm"}
    return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}


def _text(panel: Panel) -> str:
    return "name" if panel.names else "auto"
