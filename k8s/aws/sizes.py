"""What AWS is asked for at a rate of payments: the capacity model's plan, in the sizes that AWS sells.

Pure arithmetic over `k8s.capacity`; memory in GB, disk in GB, one entry of each table an instance type that there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from k8s.capacity import Terms, plan

ZONES: Final = 3
CACHE_LIMIT: Final = 0.6
"""Share of Redis's one core up to which one Redis is planned; beyond it there are cells (docs/capacity.md)."""
CACHE_RESERVED: Final = 0.25
"""Share of a node's memory that ElastiCache keeps for replication and snapshots."""
HEADROOM: Final = 1.3
"""Over what the model counts: the allocator's fragments, and the day on which more cards pay."""

CACHES: Final = (
    ("cache.r7g.large", 13.07),
    ("cache.r7g.xlarge", 26.32),
    ("cache.r7g.2xlarge", 52.82),
    ("cache.r7g.4xlarge", 105.81),
    ("cache.r7g.8xlarge", 209.55),
    ("cache.r7g.12xlarge", 317.77),
    ("cache.r7g.16xlarge", 419.09),
)
"""ElastiCache's nodes and their memory in GiB."""

POD_CORES: Final = 2
NODE_PODS: Final = (("c7i.xlarge", 1), ("c7i.2xlarge", 3), ("c7i.4xlarge", 7))
"""EC2 types and how many service pods of two cores each takes beside what every node runs: some 0.5 core of it."""

DATABASES: Final = ((1_000.0, "m7g.xlarge"), (3_000.0, "m7g.2xlarge"), (10_000.0, "m7g.4xlarge"))
"""Payments a second up to which a type is planned: the first is `overlays/prod`'s, the others grow with the rate.
What a Postgres takes was not measured."""

BROKERS: Final = ((3_000.0, "kafka.m7g.large"), (20_000.0, "kafka.m7g.xlarge"))
"""Likewise: some 2 MB/s come in at 1,000 payments a second, and 20 at 10,000."""


class TooMuch(ValueError):
    """A rate that one stack does not carry."""


@dataclass(frozen=True)
class Sizes:
    """What the stacks are made with; disks in GB."""

    peak: float
    service_node: str
    service_nodes: int
    service_nodes_most: int
    jobs_node: str
    jobs_nodes: int
    cache_node: str
    cache_nodes: int
    broker: str
    brokers: int
    broker_disk: int
    database: str
    database_disk: int
    database_disk_most: int


def sizes(peak: float, cards: float = 1e6, kept_days: float = 7, pods_most: int = 12) -> Sizes:
    """The sizes for payments a second at the peak, with decisions kept in Postgres for `kept_days`.

    `pods_most` is the autoscaler's limit (`overlays/prod-service/hpa.yaml`). Raises `TooMuch` where one Redis, or the
    largest node of a kind, would not do: such a rate is divided into cells, each with stacks of its own.
    """
    found = plan(Terms(peak, cards, zones=ZONES))
    if found.redis_core > CACHE_LIMIT:
        raise TooMuch(
            f"{peak:,.0f} payments a second take {found.redis_core:.0%} of a Redis's core; one is planned with at most "
            f"{CACHE_LIMIT:.0%}. Divide the cards into {found.cells} cells, and deploy the stacks once for each."
        )
    memory = found.redis_memory * HEADROOM / (1 - CACHE_RESERVED) * 1e9 / 2**30
    in_a_zone = ceil(found.pods / ZONES)
    node, takes = _first([(each, float(takes)) for each, takes in NODE_PODS], in_a_zone, "service pods in a zone")
    grown = found.postgres_a_day * kept_days
    return Sizes(
        peak=peak,
        service_node=node,
        service_nodes=ZONES * ceil(in_a_zone / takes),
        service_nodes_most=ZONES * ceil(max(pods_most, found.pods) / ZONES / takes),
        jobs_node="m7i.2xlarge",
        jobs_nodes=ZONES,
        cache_node=_first(CACHES, memory, "GiB of Redis")[0],
        cache_nodes=ZONES,
        broker=_rated(BROKERS, peak),
        brokers=ZONES,
        broker_disk=_rounded(found.kafka_per_broker * HEADROOM),
        database=_rated(DATABASES, peak),
        database_disk=_rounded(grown * HEADROOM),
        database_disk_most=_rounded(grown * HEADROOM * 3),
    )


def _first(table: Sequence[tuple[str, float]], least: float, what: str) -> tuple[str, float]:
    for name, size in table:
        if size >= least:
            return name, size
    raise TooMuch(
        f"{least:,.0f} {what} are more than {table[-1][0]} has ({table[-1][1]:g}); divide the cards into cells."
    )


def _rated(table: Sequence[tuple[float, str]], peak: float) -> str:
    for limit, name in table:
        if peak <= limit:
            return name
    return table[-1][1]


def _rounded(gigabytes: float) -> int:
    """Up to the next hundred."""
    return 100 * ceil(gigabytes / 100)
