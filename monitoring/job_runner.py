"""Runs the jobs that are due, one at a time, and keeps how they went.

Invariant: a job's failure is that job's alone. How its runs went lies in `<home>/monitoring/monitor.json`, so that a
monitor that starts anew neither forgets it nor runs everything at once.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from feature_repo.settings import Settings
from monitoring import job_results
from monitoring.job_results import Gauge
from monitoring.jobs import JOBS, Job
from monitoring.parts import environment

RESULT = "monitor"
NICENESS = 10
"""Jobs share the machine with the service, which comes first."""

LOOK = 0.5
"""Seconds between two looks at what is due, and at whether a job has ended."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runs:
    """How a job's runs went; instants are seconds since 1970. `code` is the last one's exit code, None while unknown:
    it was killed, for it took too long or the monitor ended."""

    began: float
    seconds: float
    code: int | None
    succeeded: float | None = None

    @property
    def failed(self) -> bool:
        """Whether the last run failed."""
        return self.code != 0


class JobRunner:
    """The schedule; `run` is for one thread, the rest may be asked from any."""

    def __init__(self, current: Settings, jobs: Sequence[Job] = JOBS) -> None:
        self._settings, self._jobs = current, jobs
        self._first = time.time() + current.jobs_after.total_seconds()
        self._runs = _kept(current)
        self.absent = {job.name: missing for job in jobs if (missing := job.absent())}
        """Jobs that this installation cannot run, and what they lack."""

    @property
    def runs(self) -> Mapping[str, Runs]:
        """How each job that ever ran went."""
        return dict(self._runs)

    def periods(self) -> dict[str, float | None]:
        """Seconds between two runs of each job of the table; None where it is off or cannot be run."""
        found = {}
        for job in self._jobs:
            every = None if job.name in self.absent else job.every(self._settings)
            found[job.name] = None if every is None else every.total_seconds()
        return found

    def run(self, ended: threading.Event) -> None:
        """Run what is due until `ended`; a job under way is ended then."""
        for name, missing in self.absent.items():
            log.warning("Job '%s' is not run: there is no %s here.", name, ", ".join(missing))
        while not ended.wait(LOOK):
            for job in self._jobs:
                if not ended.is_set() and self._due(job, time.time()):
                    self._run(job, ended)

    def _due(self, job: Job, now: float) -> bool:
        period = self.periods()[job.name]
        if period is None or now < self._first:
            return False
        before = self._runs.get(job.name)
        return before is None or now >= before.began + period

    def _run(self, job: Job, ended: threading.Event) -> None:
        began, clock = time.time(), time.monotonic()
        code = self._finish(job, ended)
        seconds = time.monotonic() - clock
        before = self._runs.get(job.name)
        earlier = None if before is None else before.succeeded
        succeeded = time.time() if code == 0 else earlier
        self._runs[job.name] = Runs(began, seconds, code, succeeded)
        if code == 0:
            log.info("Job '%s' ended well after %.1f s.", job.name, seconds)
        elif not ended.is_set():
            how = "was ended" if code is None else f"failed with code {code}"
            log.error("Job '%s' %s after %.1f s; see %s.", job.name, how, seconds, self._log(job))
            job_results.add(self._settings.home, "job_failures", job=job.name)
        if not ended.is_set():
            self._keep()

    def _finish(self, job: Job, ended: threading.Event) -> int | None:
        path = self._log(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self._settings.job_timeout.total_seconds()
        with path.open("wb") as output:
            try:
                process = subprocess.Popen(  # noqa: S603 - the table's own commands
                    job.command,
                    env=os.environ | environment(self._settings),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    preexec_fn=lambda: os.nice(NICENESS) and None,
                )
            except OSError as error:
                output.write(f"{error}\n".encode())
                return None
            while process.poll() is None and time.monotonic() < deadline and not ended.is_set():
                ended.wait(LOOK / 10)
            if process.poll() is None:
                process.kill()
                process.wait()
                return None
            return process.returncode

    def _log(self, job: Job) -> Path:
        return self._settings.home / "logs" / f"job-{job.name}.log"

    def _keep(self) -> None:
        gauges = []
        for name, run in self._runs.items():
            gauges.append(Gauge("job_failed", {"job": name}, float(run.failed)))
            gauges.append(Gauge("job_duration", {"job": name}, run.seconds))
            if run.succeeded is not None:
                gauges.append(Gauge("job_last_success", {"job": name}, run.succeeded))
        details = {name: asdict(run) for name, run in self._runs.items()}
        job_results.write(self._settings.home, RESULT, gauges, details, datetime.now(UTC))


def _kept(current: Settings) -> dict[str, Runs]:
    found = job_results.read(current.home, RESULT)
    return {} if found is None else {name: msgspec.convert(run, Runs) for name, run in found.details.items()}
