"""The cards of the status page: each makes HTML of a part of the figures. What is not known is a dash."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

DASH = "–"
GOOD, WARN, BAD = "good", "warn", "bad"
SKEWED = 3
"""Features that differ are named up to here, then counted."""

DECISIONS = ("approve", "review", "decline")
LATENCY, ERRORS, DEGRADED, FRESHNESS, DRIFT = (0.1, 0.2), (0.01, 0.05), (0.01, 0.10), (1.0, 5.0), (0.15, 0.20)
"""From where a figure is orange and red: the thresholds of the alerts."""


def tiles(now: Mapping[str, float | None], past: Mapping[str, Sequence[float]]) -> str:
    """How it goes this minute; below a figure its last half hour, where `past` has it."""
    of = (
        ("payments", "payments/s", _rate, ()),
        ("p50", "latency, P50", _time, LATENCY),
        ("p99", "latency, P99", _time, LATENCY),
        ("errors", "without a decision", _percent, ERRORS),
        ("degraded", "degraded", _percent, DEGRADED),
        ("high_risk", "high risk", _percent, ()),
        ("freshness", "features behind", _time, FRESHNESS),
    )
    made = [_tile(told, now[name], form, limits, past.get(name, ())) for name, told, form, limits in of]
    return f'<div class="tiles">{"".join(made)}</div>'


def _tile(
    told: str, value: float | None, form: Callable[[float], str], limits: tuple[float, ...], past: Sequence[float]
) -> str:
    shown = DASH if value is None else form(value)
    figure = f'<b class="{_level(value, limits)}">{shown}</b><span>{told}</span>'
    return f'<div class="card tile">{figure}{_line(past)}</div>'


def _line(values: Sequence[float]) -> str:
    """A line through the values from left to right, 0 at the bottom; nothing for fewer than two."""
    if len(values) < 2:
        return ""
    highest, last = max(*values, 1e-9), len(values) - 1
    points = " ".join(f"{100 * n / last:.1f},{23 - 22 * value / highest:.1f}" for n, value in enumerate(values))
    return (
        f'<svg viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true"><polyline points="{points}"/></svg>'
    )


def _level(value: float | None, limits: tuple[float, ...]) -> str:
    """The class of a figure: nothing where it has no limits or is not known."""
    if value is None or not limits:
        return ""
    return BAD if value > limits[1] else WARN if value > limits[0] else GOOD


def _rate(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _time(value: float) -> str:
    if value < 1:
        return f"{value * 1e3:.1f}<small>ms</small>" if value < 0.1 else f"{value * 1e3:.0f}<small>ms</small>"
    return f"{value:.1f}<small>s</small>"


def _percent(value: float) -> str:
    return f"{value * 100:.2f}<small>%</small>" if 0 < value < 0.1 else f"{value * 100:.1f}<small>%</small>"


def card(title: str, body: str) -> str:
    """A box with a heading; `body` is HTML."""
    return f'<section class="card"><h2>{escape(title)}</h2>{body}</section>'


def decisions(found: dict[str, Any]) -> str:
    """What became of the payments of the last minute, else of all since the service started."""
    rates, totals = found["decisions"]["rates"], found["decisions"]["totals"]
    live = sum(rates.values()) > 0
    shown = rates if live else totals
    whole = sum(shown.values())
    if not whole:
        return card("Decisions", '<p class="note">No payment was decided since the service started.</p>')
    stack = "".join(f'<i style="width:{shown.get(k, 0) / whole:.2%};background:var(--{k})"></i>' for k in DECISIONS)
    rows = "".join(
        f'<i style="background:var(--{kind})"></i><span>{kind}</span><span>{shown.get(kind, 0) / whole:.1%}</span>'
        f"<em>{_rate(shown.get(kind, 0))}{'/s' if live else ''}</em>"
        for kind in DECISIONS
    )
    span = "over the last minute" if live else "since the service started; none in the last minute"
    causes = ", ".join(f"{escape(cause)} {_rate(value)}/s" for cause, value in found["degraded"].items())
    also = f'<p class="note">Degraded: {causes}</p>' if causes else ""
    body = f'<div class="stack">{stack}</div><div class="legend">{rows}</div><p class="note">{span}</p>{also}'
    return card("Decisions", body)


def scores(buckets: list[tuple[float, float]]) -> str:
    """How the fraud probabilities are distributed."""
    counts = [count for bound, count in buckets if bound > 0]
    highest = max(counts, default=0.0)
    if not highest:
        return card("Scores", '<p class="note">No payment was scored since the service started.</p>')
    # By their roots: the few high scores beside the many low ones are what one looks for.
    bars = "".join(f'<i style="height:{(count / highest) ** 0.5:.1%}"></i>' for count in counts)
    axis = '<div class="axis"><span>0</span><span>fraud probability</span><span>1</span></div>'
    note = '<p class="note">Height is the root of the count.</p>'
    return card("Scores", f'<div class="bars">{bars}</div>{axis}{note}')


def drift(found: dict[str, Any]) -> str:
    """The columns that moved most, and whether what was served is what history gives."""
    told, skew = found["drift"], _skew(found["skew"])
    if not told["columns"]:
        none = '<p class="note">No report yet: it needs some hundred decisions and a champion.</p>'
        return card("Drift and skew", none + skew)
    rows = "".join(_meter(one) for one in told["top"])
    share = DASH if told["share"] is None else f"{told['share']:.0%}"
    chance = "Green: below 0.15, or chance explains it."
    note = f'<p class="note">{share} of {told["columns"]} columns drifted; the marks are 0.15 and 0.20. {chance}</p>'
    return card("Drift and skew", f'<div class="meter">{rows}</div>{note}{skew}')


def _meter(one: dict[str, Any]) -> str:
    value, most = one["drift"], 0.4
    level = _level(value, DRIFT) if one["drifted"] else GOOD
    marks = "".join(f'<s style="left:{mark / most:.0%}"></s>' for mark in DRIFT)
    bar = f'<u class="{level}"><i style="width:{min(value / most, 1):.1%}"></i>{marks}</u>'
    return f'<span title="{escape(one["column"])}">{escape(one["column"])}</span>{bar}<em>{value:.3f}</em>'


def _skew(skew: dict[str, Any]) -> str:
    if skew["audited"] is None:
        return '<p class="note">Skew: not audited yet.</p>'
    worst = ", ".join(f"{escape(name)} ({share:.1%})" for name, share in list(skew["features"].items())[:SKEWED])
    more = len(skew["features"]) - SKEWED
    told = f"differ in {worst}{f' and {more} more' if more > 0 else ''}" if worst else "are what history gives"
    of = f"{skew['audited']:,.0f} served vectors recomputed: they"
    return f'<p class="note">Skew: {of} <b class="{BAD if worst else GOOD}">{told}</b>.</p>'


def quality(rows: Iterable[dict[str, Any]]) -> str:
    """What the labels that have come say, beside what the champion's test promised."""
    shown = "".join(
        f"<tr><td>{escape(row['metric'].replace('_', ' '))}</td>"
        + "".join(f"<td>{_figure(row[column])}</td>" for column in ("full", "partial", "promised"))
        + "</tr>"
        for row in rows
    )
    if not shown:
        return card("Live quality", '<p class="note">No labels yet: they take a week to come.</p>')
    head = "<tr><th></th><th>labels full</th><th>partial</th><th>promised</th></tr>"
    return card("Live quality", f"<table>{head}{shown}</table>")


