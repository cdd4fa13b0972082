"""The jobs that the monitor runs, in one table: what each is called, how it is run, how often, and what it needs."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from datetime import timedelta

from feature_repo.settings import Settings


@dataclass(frozen=True)
class Job:
    """A command that ends by itself: 0 where it did its work, also where there was nothing to look at yet.

    `period` is the name of the setting that says how often; `needs` are modules without which it cannot be run at all,
    as in an image that has no training code.
    """

    name: str
    command: tuple[str, ...]
    period: str
    needs: tuple[str, ...]

    def every(self, current: Settings) -> timedelta | None:
        """Time from one run's beginning to the next one's; None where the job is switched off."""
        found: timedelta | None = getattr(current, self.period)
        return found

    def absent(self) -> list[str]:
        """What it needs and this installation does not have."""
        return [module for module in self.needs if not _there(module)]


def _module(name: str) -> tuple[str, ...]:
    return sys.executable, "-m", name


JOBS = (
    Job("drift", _module("monitoring.drift_job"), "drift_every", ("evidently", "monitoring.drift_job")),
    Job("quality", _module("monitoring.quality_job"), "quality_every", ("monitoring.quality_job",)),
    Job("skew", _module("training.skew_audit"), "skew_every", ("training.skew_audit",)),
    Job("loop", _module("training.loop"), "loop_every", ("training.loop",)),
)


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it would be in
        return False
