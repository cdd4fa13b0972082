"""The dashboard of the service: latency, errors, budgets, what is degraded, what is on record."""

from __future__ import annotations

from monitoring.dashboards.now import NOW
from monitoring.dashboards.panel import Dashboard, Panel, Query, Row
from monitoring.dashboards.queries import LATENCY_LIMITS, by, quantiles, rate

SERVING = Dashboard(
    "serving",
    "Serving",
    "How payments are answered: latency, errors, budgets, what is degraded and why, and what goes on record.",
    [
        NOW,
        Row(
            "Latency",
            [
                Panel(
                    "Latency",
                    quantiles("prediction_latency_seconds", 0.5, 0.9, 0.99),
                    "s",
                    "From the request's body to the answer.",
                    limits=LATENCY_LIMITS,
                ),
                Panel(
                    "Feature retrieval",
                    quantiles("feature_retrieval_latency_seconds", 0.5, 0.99),
                    "s",
                    "One read of the online store for a whole batch. If this rose with the latency, look at Redis.",
                    limits=(0.02,),
                ),
                Panel(
                    "Latencies",
                    [Query("sum by (le) (increase(prediction_latency_seconds_bucket[$__rate_interval]))", "{{le}}")],
                    "s",
                    "How many answers took how long.",
                    "heatmap",
                ),
            ],
        ),
        Row(
            "Errors and budgets",
            [
                Panel(
                    "Without an answer of the model, by cause",
                    [by("error_type", "model_errors_total")],
                    "reqps",
                    "`invalid_input` is the sender's; all others count as errors.",
                    stacked=True,
                ),
                Panel(
                    "Error budget",
                    [Query(f"tollgate:errors:ratio{span}", span) for span in ("1h", "6h", "3d")],
                    "percentunit",
                    "99.99 % of the payments shall get a decision: the line is what may fail.",
                    limits=(0.0001,),
                ),
                Panel(
                    "Latency budget",
                    [Query(f"tollgate:slow:ratio{span}", span) for span in ("1h", "6h", "3d")],
                    "percentunit",
                    "99 % of the answers shall take at most 100 ms: the line is what may be slow.",
                    limits=(0.01,),
                ),
            ],
        ),
        Row(
            "Degraded",
            [
                Panel(
                    "Degraded answers, by cause",
                    [by("cause", "fraud_degraded_answers_total")],
                    "reqps",
                    "Payments decided on less than the full input.",
                    stacked=True,
                ),
                Panel(
                    "Reads of features that failed",
                    [by("cause", "fraud_features_unavailable_total")],
                    "ops",
                    "`timeout`: slow; `error`: away; `open`: not tried, it failed just before.",
                    stacked=True,
                ),
                Panel(
                    "Breaker and journal",
                    [
                        Query("max(fraud_breaker_open)", "breaker open"),
                        Query("max(fraud_journal_in_use)", "journal in use"),
                    ],
                    "bool_yes_no",
                    "Open: Redis is left alone for half a second at a time. In use: decisions go to a local file.",
                    most=1,
                ),
            ],
        ),
        Row(
            "On record, and who asks",
            [
                Panel(
                    "Decisions on record",
                    [
                        rate("fraud_decisions_logged_total", "logged"),
                        rate("fraud_decisions_journaled_total", "in the journal"),
                    ],
                    "reqps",
                    "Each decision is on record before its answer leaves.",
                ),
                Panel(
                    "Repeats and conflicts",
                    [
                        rate("fraud_decisions_repeated_total", "sent again"),
                        rate("fraud_decision_conflicts_total", "conflicts"),
                    ],
                    "reqps",
                    "Payments sent again, and other payments under the same identifier.",
                ),
                Panel(
                    "Requests refused",
                    [by("reason", "fraud_requests_refused_total")],
                    "reqps",
                    "For what they proved of their sender.",
                    stacked=True,
                ),
            ],
        ),
    ],
)