def _figure(value: float | None) -> str:
    return DASH if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"


def jobs(found: Mapping[str, dict[str, Any]], now: float) -> str:
    """The monitor's jobs and how their last runs went; `now` is in seconds since 1970."""
    head = "<tr><th></th><th>every</th><th>success</th><th>took</th><th></th></tr>"
    return card("Jobs", f"<table>{head}{''.join(_job(name, job, now) for name, job in found.items())}</table>")


def _job(name: str, job: dict[str, Any], now: float) -> str:
    level, went = {None: ("", "not run yet"), 0.0: (GOOD, "well"), 1.0: (BAD, "failed")}[job["failed"]]
    if job["period"] is None and job["failed"] is None:
        went = "off"
    if job["absent"]:
        level, went = WARN, "not installed"
    every = DASH if job["period"] is None else _span(job["period"])
    success = f"{_span(max(now - job['last_success'], 0))} ago" if job["last_success"] else DASH
    took = DASH if job["duration"] is None else f"{job['duration']:.1f} s"
    cells = "".join(f"<td>{cell}</td>" for cell in (every, success, took))
    return f'<tr><td>{escape(name)}</td>{cells}<td class="{level}">{went}</td></tr>'


def _span(seconds: float) -> str:
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{round(seconds / length, 1):g} {unit}"
    return f"{seconds:.0f} s"
