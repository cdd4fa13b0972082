"""What a service meets besides a steady rate: a burst, hours of it, its Redis killed, its model swapped.

Each gives the figures of the whole, a line for each second, and what was done to the service when.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.load.serving_load import Load
from tests.load.serving_model import point
from tests.load.serving_offer import offer
from tests.load.serving_rig import Rig
from tests.load.serving_schedule import BURST, Shape
from training.registry import CHAMPION

SWAPS = 20
GONE_SECONDS = 5.0
"""For so long there is no Redis."""

LATER = 1 / 3
"""Of the scenario: when Redis is killed."""


@dataclass
class Diary:
    """What was done to the service, in seconds since the load began."""

    began: float = field(default_factory=time.perf_counter)
    entries: list[dict[str, Any]] = field(default_factory=list)

    def wait_until(self, second: float) -> None:
        """Return when the load has run for so long."""
        time.sleep(max(second - (time.perf_counter() - self.began), 0.0))

    def note(self, what: str) -> None:
        """Something has just been done."""
        self.entries.append({"second": round(time.perf_counter() - self.began, 2), "what": what})


Deed = Callable[[Rig, Diary, float], None]


def nothing(rig: Rig, diary: Diary, seconds: float) -> None:
    """Leave the service alone."""


def kill_redis(rig: Rig, diary: Diary, seconds: float) -> None:
    """Kill Redis without notice, and start it again on what it had written."""
    diary.wait_until(seconds * LATER)
    for process in rig.platform.running["redis"].processes()[1:]:
        process.send_signal(signal.SIGKILL)
    diary.note("Redis killed")
    rig.platform.stop("redis")
    diary.wait_until(seconds * LATER + min(GONE_SECONDS, seconds / 4))
    rig.platform.start("redis")
    diary.note("Redis answers again")


def swap(rig: Rig, diary: Diary, seconds: float) -> None:
    """Give the alias `champion` to another version, again and again; the last one is the first again."""
    for number in range(SWAPS):
        diary.wait_until(seconds * (number + 1) / (SWAPS + 1))
        version = rig.versions[(number + 1) % 2]
        point(rig.settings, CHAMPION, version)
        diary.note(f"champion is version {version}")


DEEDS: dict[str, Deed] = {
    "steady": nothing,
    "burst": nothing,
    "soak": nothing,
    "redis-killed": kill_redis,
    "swap": swap,
}


def run(name: str, rig: Rig, load: Load, rate: float, seconds: float, deed: Deed | None = None) -> dict[str, Any]:
    """Run a scenario at a rate (a burst has its own: from a tenth of it); `deed` replaces what is done in it.

    For others to use with a hook of theirs: it is called when the load begins, in a process that offers none.
    """
    shape: Shape = ((rate, seconds),)
    if name == "burst":
        share = seconds / sum(length for _, length in BURST)
        shape = [(rate * each / max(r for r, _ in BURST), length * share) for each, length in BURST]
    diary = Diary()

    def during() -> None:
        diary.began = time.perf_counter()
        (deed or DEEDS[name])(rig, diary, seconds)

    offered = offer(replace(load, shape=shape, seconds=seconds), during)
    step = max(1.0, seconds / 120)
    return {"scenario": name, **offered.figures(), "done": diary.entries, "timeline": offered.timeline(step)}
