"""The line of figures at the top of a dashboard: how it is this minute."""

from __future__ import annotations

from monitoring.dashboards.panel import Panel, Query, Row
from monitoring.dashboards.queries import DEGRADED_LIMITS, ERROR_LIMITS, LATENCY_LIMITS

NOW = Row(
    "Now",
    [
        Panel(
            "Payments",
            [Query("tollgate:payments:rate5m")],
            "reqps",
            "Decided, over five minutes.",
            "stat",
            width=4,
            height=4,
        ),
        Panel(
            "P99 latency",
            [Query("tollgate:latency:p99_5m")],
            "s",
            "From the request to the answer, over five minutes.",
            "stat",
            LATENCY_LIMITS,
            4,
            4,
        ),
        Panel(
            "Errors",
            [Query("tollgate:errors:ratio5m")],
            "percentunit",
            "Valid payments that got no decision, over five minutes.",
            "stat",
            ERROR_LIMITS,
            4,
            4,
        ),
        Panel(
            "Degraded",
            [Query("tollgate:degraded:ratio5m")],
            "percentunit",
            "Decided on less than the full input, over five minutes.",
            "stat",
            DEGRADED_LIMITS,
            4,
            4,
        ),
        Panel(
            "Features behind by",
            [Query("tollgate:freshness:p99_5m")],
            "s",
            "P99 from an event's arrival to its features being readable.",
            "stat",
            (1, 5),
            4,
            4,
        ),
        # No alert that fires is no series: 0 is the truth as long as the rules are evaluated, which one of theirs says.
        Panel(
            "Alerts firing",
            [Query('count(ALERTS{alertstate="firing"}) or 0 * count(tollgate:payments:rate5m)')],
            "none",
            "Of this platform's rules; see the list below.",
            "stat",
            (1, 5),
            4,
            4,
        ),
    ],
)
