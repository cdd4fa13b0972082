"""The platform at a glance: what its parts tell of themselves now, and how fast their counts grow.

For the status page, which must work where there is no Prometheus. Nothing here is kept longer than `WINDOW`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from feature_repo.settings import Settings
from monitoring.exporter import figures
from monitoring.job_results import entry
from monitoring.job_runner import JobRunner
from monitoring.targets import read_targets

WINDOW = 60.0
"""Seconds over which a rate is taken."""

PATIENCE = 2.0
OWN = "monitor"
FOREIGN = ("python_", "process_", "bentoml_")

Samples = dict[str, float]
Snapshot = dict[str, float | dict[str, Any]]

log = logging.getLogger(__name__)


class Watch:
    """Scrapes every part again and again; `look` may be asked from any thread."""

    def __init__(self, current: Settings, runner: JobRunner) -> None:
        self._settings, self._runner = current, runner
        self._seen: deque[tuple[float, Samples]] = deque()
        self._up: dict[str, float] = {}
        # The parts are this machine's own, at addresses that need not be in a certificate.
        self._client = httpx.Client(timeout=PATIENCE, verify=False)  # noqa: S501

    def run(self, ended: threading.Event) -> None:
        """Scrape each `monitor_scrape` until `ended`."""
        period = self._settings.monitor_scrape.total_seconds()
        while not ended.is_set():
            self.scrape(time.time())
            ended.wait(period)
        self._client.close()

    def scrape(self, now: float) -> None:
        """Ask every part once."""
        samples: Samples = {}
        up: dict[str, float] = {}
        for target in read_targets(self._settings):
            job, [address] = target["labels"]["job"], target["targets"]
            if job == OWN:
                continue
            scheme = target["labels"].get("__scheme__", "http")
            try:
                answer = self._client.get(f"{scheme}://{address}/metrics").raise_for_status()
                samples |= parsed(answer.text)
                up[job] = 1.0
            except (httpx.HTTPError, ValueError) as error:
                log.debug("Part '%s' tells nothing: %s", job, error)
                up[job] = 0.0
        self._up = up
        self._seen.append((now, samples))
        while self._seen[0][0] < now - WINDOW:
            self._seen.popleft()

    def look(self) -> Snapshot:
        """What the parts told last:

        - `at`: when that was, seconds since 1970; 0 before the first time
        - `up`: 1 or 0 for each part that tells metrics
        - `samples`: each line of /metrics of all parts, without its value, to that value; the jobs' figures among them
        - `rates`: of counts, sums and buckets among the samples what they grew a second, over the last minute at most
        - `jobs`: for each job `period` (seconds or null), `absent` (what it lacks), `failed` (1, 0 or null for never
          run), `duration` (seconds), `last_success` (seconds since 1970, or null)
        """
        seen = list(self._seen)
        at, samples = seen[-1] if seen else (0.0, {})
        began, before = seen[0] if seen else (0.0, {})
        return {
            "at": at,
            "up": dict(self._up),
            "samples": samples | of_jobs(self._settings.home),
            "rates": rates(before, samples, at - began),
            "jobs": self._jobs(),
        }

    def _jobs(self) -> dict[str, Any]:
        found = {}
        for name, period in self._runner.periods().items():
            run = self._runner.runs.get(name)
            found[name] = {
                "period": period,
                "absent": self._runner.absent.get(name, []),
                "failed": None if run is None else float(run.failed),
                "duration": None if run is None else run.seconds,
                "last_success": None if run is None else run.succeeded,
            }
        return found


def parsed(text: str) -> Samples:
    """The samples of a /metrics text by their line without its value; those of the libraries are left out."""
    return {
        line(sample.name, sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.startswith(FOREIGN)
    }


def line(name: str, labels: Mapping[str, str]) -> str:
    """`name{label="value",...}`, the labels in order of their names, as a key of `samples` is written."""
    inner = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{inner}}}" if inner else name


def of_jobs(home: Path) -> Samples:
    """The figures of jobs, written alike."""
    return {line(entry(one).name, one.labels): one.value for one in figures(home)}


def rates(before: Samples, now: Samples, seconds: float) -> Samples:
    """What each count grew a second; one that is smaller than before began anew, and grew by what it is."""
    if seconds <= 0.0:
        return {}
    found = {}
    for name, value in now.items():
        if name.partition("{")[0].endswith(("_total", "_count", "_sum", "_bucket")):
            earlier = before.get(name, 0.0)
            found[name] = (value - earlier if value >= earlier else value) / seconds
    return found
