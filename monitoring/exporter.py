"""What jobs and commands found, as Prometheus sees it: read from their files at each scrape.

A job is gone before it could be scraped, so its figures are the monitor's to tell until the next run replaces them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from monitoring import job_results
from monitoring.declaration import declared
from monitoring.job_results import Gauge, InvalidResult
from monitoring.metrics import Catalogue

log = logging.getLogger(__name__)

T = TypeVar("T")

Family = GaugeMetricFamily | CounterMetricFamily


class JobResultsCollector(Collector):
    """A family for each metric that a result or the platform's counts have a figure of."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def describe(self) -> Iterable[Family]:
        """Nothing: what there is shows in the files."""
        return ()

    def collect(self) -> Iterable[Family]:
        """One family per metric. A file that cannot be read is told in the log, and the others are exported."""
        found: dict[str, Family] = {}
        for one in figures(self._home):
            entry = job_results.entry(one)
            family = found.get(entry.name)
            if family is None:
                kind = GaugeMetricFamily if entry.kind == "gauge" else CounterMetricFamily
                family = found[entry.name] = kind(entry.name, entry.meaning, labels=tuple(entry.labels))
            family.add_metric([one.labels[label] for label in entry.labels], one.value)
        return found.values()


def figures(home: Path) -> list[Gauge]:
    """Every figure that the files hold; where two jobs have the same one, the later run's."""
    readers = [partial(job_results.read, home, name) for name in job_results.names(home)]
    results = [found for reader in readers if (found := _readable(reader)) is not None]
    of_jobs = [one for result in sorted(results, key=lambda result: result.at) for one in result.gauges]
    counted = _readable(partial(job_results.counts, home)) or []
    every = [one for one in [*of_jobs, *counted] if _known(one)]
    return list({(one.metric, *sorted(one.labels.items())): one for one in every}.values())


def _readable(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except InvalidResult as error:
        log.error("%s", error)
        return None


def registry(home: Path) -> CollectorRegistry:
    """What the monitor exports: the figures of jobs, and those of its own process as prometheus_client has them."""
    from prometheus_client import GCCollector, PlatformCollector, ProcessCollector

    made = CollectorRegistry(auto_describe=False)
    for kind in (ProcessCollector, PlatformCollector, GCCollector):
        kind(registry=made)
    made.register(JobResultsCollector(home))
    return made


def _known(one: Gauge) -> bool:
    """Whether the catalogue has this metric with these labels; an older version of a job may have had others."""
    return any(entry.attribute == one.metric and set(entry.labels) == set(one.labels) for entry in declared(Catalogue))
