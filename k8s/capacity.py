"""How much of everything a rate of payments takes, from what was measured on two cores; and what failures make of it.

    python -m k8s.capacity                       the tables of docs/capacity.md
    python -m k8s.capacity --peak 5000 --cards 20000000

Pure arithmetic: `MEASURED` says where each figure comes from, `Terms` what is assumed and yours to change.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

DAY: Final = 86_400
MONTH: Final = 30 * DAY


@dataclass(frozen=True)
class Measured:
    """Figures of `docs/serving.md`, `docs/benchmarks.md` and `python -m tests.load.decision_sizes`."""

    payments_per_core: float = 9_280 / 2
    """A second, held for a minute at P99 72 ms on two cores that Redis and the load shared: docs/serving.md."""
    latency: float = 0.0088
    """Seconds, P50 at half of that rate; docs/serving.md."""
    redis_per_payment: float = 31e-6
    """Seconds of Redis's one core: a quarter of 124 µs; docs/serving.md."""
    events_per_process: float = 18_977
    """A second, from Kafka to readable features, Kafka and Redis on the same two cores: docs/benchmarks.md."""
    card_bytes: float = 215
    event_bytes: float = 32.06
    """A card's state is 2,171 bytes with 61 events and 664 with 14: docs/benchmarks.md, the line through both."""
    claim: float = 187
    stream_entry: float = 1_586
    kafka_claim: float = 1_700
    kafka_message: float = 1_515
    payment_message: float = 309
    decision_row: float = 2_177
    history_row: float = 238
    """Bytes: tests/load/decision_sizes.py."""
    ready_after: float = 6.5
    """Seconds from a service's start to its first answer; docs/serving.md."""


MEASURED: Final = Measured()


@dataclass(frozen=True)
class Terms:
    """What is asked and what is assumed. `peak` is payments a second; money is per month in one currency."""

    peak: float
    cards: float = 1e6
    events_per_card: float = 61
    average: float = 0.4
    """Of the peak, over days."""
    zones: int = 3
    utilisation: float = 0.5
    """Of a measured limit that is planned with."""
    cores_per_pod: int = 2
    log: str = "redis"
    max_age: float = 3_600
    """FRAUD_MAX_AGE, seconds; a claim outlives it by a day and five minutes."""
    kafka_days: float = 7
    replicas: int = 3
    core_price: float = 30.0
    memory_price: float = 3.5
    disk_price: float = 0.08


@dataclass(frozen=True)
class Plan:
    """What a rate takes. Memory in GB of one Redis, disk in GB."""

    pods: int
    pods_needed: int
    in_flight_per_pod: float
    stream_processes: int
    partitions: int
    redis_core: float
    redis_memory: float
    redis_of_features: float
    postgres_a_day: float
    kafka_per_broker: float
    cells: int
    cost: float


def pods_needed(terms: Terms, measured: Measured = MEASURED) -> int:
    """Service pods that carry the peak at the planned utilisation, when all of them are there."""
    return ceil(terms.peak / (measured.payments_per_core * terms.cores_per_pod * terms.utilisation))


def pods(terms: Terms, measured: Measured = MEASURED) -> int:
    """Service pods of which enough are left with a zone gone and another one being replaced by a deploy."""
    needed, count = pods_needed(terms, measured), terms.zones
    while count - ceil(count / terms.zones) - 1 < needed:
        count += 1
    return count


def redis_memory(terms: Terms, measured: Measured = MEASURED) -> tuple[float, float]:
    """GB of features, and of claims and log. A stream entry stays until its payment is too old to be sent again."""
    features = terms.cards * (measured.card_bytes + terms.events_per_card * measured.event_bytes)
    rate, kept = terms.peak * terms.average, terms.max_age + DAY + 300
    if terms.log == "kafka":
        return features / 1e9, rate * kept * measured.kafka_claim / 1e9
    return features / 1e9, rate * (kept * measured.claim + (terms.max_age + 360) * measured.stream_entry) / 1e9


def plan(terms: Terms, measured: Measured = MEASURED) -> Plan:
    """Everything that a rate takes."""
    a_day = terms.peak * terms.average * DAY
    processes = max(1, ceil(terms.peak / (measured.events_per_process * terms.utilisation)))
    features, decided = redis_memory(terms, measured)
    core = terms.peak * measured.redis_per_payment
    in_topics = measured.payment_message + measured.kafka_message * (2 if terms.log == "kafka" else 1)
    disk = a_day * terms.kafka_days * in_topics * 3 / 1e9 / terms.replicas
    postgres = a_day * (measured.decision_row + measured.history_row) / 1e9
    count, cells = pods(terms, measured), max(1, ceil(core / 0.6))
    cores = count * terms.cores_per_pod + processes * 2 + terms.replicas * (2 + 2 + 4)
    memory = terms.replicas * (features + decided) * 1.3 + terms.replicas * (8 + 16) + count * 1.5
    cost = cores * terms.core_price + memory * terms.memory_price + (disk * 3 + postgres * 30 * 3) * terms.disk_price
    return Plan(
        pods=count,
        pods_needed=pods_needed(terms, measured),
        in_flight_per_pod=measured.payments_per_core * terms.cores_per_pod * terms.utilisation * measured.latency,
        stream_processes=processes,
        partitions=max(8, 2 * processes),
        redis_core=core,
        redis_memory=features + decided,
        redis_of_features=features,
        postgres_a_day=postgres,
        kafka_per_broker=disk,
        cells=cells,
        cost=cost,
    )


