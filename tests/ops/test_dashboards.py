"""The dashboards: what Grafana expects of their form, and every query of every panel answered by a running platform."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
import yaml

from feature_repo.settings import ROOT
from monitoring.dashboards.__main__ import FOLDER, texts
from tests.ops.queries import unknown
from tests.ops.stage import Stage
from tests.ops.test_rules import RECORDED

GRAFANA = ROOT / "monitoring" / "grafana"
BOARDS: dict[str, dict[str, Any]] = {file.stem: json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))}
KINDS = {"timeseries", "stat", "bargauge", "heatmap", "table"}
UNITS = {"s", "reqps", "cps", "ops", "percentunit", "short", "none", "bool_yes_no", "bool_on_off"}


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (panel for panel in board["panels"] if panel["type"] != "row")


def queries() -> Iterator[tuple[str, str, bool]]:
    """What each panel, annotation and variable asks: its name, the query as Grafana sends it, whether only for now."""
    for name, board in BOARDS.items():
        for panel in panels(board):
            for target in panel["targets"]:
                place = f"{name}: {panel['title']}, {target['refId']}"
                yield place, filled(target["expr"]), target["instant"]
        for one in board["annotations"]["list"]:
            yield f"{name}: annotation {one['name']}", one["expr"], False
        for one in board["templating"]["list"]:
            metric = one["definition"].removeprefix("label_values(").partition(",")[0]
            yield f"{name}: variable {one['name']}", metric, True


def filled(expr: str) -> str:
    """The query with Grafana's variables filled in, as for all values and a scrape each second."""
    made = expr.replace("$__rate_interval", "1m").replace("$feature", ".*")
    assert "$" not in made, made
    return made


def test_the_json_is_what_the_code_makes():
    assert {file.name: file.read_text() for file in FOLDER.iterdir()} == texts(), "run python -m monitoring.dashboards"
    assert set(BOARDS) == {"overview", "serving", "stream", "models", "drift"}


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_has_the_form_that_grafana_expects(name: str):
    board = BOARDS[name]
    assert board["schemaVersion"] == 39
    assert board["uid"] == f"tollgate-{name}"
    assert len(board["uid"]) <= 40
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels(board):
        assert panel["type"] in KINDS
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        values = [step["value"] for step in steps]
        assert values[0] is None
        assert values[1:] == sorted(values[1:])
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"tollgate-prometheus"}


@pytest.mark.parametrize("name", BOARDS)
def test_panels_lie_within_the_page_and_none_upon_another(name: str):
    places = [panel["gridPos"] for panel in BOARDS[name]["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 and place["h"] > 0 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_the_provisioned_datasource_is_the_one_the_panels_ask():
    [source] = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert (source["uid"], source["type"]) == ("tollgate-prometheus", "prometheus")
    [provider] = yaml.safe_load((GRAFANA / "provisioning/dashboards/tollgate.yml").read_text())["providers"]
    assert provider["type"] == "file"


def test_panels_ask_only_for_what_is_exported_or_recorded():
    wrong = {place: found for place, expr, _ in queries() if (found := unknown(expr, RECORDED | {"ALERTS"}))}
    assert wrong == {}


@pytest.mark.parametrize(
    ("board", "title", "values"),
    [
        ("overview", "Latency", [0.1, 0.2]),
        ("overview", "Live quality", [0.75, 0.80]),
        ("drift", "Score, decisions, labels", [0.15, 0.20]),
        ("serving", "Error budget", [0.0001]),
    ],
)
def test_the_thresholds_of_the_alerts_are_drawn(board: str, title: str, values: list[float]):
    [panel] = [one for one in panels(BOARDS[board]) if one["title"] == title]
    defaults = panel["fieldConfig"]["defaults"]
    assert [step["value"] for step in defaults["thresholds"]["steps"][1:]] == values
    assert defaults["custom"]["thresholdsStyle"]["mode"] == "line"
    low_is_bad = board == "overview" and title == "Live quality"
    assert defaults["thresholds"]["steps"][-1]["color"] == ("green" if low_is_bad else "red")


def test_no_panel_of_a_running_platform_is_empty(watched: Stage):
    empty = []
    for place, expr, now in queries():
        found = watched.values(expr) if now else watched.over_time(expr)
        if not [value for value in found if not math.isnan(value)]:
            empty.append(f"{place}: {expr}")
    assert empty == []
