"""The capacity model: its arithmetic, what failures make of it, and that manifests and docs say what it says."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from math import ceil

import pytest
import yaml
from pydantic import TypeAdapter

from feature_repo.settings import ROOT, Settings
from k8s.capacity import (
    DAY,
    MEASURED,
    Event,
    Terms,
    availability,
    events,
    plan,
    pods,
    pods_needed,
    redis_memory,
    simulate,
    tables,
)
from k8s.generate import literals

PEAKS = (500.0, 1_000.0, 4_640.0, 4_641.0, 10_000.0, 33_333.0, 100_000.0)


@pytest.mark.parametrize("peak", PEAKS)
@pytest.mark.parametrize("zones", [2, 3, 4])
def test_enough_pods_are_left_without_a_zone_and_with_a_deploy_under_way_and_not_one_more(peak: float, zones: int):
    terms = Terms(peak, zones=zones)
    count, needed = pods(terms), pods_needed(terms)

    def left(of: int) -> int:
        return of - ceil(of / zones) - 1

    assert left(count) >= needed
    assert count == zones or left(count - 1) < needed
    assert needed * MEASURED.payments_per_core * 2 * terms.utilisation >= peak


def test_a_card_s_state_is_what_was_measured_at_both_sizes():
    assert redis_memory(Terms(1, events_per_card=61))[0] == pytest.approx(2.171, rel=0.002)
    assert redis_memory(Terms(1, events_per_card=14))[0] == pytest.approx(0.664, rel=0.002)


def test_claims_are_kept_for_a_day_more_than_a_payment_may_be_sent_again():
    _, short = redis_memory(Terms(1_000))
    _, long = redis_memory(Terms(1_000, max_age=7 * DAY))
    assert short == pytest.approx(400 * (90_300 * 187 + 3_960 * 1_586) / 1e9)
    assert long > 20 * short
    assert redis_memory(Terms(1_000, log="kafka"))[1] == pytest.approx(400 * 90_300 * 1_700 / 1e9)


@pytest.mark.parametrize("peak", PEAKS)
def test_a_plan_grows_with_its_rate(peak: float):
    less, more = plan(Terms(peak)), plan(Terms(2 * peak))
    for name in ("pods", "stream_processes", "partitions", "cells"):
        assert getattr(more, name) >= getattr(less, name)
    for name in ("redis_core", "postgres_a_day", "kafka_per_broker"):
        assert getattr(more, name) == pytest.approx(2 * getattr(less, name))
    assert more.cost > less.cost


def test_nothing_fails_where_nothing_happens():
    assert simulate(Event("quiet", 0, 60, 60, 1), 3, Terms(10_000)).failed == 0


def test_a_dead_pod_costs_its_share_twice_over_until_it_is_noticed():
    outcome = simulate(Event("a pod dies", 1, 60, 6, 1), 6, Terms(10_000))
    assert outcome.failed == pytest.approx(6 * 10_000 / 36)
    assert simulate(Event("a pod dies", 1, 60, 6, 1), 6, Terms(10_000), tries=1).failed == pytest.approx(6 * 10_000 / 6)


def test_what_the_pods_that_are_left_cannot_take_is_refused():
    outcome = simulate(Event("two are away", 2, 10, 0, 1), 3, Terms(10_000))
    assert outcome.failed == pytest.approx(10 * (10_000 - 9_280))
    assert outcome.payments == 100_000


@pytest.mark.parametrize("peak", [1_000.0, 10_000.0, 100_000.0])
def test_the_planned_pods_refuse_nothing_in_any_single_event_and_hold_four_nines(peak: float):
    terms = Terms(peak)
    count = pods(terms)
    for event in events(count, terms):
        noticed_at_once = replace(event, unnoticed=0)
        assert simulate(noticed_at_once, count, terms).failed == 0, event.name
    assert availability(count, terms) > 0.9999


def test_pods_for_the_rate_alone_do_not_hold_four_nines_at_ten_thousand():
    assert availability(2, Terms(10_000)) < 0.9999
    assert availability(3, Terms(10_000), tries=1) < availability(pods(Terms(10_000)), Terms(10_000), tries=1)


def test_the_figures_are_those_of_the_docs():
    serving = (ROOT / "docs" / "serving.md").read_text()
    benchmarks = (ROOT / "docs" / "benchmarks.md").read_text()
    assert f"| {MEASURED.payments_per_core * 2:,.0f} |" in re.search(r"single payments/s, 60 s.*", serving)[0]
    assert f"| {MEASURED.latency * 1_000} |" in re.search(r"at 4,650/s, P50, ms.*", serving)[0]
    assert f"| {MEASURED.ready_after} |" in re.search(r"ready after, s.*", serving)[0]
    assert f"| {MEASURED.events_per_process:,.0f} |" in re.search(r"events/s from Kafka to Redis.*", benchmarks)[0]


def test_the_page_shows_the_tables_as_they_are():
    assert tables((1_000, 10_000, 100_000), 1e6) in (ROOT / "docs" / "capacity.md").read_text()


def test_the_manifests_are_sized_by_it():
    small, large = plan(Terms(1_000)), plan(Terms(10_000))
    hpa = yaml.safe_load((ROOT / "k8s" / "overlays" / "prod-service" / "hpa.yaml").read_text())["spec"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (small.pods, 2 * large.pods)
    [in_flight] = [one["pods"]["target"]["averageValue"] for one in hpa["metrics"] if one["type"] == "Pods"]
    assert int(in_flight) == round(large.in_flight_per_pod)
    conf = (ROOT / "k8s" / "overlays" / "prod" / "redis" / "redis.conf").read_text()
    assert int(re.search(r"^maxmemory (\d+)gb", conf, re.MULTILINE)[1]) > 1.5 * small.redis_memory
    given = literals()
    assert int(given["FRAUD_KAFKA_PARTITIONS"]) >= plan(Terms(100_000)).partitions
    assert TypeAdapter(timedelta).validate_python(given["FRAUD_MAX_AGE"]).total_seconds() == Terms(1_000).max_age
    assert given.get("FRAUD_DECISION_LOG", Settings.model_fields["decision_log"].default) == Terms(1_000).log
