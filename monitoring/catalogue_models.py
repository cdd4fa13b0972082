"""What the service tells of its models: who is in service, and how the challenger does."""

from __future__ import annotations

from monitoring.catalogue_service import SCORES
from monitoring.declaration import counter, gauge, histogram


class ModelMetrics:
    """Set by the workers of `bentos.service`."""

    predictions = counter(
        "predictions_total",
        "predictions",
        meaning="Predictions given, by model version and decision",
        action="A version that should be gone still counts: a worker missed the swap, restart it",
        model_version="registered versions in use, or `fallback`",
        prediction=("approve", "review", "decline"),
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
        role=("champion", "challenger", "fallback"),
    )
    model_refusals = counter(
        "fraud_model_refusals_total",
        "versions",
        meaning="Registered versions refused, by reason; the one in service stayed",
        action="Read /model or the service's log for the version; register it anew, or point the alias back",
        reason=("absent", "contract", "files", "evidence", "warm_up", "parity"),
    )
    control_refusals = counter(
        "fraud_control_refusals_total",
        "tags",
        meaning="Registry tags with a value that is none, by tag; the last valid one stays in force",
        action="Set the tag again with `python -m monitoring.traffic`",
        tag=("tollgate.challenger_weight", "tollgate.shadow"),
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
        reason=("failures", "slow"),
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
        role=("champion", "challenger"),
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
    model_from_cache = gauge(
        "fraud_model_from_cache",
        "1 or 0",
        mode="livemax",
        meaning="1 while any worker serves a version out of its cache because MLflow did not answer at the start",
        action="1: bring MLflow back; until then no new version is seen",
        role=("champion", "fallback"),
    )
