"""Every metric of the platform: what it is called, what it means, and what to do when it is wrong.

Invariant: whatever any part exports is an entry here, and a label has few values (never a card, merchant or payment).

    from monitoring.metrics import metrics
    metrics.predictions.labels(model_version="3", prediction="review").inc()

`python -m monitoring.metrics` prints the catalogue as a Markdown table.
"""

from __future__ import annotations

from collections.abc import Iterable

from monitoring.declaration import counter, declared, gauge, histogram

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5)
FRESHNESS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
AGES = (60.0, 300.0, 3_600.0, 21_600.0, 86_400.0, 259_200.0, 604_800.0, 2_592_000.0)
SCORES = tuple(round(0.05 * step, 2) for step in range(21))
AMOUNT_MEMORY = 1_000
"""Payments over which the average amount forgets: the weight of one falls to 1/e that many payments later."""


class Catalogue:
    """The declared metrics; use the process's one instance, `metrics`, on which an entry is its live object."""

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
    predictions = counter(
        "predictions_total",
        "predictions",
        meaning="Predictions given, by model version and decision",
        action="A version that should be gone still counts: a worker missed the swap, restart it",
        model_version="registered versions in use, or `fallback`",
        prediction="approve, review, decline",
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
        error_type="a fixed list in the service: invalid_input, feature_store, model, decision_log, internal, ...",
    )
    active_model_version = gauge(
        "active_model_version",
        "1 or 0",
        meaning="1 for the version being served, 0 for one served earlier",
        action="Not the registry's champion: read /model and the service's log for a refused model",
        model_name="the registered model's name",
        version="registered versions",
    )
    registry_reachable = gauge(
        "fraud_registry_reachable",
        "1 or 0",
        meaning="Whether MLflow answered the last poll; answers to payments do not depend on it",
        action="0: new versions and traffic tags wait; check MLflow, the model in service stays",
    )
    model_swaps = counter(
        "fraud_model_swaps_total",
        "swaps",
        meaning="Versions put in service, by role; each worker counts its own",
        action="Grows without a promotion: something moves the aliases, look at the registry's history",
        role="champion, challenger, fallback",
    )
    model_refusals = counter(
        "fraud_model_refusals_total",
        "versions",
        meaning="Registered versions refused, by reason; the one in service stayed",
        action="Read /model or the service's log for the version; register it anew, or point the alias back",
        reason="a fixed list in the service: absent, contract, files, evidence, warm_up, parity",
    )
    control_refusals = counter(
        "fraud_control_refusals_total",
        "tags",
        meaning="Registry tags with a value that is none, by tag; the last valid one stays in force",
        action="Set the tag again with `python -m monitoring.traffic`",
        tag="tollgate.challenger_weight, tollgate.shadow",
    )
    challenger_weight = gauge(
        "fraud_challenger_weight",
        "share of payments, 0..1",
        meaning="Share of the payments that the challenger answers; 0 without one",
        action="Not what was set: the challenger is out or was refused, see /model",
    )
    challenger_out = gauge(
        "fraud_challenger_out",
        "1 or 0",
        meaning="1 while the guard keeps the challenger out of service, by reason",
        action="Read the service's log; then a new version, or `python -m monitoring.traffic --challenger-back`",
        reason="failures, slow",
    )
    challenger_failures = counter(
        "fraud_challenger_failures_total",
        "runs",
        meaning="Runs of the challenger that gave no scores; the champion answered in its place",
        action="Read the error in the service's log; the guard takes it out when they go on",
    )
    role_scores = counter(
        "fraud_role_scores_total",
        "payments",
        meaning="Payments scored while a challenger had a share of them, by the role that answered",
        action="The share of `challenger` is not the weight: it fails, or few payments came yet",
        role="champion, challenger",
    )
    shadow_scores = counter(
        "fraud_shadow_scores_total",
        "payments",
        meaning="Payments the challenger scored in the champion's shadow",
        action="No growth with a challenger and shadow on: see fraud_shadow_dropped_total and /model",
    )
    shadow_disagreements = counter(
        "fraud_shadow_disagreements_total",
        "payments",
        meaning="Shadow scores that lead to another decision than the champion's",
        action="Large against fraud_shadow_scores_total: compare the two versions before promoting",
    )
    shadow_dropped = counter(
        "fraud_shadow_dropped_total",
        "payments",
        meaning="Payments not scored in shadow because too many waited",
        action="Grows: the challenger is slower than payments come; the comparison is of a sample",
    )
    shadow_unrecorded = counter(
        "fraud_shadow_unrecorded_total",
        "payments",
        meaning="Shadow scores that did not reach their stream; the answers were not affected",
        action="Grows: Redis is away or slow; comparisons lack these payments",
    )
    shadow_score = histogram(
        "fraud_shadow_score_distribution",
        "probability",
        SCORES,
        meaning="Fraud probability the challenger gave in shadow",
        action="Another shape than fraud_score_distribution: the thresholds of the two will differ as well",
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
    features_unavailable = counter(
        "fraud_features_unavailable_total",
        "reads",
        meaning="Reads of the online store that failed or took longer than the feature budget, by cause",
        action="`timeout`: Redis or the network is slow; `error`: it is away; `open`: not tried, it failed just before",
        cause="timeout, error, open, unreadable",
    )
    degraded_answers = counter(
        "fraud_degraded_answers_total",
        "payments",
        meaning="Payments decided on less than the model's full input, by cause; the answer says so too",
        action="`features_unavailable`: see fraud_features_unavailable_total; `incomplete_features`: an entity outgrew "
        "its state, see fraud_state_events_dropped_total; `model_failed`: the champion gave no score, see the log",
        cause="a fixed list in bentos/answers.py",
    )
    requests_refused = counter(
        "fraud_requests_refused_total",
        "requests",
        meaning="Requests refused before they were read, for what they proved of their sender",
        action="`expired`: renew the key; `rate`: raise it or ask its holder; `unknown_key` grows: someone guesses",
        reason="no_key, unknown_key, expired, scope, rate",
    )
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
        outcome="added, repeated, conflict",
    )
    feedback_carried = counter(
        "fraud_feedback_carried_total",
        "statements",
        meaning="Statements about payments, by what became of them in the label history",
        action="`unmatched` grows: a sender names payments that were not decided here; read the stream `feedback.dead`",
        outcome="labelled, unmatched",
    )
    unknown_categories = counter(
        "fraud_unknown_categories_total",
        "payments",
        meaning="Payments whose merchant category is outside the vocabulary and was mapped to `other`",
        action="Grows: a sender uses new codes; map them or extend the vocabulary and retrain",
    )
    stream_events = counter(
        "fraud_stream_events_total",
        "events",
        meaning="Events the stream job took from the log, by what became of them",
        action="No growth: the job stands still; many duplicates: a producer retries, or a replay is running",
        outcome="applied, duplicate, dead",
    )
    dead_letters = counter(
        "fraud_dead_letters_total",
        "events",
        meaning="Events put aside, by reason",
        action="Read the dead-letter stream: `late` is a slow producer, `invalid` a changed schema",
        reason="a fixed list in the stream job: invalid, late, ...",
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
    feature_drift = gauge(
        "fraud_feature_drift",
        "distance",
        meaning="Drift of a column by the last report: normed Wasserstein for numbers, Jensen-Shannon for categories",
        action="Above 0.15 watch, above 0.20 act: open the drift report, find the cause, retrain if it stays",
        feature="the model's columns, `<column> is null`, the score",
    )
    drift_share = gauge(
        "fraud_drift_share",
        "share of columns, 0..1",
        meaning="Share of the tested columns that drifted, by the last report",
        action="Many at once is a broken pipeline rather than a changed world: check freshness and nulls first",
    )


metrics = Catalogue()
"""The live metrics of this process, in prometheus_client's default registry."""


def decayed_mean(mean: float, weight: float, amounts: Iterable[float]) -> tuple[float, float]:
    """Continue an exponentially weighted mean (start: 0, 0), newest amount last; returns the new mean and weight.

    The weight makes it an exact mean at the start instead of one pulled towards 0.
    """
    keep = 1.0 - 1.0 / AMOUNT_MEMORY
    for amount in amounts:
        weight = weight * keep + 1.0
        mean += (amount - mean) / weight
    return mean, weight


_amount_state = (0.0, 0.0)


def record_amounts(amounts: Iterable[float]) -> None:
    """Take the amounts of scored payments into `average_amount`.

    Each worker keeps its own mean of the payments it sees and the last one to write is exported: every worker's is an
    estimate of the same mean, where a sum over workers would not be a mean at all.
    """
    global _amount_state
    _amount_state = decayed_mean(*_amount_state, amounts)
    metrics.average_amount.set(_amount_state[0])


def markdown() -> str:
    """The catalogue as a Markdown table, one row per metric."""
    lines = ["| metric | type | labels | unit | meaning | when it is wrong |", "|---|---|---|---|---|---|"]
    for entry in declared(Catalogue):
        labels = "<br>".join(f"`{label}`: {bound}" for label, bound in entry.labels.items()) or "–"
        lines.append(f"| `{entry.name}` | {entry.kind} | {labels} | {entry.unit} | {entry.meaning} | {entry.action} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
