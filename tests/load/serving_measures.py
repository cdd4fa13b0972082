"""The measurements on a service that runs: its maximum, the rate it holds, half of that, batches, the curve.

The maximum comes from a closed loop, where everybody waits for an answer; what counts is then offered in an open one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx

from tests.load.serving_load import Load
from tests.load.serving_offer import offer
from tests.load.serving_sizes import ServingSizes

HELD_MS, HELD_SHARE = 100.0, 0.99
"""A rate is held if P99 stays below the first and this share of it is answered, without an error."""

BATCH = 100
BATCH_CONNECTIONS = 8
EXPECTED, EXPECTED_BATCHES = 30_000.0, 1_000.0
"""Requests a second, at most, that the first look at a service makes ready."""

ROOM = 1.6
"""A closed loop gets so many times the requests that the first look needed: more than it can send."""

Figures = dict[str, Any]
Note = Callable[[str], None]


class Degraded:
    """How many answers since the last question were given on less than the full input, by the service's own count."""

    def __init__(self, load: Load) -> None:
        self._url = f"http://{load.host}:{load.port}/metrics"
        self._before = self._count()

    def of(self, figures: Figures) -> Figures:
        """The figures, with that number."""
        before, self._before = self._before, self._count()
        return figures | {"degraded": int(self._before - before)}

    def _count(self) -> float:
        lines = httpx.get(self._url, timeout=20).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("fraud_degraded_answers_total{"))


def maximum(load: Load, sizes: ServingSizes, seconds: float, expected: float = EXPECTED) -> Figures:
    """As fast as answers come; a short run first, which warms the service and says how much is to be made ready."""
    warm = offer(replace(load, seconds=sizes.warm_seconds, most=expected))
    rate = max(warm.figures()["offered_rps"] * ROOM, 20 * load.connections / seconds)
    return offer(replace(load, seconds=seconds, most=rate)).figures()


def held(load: Load, most: float, sizes: ServingSizes, note: Note) -> Figures:
    """Figures at the highest of `shares` of a rate that is held for a while and then for as long as is asked.

    Of rates none of which is held, the last.
    """
    found: Figures = {}
    for share in sizes.shares:
        for seconds in (sizes.probe_seconds, sizes.single_seconds):
            found = offer(load.at(most * share, seconds)).figures()
            note(_told(f"{share:.0%} of the maximum for {seconds:g} s", found))
            if not is_held(found):
                break
        else:
            return found | {"held": True}
    return found | {"held": False}


def is_held(found: Figures) -> bool:
    """Whether a rate was held."""
    answered = found["rps"] >= HELD_SHARE * found["offered_rps"]
    return answered and found["p99_ms"] < HELD_MS and not found["errors"]


def batch(load: Load, sizes: ServingSizes) -> Figures:
    """Batches, as fast as answers come."""
    of_many = replace(load, form="batch", size=BATCH, connections=min(BATCH_CONNECTIONS, load.connections))
    found = maximum(of_many, sizes, sizes.batch_seconds, EXPECTED_BATCHES)
    return {"tx_per_s": round(found["rps"] * BATCH, 1), "size": BATCH} | found


def curve(load: Load, rate: float, sizes: ServingSizes) -> Iterator[Figures]:
    """Figures at shares of the rate that is held."""
    for share in sizes.curve:
        yield offer(load.at(rate * share, sizes.curve_seconds)).figures()


def _told(what: str, found: Figures) -> str:
    return (
        f"{what}: {found['rps']:,.0f} of {found['offered_rps']:,.0f}/s, "
        f"P50 {found['p50_ms']:.1f} P99 {found['p99_ms']:.1f} P99.9 {found['p999_ms']:.1f} ms, {found['errors']} errors"
    )
