"""What a job of the platform found last: one JSON file per job, which the monitor exports and the status page shows.

Invariant: a file is replaced whole, so that a reader sees one run's result or the next one's and never half of either.
"""

from __future__ import annotations

import fcntl
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from monitoring.declaration import Metric
from monitoring.metrics import Catalogue

FOLDER = "monitoring"
COUNTS = "counts"
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class InvalidResult(ValueError):
    """A result that names no metric of the catalogue, or that the file of another job would hold."""


class Gauge(msgspec.Struct, frozen=True):
    """A figure: `metric` is an attribute of `monitoring.metrics.Catalogue`, `labels` gives each of its labels a value.

    A figure that is not known is left out, and never NaN.
    """

    metric: str
    labels: dict[str, str]
    value: float


class JobResult(msgspec.Struct, frozen=True):
    """A job's latest run: when it ended (aware), what it measured, and whatever else a page may show (JSON)."""

    job: str
    at: datetime
    gauges: list[Gauge]
    details: dict[str, Any]


def write(home: Path, job: str, gauges: Sequence[Gauge], details: Mapping[str, Any], at: datetime) -> Path:
    """Make this the latest result of a job and return its file, `<home>/monitoring/<job>.json`.

    Raises `InvalidResult` for a metric or label that the catalogue does not have, a value that is not finite, and a
    naive `at`.
    """
    for one in gauges:
        _check(one, ("gauge",))
    if at.tzinfo is None:
        raise InvalidResult(f"Job '{job}': its instant {at} is naive; must have a time zone.")
    if job == COUNTS:
        raise InvalidResult(f"Job '{job}': the name is taken by the platform's own counts; choose another.")
    path = _file(home, job)
    _replace(path, JobResult(job, at, list(gauges), dict(details)))
    return path


def read(home: Path, job: str) -> JobResult | None:
    """A job's latest result; None where it has none. Raises `InvalidResult` for a file of another form."""
    path = _file(home, job)
    return _read(path, JobResult) if path.exists() else None


def names(home: Path) -> list[str]:
    """The jobs that have a result, in order."""
    return sorted(file.stem for file in (home / FOLDER).glob("*.json") if file.stem != COUNTS)


def every(home: Path) -> list[JobResult]:
    """The latest result of each job that has one, by name."""
    return [_read(_file(home, name), JobResult) for name in names(home)]


def add(home: Path, metric: str, by: float = 1.0, **labels: str) -> None:
    """Count something that a command did: a counter that outlives the commands that add to it.

    Raises `InvalidResult` where `metric` is no counter of the catalogue with these labels.
    """
    path = _file(home, COUNTS)
    _check(Gauge(metric, labels, by), ("counter",))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = counts(home)
        same = [one for one in before if (one.metric, one.labels) == (metric, labels)]
        total = by + sum(one.value for one in same)
        _replace(path, [*(one for one in before if one not in same), Gauge(metric, labels, total)])


def counts(home: Path) -> list[Gauge]:
    """What `add` has counted so far."""
    path = _file(home, COUNTS)
    return _read(path, list[Gauge]) if path.exists() else []


def entry(one: Gauge) -> Metric[Any]:
    """The catalogue's entry of a figure; raises `InvalidResult` where there is none."""
    found = getattr(Catalogue, one.metric, None)
    if not isinstance(found, Metric):
        raise InvalidResult(f"Metric '{one.metric}' is not in the catalogue; declare it in monitoring/catalogue_*.py.")
    return found


def _check(one: Gauge, kinds: Sequence[str]) -> None:
    of = entry(one)
    if of.kind not in kinds:
        raise InvalidResult(f"Metric '{one.metric}' is a {of.kind}; must be a {' or '.join(kinds)}.")
    if set(one.labels) != set(of.labels):
        raise InvalidResult(f"Metric '{one.metric}' has labels {sorted(one.labels)}; must be {sorted(of.labels)}.")
    if not math.isfinite(one.value):
        raise InvalidResult(f"Metric '{one.metric}' {one.labels} is {one.value}; leave out what is not known.")


def _file(home: Path, job: str) -> Path:
    if not _NAME.fullmatch(job):
        raise InvalidResult(f"Job '{job}': must be lower-case letters, digits and underscores.")
    return home / FOLDER / f"{job}.json"


def _replace(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(content)))
    draft.replace(path)


def _read(path: Path, form: Any) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=form)
    except msgspec.MsgspecError as error:
        raise InvalidResult(f"File '{path}' is no job's result: {error}. Remove it; the next run writes it.") from None
