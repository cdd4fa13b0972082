"""The serving benchmark's report as a table, and as a picture of latency against rate.

Invariant: every line is a function of the report alone, as in `tests.load.table`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from tests.load.table import Line, Report, drawn, written

GOALS: dict[str, tuple[str, float]] = {"p50_ms": ("P50", 2.0), "p99_ms": ("P99", 8.0), "p999_ms": ("P99.9", 30.0)}
PEERS: dict[str, tuple[str, float]] = {
    "stock_rps": ("stock BentoML and Feast", 16.0),
    "seed_rps": ("FastAPI and redis-py", 7.0),
    "feast_server_rps": ("Feast's feature server", 0.0),
    "bare_rps": ("a bare ASGI application", 0.33),
}


def lines(report: Report) -> list[Line]:
    """A line for each figure that the report has."""
    found: list[Line] = []
    for part, make in PARTS.items():
        if part in report:
            found += make(report)
    return found


def _at_least(what: str, value: float, goal: float) -> Line:
    return Line(what, f"{value:,.0f}", goal=f">= {goal:,.0f}", met=value >= goal)


def _at_most(what: str, value: float, goal: float) -> Line:
    return Line(what, f"{value:,.1f}", goal=f"<= {goal:,g}", met=value <= goal)


def _single(report: Report) -> Iterator[Line]:
    part = report["single"]
    held = part["held"]
    what = f"single payments/s, {part['seconds']:.0f} s" + ("" if held else ", not held")
    yield Line(what, f"{part['rps']:,.0f}", goal=">= 10,000", met=held and part["rps"] >= 10_000)
    yield Line("  P99, ms", f"{part['p99_ms']:,.1f}", goal="< 100", met=part["p99_ms"] < 100)
    yield Line("  P50/P99.9, ms", f"{part['p50_ms']:,.1f}/{part['p999_ms']:,.1f}")
    yield Line("  errors", f"{part['errors']:,}", goal="0", met=part["errors"] == 0)
    yield Line("  decided without all features", f"{part['degraded']:,}", goal="0", met=part["degraded"] == 0)


def _maximum(report: Report) -> Iterator[Line]:
    part = report["maximum"]
    yield Line(f"  closed loop, {report['connections']} connections", f"{part['rps']:,.0f}")


def _busy(report: Report) -> Iterator[Line]:
    yield Line("  the same at busy merchants", f"{report['busy']['rps']:,.0f}")


def _peers(report: Report) -> Iterator[Line]:
    ours = report.get("maximum", {}).get("rps", 0.0)
    for name, (what, goal) in PEERS.items():
        if peer := report["peers"].get(name):
            ratio = ours / peer
            told, met = (f">= {goal:g}", ratio >= goal) if goal else ("", None)
            yield Line(f"  against {what}", f"{ours:,.0f}", f"{peer:,.0f}", f"{ratio:.2f}", told, met)


def _half(report: Report) -> Iterator[Line]:
    part = report["half_rate"]
    for name, (what, goal) in GOALS.items():
        yield _at_most(f"at {part['rps']:,.0f}/s, {what}, ms", part[name], goal)


def _batch(report: Report) -> Iterator[Line]:
    yield _at_least("payments/s, 100 a request", report["batch"]["tx_per_s"], 40_000)


def _extras(report: Report) -> Iterator[Line]:
    yield _at_most("reasons and shadow cost, %", report["extras_cost_pct"], 25)


def _ready(report: Report) -> Iterator[Line]:
    yield _at_most("ready after, s", report["ready_s"], 8)


def _memory(report: Report) -> Iterator[Line]:
    yield _at_most("memory of a worker, MB", report["worker_mb"], 350)


PARTS: dict[str, Any] = {
    "single": _single,
    "maximum": _maximum,
    "busy": _busy,
    "peers": _peers,
    "half_rate": _half,
    "batch": _batch,
    "extras_cost_pct": _extras,
    "ready_s": _ready,
    "worker_mb": _memory,
}


def table(report: Report) -> Table:
    """The table for a terminal of 80 columns or more."""
    return drawn(lines(report), report)


def markdown(report: Report) -> str:
    """The same table for a page of the docs."""
    return written(lines(report), report)


def picture(report: Report, path: Path) -> None:
    """Percentiles of the latency against the rate offered, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    points = sorted([*report["curve"], report["half_rate"], report["single"]], key=lambda one: one["offered_rps"])
    rates = [one["offered_rps"] for one in points]
    figure, axes = pyplot.subplots(figsize=(8, 4.8))
    for name, label in {"p50_ms": "P50", "p90_ms": "P90", "p99_ms": "P99", "p999_ms": "P99.9"}.items():
        axes.plot(rates, [one[name] for one in points], marker="o", markersize=4, label=label)
    axes.axvline(report["single"]["offered_rps"], color="grey", linestyle=":", linewidth=1)
    said = "held" if report["single"]["held"] else "not held"
    axes.annotate(said, (report["single"]["offered_rps"], axes.get_ylim()[1]), ha="right", va="top", color="grey")
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.set_xlabel("payments a second offered (open loop, random arrivals)")
    axes.set_ylabel("ms from the instant a request was due")
    axes.set_title(f"POST /predict on {report['machine']['cores']} cores, load and Redis included", fontsize=11)
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
