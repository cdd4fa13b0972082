"""The monitor's own page where no other is installed: its jobs, and which parts tell metrics."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import Any

from monitoring.snapshot import Snapshot


def render(snapshot: Snapshot) -> str:
    """The page as HTML."""
    jobs: Any = snapshot["jobs"]
    up: Any = snapshot["up"]
    rows = "".join(_row(name, job) for name, job in jobs.items())
    parts = ", ".join(f"{escape(name)} {'up' if value else 'away'}" for name, value in up.items()) or "none"
    return (
        "<!doctype html><meta charset='utf-8'><title>Tollgate: monitor</title><h1>Jobs</h1><table>"
        "<tr><th>job</th><th>every</th><th>last run</th><th>took</th><th>last success</th></tr>"
        f"{rows}</table><p>Parts that tell metrics: {parts}</p><p><a href='/metrics'>metrics</a></p>\n"
    )


def _row(name: str, job: dict[str, Any]) -> str:
    every = "never" if job["period"] is None else f"{job['period']:g} s"
    if job["absent"]:
        every = f"not here: no {', '.join(job['absent'])}"
    went = {None: "not yet", 0.0: "well", 1.0: "failed"}[job["failed"]]
    took = "" if job["duration"] is None else f"{job['duration']:.1f} s"
    cells = (name, every, went, took, _when(job["last_success"]))
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _when(at: float | None) -> str:
    return "never" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
