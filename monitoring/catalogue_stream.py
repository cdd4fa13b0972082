"""What the stream job and the carriers tell."""

from __future__ import annotations

from monitoring.declaration import counter, gauge, histogram

FRESHNESS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class StreamMetrics:
    """Set by `stream_jobs.velocity`."""

    stream_events = counter(
        "fraud_stream_events_total",
        "events",
        meaning="Events the stream job took from the log, by what became of them",
        action="No growth: the job stands still; many duplicates: a producer retries, or a replay is running",
        outcome=("applied", "duplicate", "dead"),
    )
    dead_letters = counter(
        "fraud_dead_letters_total",
        "events",
        meaning="Events put aside, by reason",
        action="Read the dead-letter stream: `late` is a slow producer, `invalid` a changed schema",
        reason=("invalid", "late", "early"),
    )
    feature_freshness = histogram(
        "fraud_feature_freshness_seconds",
        "seconds",
        FRESHNESS,
        meaning="From an event's arrival in the log to its features being readable online",
        action="P99 above 1: the stream job is overloaded or Redis slow; add workers by card",
    )
    state_overflow = counter(
        "fraud_state_events_dropped_total",
        "events",
        meaning="Events dropped because an entity's window state is full",
        action="Find the entity in the job's log: a test card, or a merchant that needs a larger state",
        view="the stream feature views",
    )
    state_sealed = counter(
        "fraud_state_events_sealed_total",
        "events",
        meaning="Events older than what an entity's window state can still tell from a duplicate; not counted in it",
        action="A partition of the log is days behind the others: let it catch up, then run `make rebuild-online`",
        view="the stream feature views",
    )
    state_cache_hits = counter(
        "fraud_state_cache_hits_total",
        "states",
        meaning="States that the stream job had in memory when events of their entity came",
        action="Small against fraud_state_cache_misses_total after the first minutes: more entities than memory holds",
        view="the stream feature views",
    )
    state_cache_misses = counter(
        "fraud_state_cache_misses_total",
        "states",
        meaning="States that the stream job had to fetch from the online store, or that were not there yet",
        action="Stays high after a start: more entities are active than the cache holds; add workers by card",
        view="the stream feature views",
    )
    stream_lag = gauge(
        "fraud_stream_lag",
        "events",
        meaning="Events in the log whose features are not yet fresh, over all partitions; counted to 20,000 in Redis",
        action="Grows: the job is too slow or stands still; read its log, add workers by card",
    )
    stream_last_event = gauge(
        "fraud_stream_last_event_timestamp_seconds",
        "seconds since 1970",
        meaning="When the newest event that is in the features entered the log",
        action="Stands still while payments are scored: the stream job or what feeds it has stopped",
    )


class DecisionsMetrics:
    """Set by `stream_jobs.decisions`."""

    decision_log_lag = gauge(
        "fraud_decision_log_lag",
        "entries",
        meaning="Decisions in the log that are not yet in Postgres",
        action="Grows: read the log of `stream_jobs.decisions`; does Postgres answer? Nothing is trimmed meanwhile",
    )
    decisions_carried = counter(
        "fraud_decisions_carried_total",
        "decisions",
        meaning="Decisions taken from the log, by what became of them in the table `decisions`",
        action="Any `conflict`: read `decision_conflicts`; many `repeated`: the job is killed again and again",
        outcome=("added", "repeated", "conflict"),
    )


class FeedbackMetrics:
    """Set by `stream_jobs.feedback`."""

    feedback_carried = counter(
        "fraud_feedback_carried_total",
        "statements",
        meaning="Statements about payments, by what became of them in the label history",
        action="`unmatched` grows: a sender names payments that were not decided here; read the stream `feedback.dead`",
        outcome=("labelled", "unmatched"),
    )
