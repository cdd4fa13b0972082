"""The report as a table: what was measured, what it is held against, the goal, and whether it is met.

Invariant: every line is a function of the report alone, so that the table in the docs is the one that was printed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

HEADINGS = ("what", "measured", "peer", "ratio", "goal", "met")
FLAT = 1.25
"""A cost per event is flat if the largest history's is at most so many times the smallest's."""

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One line, as text; `met` is null where there is no goal."""

    what: str
    measured: str
    peer: str = ""
    ratio: str = ""
    goal: str = ""
    met: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """The line's cells, under `HEADINGS`."""
        verdict = {True: "yes", False: "no", None: ""}[self.met]
        return self.what, self.measured, self.peer, self.ratio, self.goal, verdict


def lines(report: Report) -> list[Line]:
    """A line for each figure of the parts that the report has."""
    found: list[Line] = []
    for part, make in PARTS.items():
        if "failed" in report.get(part, ()):
            found.append(Line(part, "failed", met=False))
        elif part in report:
            found += make(report[part])
    return found


def _stream(part: Report) -> Iterator[Line]:
    rate = part["events_per_s"]
    yield Line("events/s from Kafka to Redis", f"{rate:,}", goal=">= 25,000", met=rate >= 25_000)
    yield Line("  between a third and the end", f"{part['warm_events_per_s']:,}")
    if "two_processes_events_per_s" in part:
        yield Line("  as two processes", f"{part['two_processes_events_per_s']:,}")
    peers = (("peer_handwritten", "lists + HSET", 10), ("peer_push_batch", "push of 1,000", 3))
    for name, what, goal in peers:
        ratio = rate / part[name]
        yield Line(f"  against {what}", f"{rate:,}", f"{part[name]:,.0f}", f"{ratio:.1f}", f">= {goal}", ratio >= goal)
    ratio = rate / part["peer_push_row"]
    yield Line("  against push of each event", f"{rate:,}", f"{part['peer_push_row']:,.0f}", f"{ratio:.1f}")


def _freshness(part: Report) -> Iterator[Line]:
    at = f"freshness at {part['rate']:,}/s"
    for name, goal in (("p50_ms", 100), ("p99_ms", 500)):
        value = part[name]
        yield Line(f"{at}, {name[:3].upper()}, ms", f"{value:,.0f}", goal=f"<= {goal}", met=value <= goal)
    if part["job_p50_ms"] is not None:
        yield Line("  by the job's own histogram", f"{part['job_p50_ms']:,.0f}/{part['job_p99_ms']:,.0f}")


def _backfill(part: Report) -> Iterator[Line]:
    seconds, events = part["seconds"], part["events"]
    yield Line(f"backfill of {events:,}, s", f"{seconds:,.1f}", goal="<= 45", met=seconds <= 45)
    yield Line("  online store from it, s", f"{part['rebuild_online_seconds']:,.1f}")
    costs = part["per_event_us"]
    for count, us in costs.items():
        yield Line(f"  µs/event of {int(count):,}", f"{us:,.1f}")
    values = list(costs.values())
    first, last = values[0], values[-1]
    ratio = last / first
    what = "  largest against smallest"
    yield Line(what, f"{last:,.1f}", f"{first:,.1f}", f"{ratio:.2f}", f"<= {FLAT}", ratio <= FLAT)
    for count, us in part["per_event_us_skewed"].items():
        yield Line(f"  µs/event of {int(count):,}, Zipf", f"{us:,.1f}")


def _point_in_time(part: Report) -> Iterator[Line]:
    rows, seconds, peak = part["rows"], part["seconds"], part["peak_mb"]
    yield Line(f"training set, {rows:,} rows, s", f"{seconds:,.1f}", goal="<= 20", met=seconds <= 20)
    yield Line("  peak memory, MB", f"{peak:,.0f}", goal="<= 3,000", met=peak <= 3_000)
    if part["stock_duckdb_seconds"]:
        ours, stock = part["same_views_seconds"], part["stock_duckdb_seconds"]
        ratio = stock / ours
        what = f"  equal to stock, {part['stock_rows']:,} rows, s"
        yield Line(what, f"{ours:,.1f}", f"{stock:,.1f}", f"{ratio:.1f}", ">= 10", ratio >= 10)
    elif "stock_missing" in part:
        yield Line("  equal to stock: needs ibis", "not run")
    limited = part.get("limited")
    if limited is None:
        return
    what = f"  {limited['history_mb']:,.0f} MB of history in {limited['growth_mb']:,.0f} MB"
    yield Line(what, "done" if limited["within"] else "failed", goal="done", met=limited["within"])


def _state(part: Report) -> Iterator[Line]:
    mb, cards = part["mb"], part["cards"]
    yield Line(f"state of {cards:,} cards, MB", f"{mb:,.0f}", goal="<= 1,500", met=mb <= 1_500)
    yield Line(f"  {part['events_per_card']:.0f} events each; RSS, MB", f"{part['rss_mb']:,.0f}")
    yield Line("  if they began a week ago, MB", f"{part['week_mb']:,.0f}")
    kb = part["busiest_card_kb"]
    yield Line(f"  card of {part['busiest_card_events']:,} events, KB", f"{kb:,.0f}", goal="bounded")


PARTS = {
    "stream": _stream,
    "freshness": _freshness,
    "backfill": _backfill,
    "point_in_time": _point_in_time,
    "state": _state,
}


def caption(report: Report) -> str:
    """On what, with what, how and when it was measured."""
    on, with_ = report["machine"], ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    return (
        f"{on['cores']} cores of {on['cpu']}, {on['ram_gb']:g} GB, {on['system']}, load {on['load_before']:g} before; "
        f"{with_}. `{report['command']}`, {report['date']}, {report['seconds'] / 60:.1f} min."
    )


def table(report: Report) -> Table:
    """The table for a terminal of 80 columns or more."""
    return drawn(lines(report), report)


def markdown(report: Report) -> str:
    """The same table for a page of the docs."""
    return written(lines(report), report)


def drawn(found: Sequence[Line], report: Report) -> Table:
    """Lines as a table for a terminal, with what the report says of their making."""
    made = Table(
        box=box.SIMPLE_HEAD, caption=caption(report), caption_justify="left", pad_edge=False, padding=(0, 1, 0, 0)
    )
    for heading in HEADINGS:
        made.add_column(heading, justify="left" if heading in ("what", "goal", "met") else "right", no_wrap=True)
    for line in found:
        colour = {True: "green", False: "red", None: ""}[line.met]
        *cells, verdict = line.cells()
        made.add_row(*cells, f"[{colour}]{verdict}[/]" if colour else verdict)
    return made


def written(found: Sequence[Line], report: Report) -> str:
    """The same in Markdown."""
    rows = [HEADINGS, ("---", "--:", "--:", "--:", "---", "---"), *(line.cells() for line in found)]
    indented = [(row[0].replace("  ", "… ", 1) if row[0].startswith("  ") else row[0], *row[1:]) for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in indented) + f"\n\n{caption(report)}\n"
