"""What the service tells of payments, their features and their record."""

from __future__ import annotations

from monitoring.declaration import counter, gauge, histogram

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5)
AGES = (60.0, 300.0, 3_600.0, 21_600.0, 86_400.0, 259_200.0, 604_800.0, 2_592_000.0)
SCORES = tuple(round(0.05 * step, 2) for step in range(21))


class ServiceMetrics:
    """Set by the workers of `bentos.service`."""

    total_transactions = counter(
        "total_transactions_total",
        "payments",
        meaning="Payments scored",
        action="No growth while payments flow: check the service's readiness and the load balancer",
    )
    high_risk_transactions = counter(
        "high_risk_transactions_total",
        "payments",
        meaning="Payments scored with risk level high",
        action="Share jumps: look for an attack or a broken feature (drift report); falls to 0: check the threshold",
    )
    score = histogram(
        "fraud_score_distribution",
        "probability",
        SCORES,
        meaning="Fraud probability given to a payment",
        action="Shape moves without a model change: read the drift report; one bucket only: features are null",
    )
    average_amount = gauge(
        "avg_transaction_amount",
        "currency units",
        meaning="Exponentially weighted mean amount of the last ~1,000 payments, as the last worker to score saw it",
        action="Jumps: compare with the drift of `amount`; a factor of 100 is a sender that changed its unit",
    )
    prediction_latency = histogram(
        "prediction_latency_seconds",
        "seconds",
        SECONDS,
        meaning="From the request's body to the answer, per payment or batch",
        action="P99 above 0.1: compare with feature retrieval; if that is low, add workers, else look at Redis",
    )
    feature_latency = histogram(
        "feature_retrieval_latency_seconds",
        "seconds",
        SECONDS,
        meaning="One read of the online store, per payment or batch",
        action="Rises: check Redis (SLOWLOG, memory, network); above the time-out answers are degraded",
    )
    feature_age = histogram(
        "fraud_feature_age_seconds",
        "seconds",
        AGES,
        meaning="Age, at the payment, of the newest event in the card's stored features",
        action="Moves up for all: the stream job stands still, check its log and the consumer group's lag",
    )
    errors = counter(
        "model_errors_total",
        "errors",
        meaning="Payments that got no answer from the model, by cause",
        action="Look the error type up in the service's log; the payment was answered by the fallback or refused",
        error_type=("invalid_input", "feature_store", "model", "decision_log", "feedback_log", "internal"),
    )
    features_unavailable = counter(
        "fraud_features_unavailable_total",
        "reads",
        meaning="Reads of the online store that failed or took longer than the feature budget, by cause",
        action="`timeout`: Redis or the network is slow; `error`: it is away; `open`: not tried, it failed just before",
        cause=("timeout", "error", "open", "unreadable"),
    )
    degraded_answers = counter(
        "fraud_degraded_answers_total",
        "payments",
        meaning="Payments decided on less than the model's full input, by cause; the answer says so too",
        action="`features_unavailable`: see fraud_features_unavailable_total; `incomplete_features`: an entity outgrew "
        "its state, see fraud_state_events_dropped_total; `model_failed`: the champion gave no score, see the log",
        cause=("incomplete_features", "stale_features", "features_unavailable", "model_failed"),
    )
    unknown_categories = counter(
        "fraud_unknown_categories_total",
        "payments",
        meaning="Payments whose merchant category is outside the vocabulary and was mapped to `other`",
        action="Grows: a sender uses new codes; map them or extend the vocabulary and retrain",
    )
    served_nulls = counter(
        "fraud_served_nulls_total",
        "values",
        meaning="Values of a column that were null in a vector the champion or challenger scored",
        action="Jumps for one against total_transactions: its source is dead; for all of a card: its state was lost",
        feature="the model's columns",
    )
    requests_refused = counter(
        "fraud_requests_refused_total",
        "requests",
        meaning="Requests refused before they were read, for what they proved of their sender",
        action="`expired`: renew the key; `rate`: raise it or ask its holder; `unknown_key` grows: someone guesses",
        reason=("no_key", "unknown_key", "expired", "scope", "rate"),
    )
    decisions_logged = counter(
        "fraud_decisions_logged_total",
        "decisions",
        meaning="Decisions written to the decision log",
        action="Falls behind total_transactions: the log's store is away; they are in the journal, see below",
    )
    decisions_journaled = counter(
        "fraud_decisions_journaled_total",
        "decisions",
        meaning="Decisions put on record in the local journal because the log's server did not answer",
        action="Grows: bring the log's server back; the journal is carried over by itself then",
    )
    journal_in_use = gauge(
        "fraud_journal_in_use",
        "1 or 0",
        meaning="1 while decisions go to the local journal, as the last worker to change over says",
        action="1 for long: the log's server is away, or a journaled entry cannot be carried over (service's log)",
    )
    decisions_repeated = counter(
        "fraud_decisions_repeated_total",
        "payments",
        meaning="Payments sent again with the same content, and given the answer that is on record",
        action="Many: a client's time-out is shorter than the answers take, or it retries without need",
    )
    decision_conflicts = counter(
        "fraud_decision_conflicts_total",
        "payments",
        meaning="Payments sent under an identifier that another payment has, or decided twice while the log was away",
        action="Grows: a sender reuses identifiers; it must give each payment its own",
    )
    control_group = counter(
        "fraud_control_group_total",
        "payments",
        meaning="Payments the model would have declined and the control group let pass, to learn what they were",
        action="More than share times declines: check FRAUD_CONTROL_SHARE; each may cost its amount",
    )
    breaker_open = gauge(
        "fraud_breaker_open",
        "1 or 0",
        mode="livemax",
        meaning="1 while any worker leaves the online store alone because it failed several times in a row",
        action="1: payments are decided without stored features; bring Redis back, it is tried each half second",
    )
