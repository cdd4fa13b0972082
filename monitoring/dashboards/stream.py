"""The dashboard of the stream, the features, and the jobs that carry on."""

from __future__ import annotations

from monitoring.dashboards.panel import Dashboard, Panel, Query, Row
from monitoring.dashboards.queries import by, quantiles, rate

STREAM = Dashboard(
    "stream",
    "Stream and features",
    "Whether features follow the events: lag, freshness, dead letters, nulls, and the jobs that carry on.",
    [
        Row(
            "Stream",
            [
                Panel(
                    "Events",
                    [by("outcome", "fraud_stream_events_total")],
                    "cps",
                    "Taken from the log, by what became of them.",
                    stacked=True,
                ),
                Panel(
                    "Lag",
                    [Query("max(fraud_stream_lag)", "events waiting")],
                    "short",
                    "Events in the log whose features are not yet fresh.",
                ),
                Panel(
                    "Freshness",
                    quantiles("fraud_feature_freshness_seconds", 0.5, 0.99),
                    "s",
                    "From an event's arrival in the log to its features being readable; an alert at 5 s.",
                    limits=(5,),
                ),
                Panel(
                    "Newest event in the features",
                    [Query("time() - max(fraud_stream_last_event_timestamp_seconds)", "ago")],
                    "s",
                    "Grows by itself where no events come.",
                ),
                Panel(
                    "Dead letters", [by("reason", "fraud_dead_letters_total")], "cps", "Events put aside.", stacked=True
                ),
                Panel(
                    "Dead letters' share",
                    [Query("tollgate:dead_letters:ratio15m", "15 minutes")],
                    "percentunit",
                    "An alert at 1 %.",
                    limits=(0.01,),
                ),
            ],
        ),
        Row(
            "Features",
            [
                Panel(
                    "Age of the card's newest event",
                    quantiles("fraud_feature_age_seconds", 0.5, 0.9),
                    "s",
                    "At the payment. Moves up for all: the stream job stands still.",
                ),
                Panel(
                    "Null in the vectors served",
                    [
                        Query(
                            "topk(10, sum by (feature) (rate(fraud_served_nulls_total[$__rate_interval])))",
                            "{{feature}}",
                        )
                    ],
                    "cps",
                    "The ten columns most often null. One that jumps has lost its source.",
                ),
                Panel(
                    "Events that did not fit",
                    [by("view", "fraud_state_events_dropped_total"), by("view", "fraud_state_events_sealed_total")],
                    "cps",
                    "Dropped: an entity's state is full. Sealed: older than what the state can tell from a duplicate.",
                ),
                Panel(
                    "Unknown categories",
                    [rate("fraud_unknown_categories_total", "mapped to `other`")],
                    "reqps",
                    "Payments whose category is outside the vocabulary.",
                ),
                Panel(
                    "States in the job's memory",
                    [rate("fraud_state_cache_hits_total", "there"), rate("fraud_state_cache_misses_total", "fetched")],
                    "cps",
                    "Fetched ones stay many after a start: more entities are active than the job holds.",
                ),
            ],
        ),
        Row(
            "Carried on",
            [
                Panel(
                    "Decisions not yet in Postgres",
                    [Query("max(fraud_decision_log_lag)", "waiting")],
                    "short",
                    "An alert at 10,000. Only where `stream_jobs.decisions` runs.",
                    limits=(10_000,),
                ),
                Panel(
                    "Decisions carried",
                    [by("outcome", "fraud_decisions_carried_total")],
                    "cps",
                    "Into the table. Any conflict is worth a look.",
                    stacked=True,
                ),
                Panel(
                    "Feedback",
                    [by("outcome", "fraud_feedback_carried_total")],
                    "cps",
                    "Statements about payments. Only where `stream_jobs.feedback` runs.",
                    stacked=True,
                ),
            ],
        ),
    ],
)