@dataclass(frozen=True)
class Event:
    """What happens to the pods: `down` of them at once, for `seconds`, noticed by the balancer after `unnoticed`.

    A rolling deploy is `rolls` times one after the other. `a_month` is how often it is reckoned with.
    """

    name: str
    down: int
    seconds: int
    unnoticed: int
    a_month: float
    rolls: int = 1


@dataclass(frozen=True)
class Outcome:
    """Of the payments during an event: all, and those without an answer."""

    payments: float
    failed: float


def simulate(event: Event, count: int, terms: Terms, tries: int = 2, measured: Measured = MEASURED) -> Outcome:
    """One event at the peak, second by second.

    A pod takes at most its measured limit; what comes beyond is refused. Until a dead pod is noticed it gets its share,
    and each of those payments is tried elsewhere up to `tries` times in all, each time on a pod by chance.
    """
    limit, payments, failed = measured.payments_per_core * terms.cores_per_pod, 0.0, 0.0
    for _ in range(event.rolls):
        for second in range(event.seconds):
            dead = min(event.down, count)
            lost = (dead / count) ** tries if second < event.unnoticed else 0.0
            reached = terms.peak * (1 - lost)
            refused = max(0.0, reached - (count - dead) * limit)
            payments += terms.peak
            failed += terms.peak * lost + refused
    return Outcome(payments, failed)


def events(count: int, terms: Terms, measured: Measured = MEASURED) -> list[Event]:
    """What is reckoned with. A pod that ends by plan tells the balancer first (preStop), one that dies does not."""
    a_zone, start = ceil(count / terms.zones), ceil(measured.ready_after) + 20
    return [
        Event("a pod dies", 1, start, 6, 4.0),
        Event("a node is lost", 2, 300, 40, 0.5),
        Event("a zone is lost", a_zone, 1_800, 40, 1 / 6),
        Event("deploy at the peak", 1, start, 0, 20.0, rolls=count),
        Event("a zone is lost during a deploy", a_zone + 1, 1_800, 40, 1 / 60),
    ]


def availability(count: int, terms: Terms, tries: int = 2, measured: Measured = MEASURED) -> float:
    """Share of a month's payments that are answered, when every event comes as often as reckoned and at the peak."""
    failed = sum(
        one.a_month * simulate(one, count, terms, tries, measured).failed for one in events(count, terms, measured)
    )
    return 1 - failed / (terms.peak * terms.average * MONTH)


def tables(peaks: Sequence[float], cards: float) -> str:
    """The tables of docs/capacity.md, as Markdown."""
    found = [(Terms(peak, cards), plan(Terms(peak, cards))) for peak in peaks]
    rows = {
        "service pods, two cores each": [f"{one.pods} ({one.pods_needed} at work)" for _, one in found],
        "velocity processes": [f"{one.stream_processes}" for _, one in found],
        "partitions, at least": [f"{one.partitions}" for _, one in found],
        "Redis: share of its one core": [f"{one.redis_core:.0%}" for _, one in found],
        "Redis: memory, GB": [f"{one.redis_memory:,.0f} ({one.redis_of_features:.1f} features)" for _, one in found],
        "… with the log in Kafka, GB": [
            f"{sum(redis_memory(Terms(t.peak, cards, log='kafka'))):,.0f}" for t, _ in found
        ],
        "… with payments of 7 days taken, GB": [
            f"{sum(redis_memory(Terms(t.peak, cards, max_age=7 * DAY))):,.0f}" for t, _ in found
        ],
        "cells (a Redis each)": [f"{one.cells}" for _, one in found],
        "Postgres grows a day, GB": [f"{one.postgres_a_day:,.0f}" for _, one in found],
        "disk of a Kafka broker, GB": [f"{one.kafka_per_broker:,.0f}" for _, one in found],
        "cost a month": [f"{one.cost:,.0f}" for _, one in found],
    }
    head = [
        f"| payments/s at the peak | {' | '.join(f'{peak:,.0f}' for peak in peaks)} |",
        "|---|" + "--:|" * len(peaks),
    ]
    sized = [*head, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())]
    return "\n".join([*sized, "", *_failures(Terms(10_000, cards))])


def _failures(terms: Terms) -> list[str]:
    needed, planned = pods_needed(terms), pods(terms)
    bare = ceil(terms.peak / (MEASURED.payments_per_core * terms.cores_per_pod))
    counts = sorted({bare, needed, needed + 1, planned})
    lines = [f"| {terms.peak:,.0f}/s: payments without an answer | {' | '.join(f'{count} pods' for count in counts)} |"]
    lines.append("|---|" + "--:|" * len(counts))
    for place, event in enumerate(events(planned, terms)):
        failed = [simulate(events(count, terms)[place], count, terms) for count in counts]
        lines.append(f"| {event.name} | {' | '.join(f'{one.failed:,.0f}' for one in failed)} |")
    shares = {tries: [availability(count, terms, tries) for count in counts] for tries in (2, 1)}
    lines.append(f"| a month, one retry | {' | '.join(f'{share:.4%}' for share in shares[2])} |")
    lines.append(f"| a month, no retry | {' | '.join(f'{share:.4%}' for share in shares[1])} |")
    return lines


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m k8s.capacity", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peak", type=float, nargs="+", default=[1_000, 10_000, 100_000], help="payments a second")
    parser.add_argument("--cards", type=float, default=1e6, help="cards that pay; default: a million")
    given = parser.parse_args()
    print(tables(given.peak, given.cards))


if __name__ == "__main__":
    main()
