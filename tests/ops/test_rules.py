"""The rules of Prometheus: valid, of metrics that exist, each alert seen to fire and be silent, and in the runbook."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from feature_repo.settings import ROOT
from tests.ops.queries import unknown
from tests.ops.tools import CONFIG, RULES, run

CASES = sorted((ROOT / "tests" / "ops" / "rules").glob("*.test.yml"))
RUNBOOK = ROOT / "docs" / "runbook.md"
GROUPS = [group for file in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(file.read_text())["groups"]]
EVERY = [rule for group in GROUPS for rule in group["rules"]]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in EVERY if "alert" in rule}
RECORDED = {rule["record"] for rule in EVERY if "record" in rule}


def seconds(text: str) -> int:
    units = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([dhms])", text))


def test_prometheus_accepts_the_rules_and_the_configuration():
    assert "SUCCESS" in run("promtool", "check", "rules", *sorted(RULES.glob("*.yml")))
    said = run("promtool", "check", "config", CONFIG)
    assert "SUCCESS" in said
    assert f"{len(list(RULES.glob('*.yml')))} rule files found" in said


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.name)
def test_alerts_fire_when_they_should_and_only_then(file: Path):
    assert "SUCCESS" in run("promtool", "test", "rules", file)


def test_each_alert_is_seen_silent_before_it_fires_firing_and_silent_in_time_and_value():
    checks = defaultdict(list)
    for file in CASES:
        for case in yaml.safe_load(file.read_text())["tests"]:
            for check in case["alert_rule_test"]:
                checks[check["alertname"]].append(
                    (case["name"], seconds(check["eval_time"]), bool(check["exp_alerts"]))
                )
    assert set(checks) == set(ALERTS)
    for name, seen in checks.items():
        fired = [(case, at) for case, at, firing in seen if firing]
        assert fired, f"{name} never fires in a test"
        before = [1 for case, at, firing in seen for other, then in fired if not firing and case == other and at < then]
        after = [1 for case, at, firing in seen for other, then in fired if not firing and case == other and at > then]
        assert before, f"{name} is not seen silent before it fires"
        assert after, f"{name} is not seen to end"


def test_rules_name_only_what_is_exported_or_recorded():
    assert {name for rule in EVERY for name in unknown(rule["expr"], RECORDED)} == set()


def test_a_metric_or_label_that_nothing_exports_would_be_found():
    query = 'sum by (le) (rate(no_such_metric{le="1"}[5m])) > 0 or predictions_total{card="7"} unless up{job="x"} == 1'
    assert unknown(query, set()) == {"no_such_metric", "predictions_total{card}"}


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_says_how_bad_it_is_what_it_saw_and_where_to_read_on(name: str):
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert re.fullmatch(r"[a-z-]+", rule["labels"]["about"])
    summary = rule["annotations"]["summary"]
    only_yes_or_no = rule["expr"].strip().endswith(("== 0", "== 1")) or "absent(" in rule["expr"]
    assert "$value" in summary or only_yes_or_no or "$labels.reason" in summary
    link = '{{ or $externalLabels.runbook "docs/runbook.md" }}#' + name.lower()
    assert rule["annotations"]["runbook_url"] == link


def test_each_alert_has_its_section_in_the_runbook_and_each_section_its_alert():
    sections = re.split(r"^### ", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]
    titles = [section.splitlines()[0] for section in sections]
    assert sorted(titles) == sorted(ALERTS)
    for section in sections:
        for part in ("**Means.**", "**Look at.**", "**Do.**"):
            assert part in section, f"{section.splitlines()[0]}: no {part}"


def test_warning_and_critical_of_one_thing_are_tied_together():
    by_subject = defaultdict(set)
    for rule in ALERTS.values():
        by_subject[rule["labels"]["about"]].add(rule["labels"]["severity"])
    both = {"errors", "error-budget", "latency", "latency-budget", "degraded", "freshness", "drift", "quality"}
    assert both <= {subject for subject, levels in by_subject.items() if levels == {"warning", "critical"}}
