"""A load on a service and what came of it, seen from the client's side alone.

Invariant: a percentile is over all requests that were due, answered or not; one without an answer counts with the time
for which it was waited for.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.load.driver import CONNECTIONS
from tests.load.serving_population import Population
from tests.load.serving_schedule import Floats, Shape

OK = 200
PERCENTILES = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p999_ms": 99.9}


@dataclass(frozen=True)
class Load:
    """What to send where. `shape` is the offered rate over time; without one, as fast as answers come for `seconds`.

    `most` bounds the requests a second that are made ready for the latter.
    """

    host: str
    port: int
    form: str = "single"
    shape: Shape = ()
    seconds: float = 10.0
    most: float = 20_000.0
    size: int = 1
    connections: int = CONNECTIONS
    processes: int = 1
    seed: int = 1
    api_key: str = ""
    keep_bodies: bool = False
    population: Population = field(default_factory=Population)

    def at(self, rate: float, seconds: float) -> Load:
        """The same at a steady rate of random arrivals."""
        return replace(self, shape=((rate, seconds),), seconds=seconds)


@dataclass(frozen=True)
class Offered:
    """What became of a load, in the order of the instants at which requests were due (s)."""

    load: Load
    due: Floats
    done: Floats
    status: npt.NDArray[np.int64]
    began: float
    cpu_seconds: float
    longest: float
    bodies: list[bytes] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long requests were sent."""
        return sum(seconds for _, seconds in self.load.shape) if self.load.shape else float(self.due[-1])

    @property
    def waited(self) -> Floats:
        """Seconds for each request, from due to answered or to the end of the wait."""
        return np.where(np.isnan(self.done), self.longest, self.done) - self.due

    def figures(self) -> dict[str, Any]:
        """The figures of a report; `rps` counts good answers within the seconds of sending."""
        good = self.status == OK
        kinds, counts = np.unique(self.status, return_counts=True)
        waited = self.waited * 1e3
        return {
            "offered_rps": round(len(self.due) / self.seconds, 1),
            "rps": round(float((good & (self.done <= self.seconds)).sum()) / self.seconds, 1),
            **{name: round(float(np.percentile(waited, share)), 3) for name, share in PERCENTILES.items()},
            "max_ms": round(float(waited.max()), 3),
            "seconds": round(self.seconds, 2),
            "requests": len(self.due),
            "errors": int((~good).sum()),
            "statuses": {str(kind or "none"): int(n) for kind, n in zip(kinds.tolist(), counts.tolist(), strict=True)},
            "driver_cpu_pct": round(100 * self.cpu_seconds / self.longest, 1),
        }

    def timeline(self, step: float = 1.0) -> list[dict[str, Any]]:
        """Figures for every `step` seconds of requests due."""
        found, waited, place = [], self.waited * 1e3, (self.due // step).astype(int)
        for number in range(int(place[-1]) + 1 if len(place) else 0):
            here = place == number
            if here.any():
                errors = int((self.status[here] != OK).sum())
                p50, p99 = (round(float(np.percentile(waited[here], share)), 3) for share in (50, 99))
                at = {"second": number * step, "requests": int(here.sum()), "errors": errors}
                found.append({**at, "p50_ms": p50, "p99_ms": p99})
        return found
