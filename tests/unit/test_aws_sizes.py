"""AWS's sizes and costs: enough for what the capacity model says, no size more, and what the docs say of them."""

from __future__ import annotations

import re

import pytest
import yaml

from feature_repo.settings import ROOT
from k8s.aws.costs import PRICES, parts, table
from k8s.aws.sizes import CACHE_RESERVED, CACHES, HEADROOM, NODE_PODS, ZONES, TooMuch, sizes
from k8s.capacity import Terms, plan, pods_needed

PEAKS = (100.0, 1_000.0, 5_000.0, 10_000.0, 19_000.0)


@pytest.mark.parametrize("peak", PEAKS)
def test_the_cache_holds_what_the_model_says_and_the_next_smaller_would_not(peak: float):
    names = [name for name, _ in CACHES]
    place = names.index(sizes(peak).cache_node)
    needed = plan(Terms(peak)).redis_memory * HEADROOM * 1e9 / 2**30
    assert CACHES[place][1] * (1 - CACHE_RESERVED) >= needed
    assert place == 0 or CACHES[place - 1][1] * (1 - CACHE_RESERVED) < needed


@pytest.mark.parametrize("peak", PEAKS)
def test_with_a_zone_gone_the_nodes_left_take_the_pods_that_are_needed(peak: float):
    found = sizes(peak)
    takes = dict(NODE_PODS)[found.service_node]
    left = found.service_nodes * (ZONES - 1) // ZONES * takes
    assert left >= pods_needed(Terms(peak))
    assert found.service_nodes * takes >= plan(Terms(peak)).pods
    assert found.service_nodes_most * takes >= 12


@pytest.mark.parametrize("peak", PEAKS)
def test_disks_hold_a_week(peak: float):
    found, model = sizes(peak), plan(Terms(peak))
    assert found.broker_disk >= model.kafka_per_broker
    assert found.database_disk >= 7 * model.postgres_a_day
    assert found.database_disk_most > found.database_disk


def test_a_rate_for_which_one_redis_is_too_little_is_refused_with_the_number_of_cells():
    with pytest.raises(TooMuch, match="6 cells"):
        sizes(100_000)
    with pytest.raises(TooMuch, match=r"GiB of Redis .* divide the cards"):
        sizes(10_000, cards=1e9)


def test_the_autoscaler_s_limit_is_the_overlay_s():
    hpa = yaml.safe_load((ROOT / "k8s/overlays/prod-service/hpa.yaml").read_text())
    most = hpa["spec"]["maxReplicas"]
    assert sizes(1_000, pods_most=most) == sizes(1_000)


def test_every_part_has_a_price_and_costs_more_where_more_is_paid():
    small, large = parts(sizes(1_000)), parts(sizes(10_000))
    assert all(cost > 0 for cost in (*small.values(), *large.values()))
    assert sum(large.values()) > 2 * sum(small.values())
    assert all(f"{name}, hour" in PRICES for name, _ in CACHES)
    assert all(f"{name}, hour" in PRICES for name, _ in NODE_PODS)


def test_the_docs_table_is_the_model_s():
    assert table([1_000, 10_000]) in (ROOT / "docs" / "aws.md").read_text()


def test_the_docs_name_every_price():
    told = (ROOT / "docs" / "aws.md").read_text()
    asked = [name for name in PRICES if not re.search(rf"\| {re.escape(name)} \| {PRICES[name]:g} \|", told)]
    assert asked == []
