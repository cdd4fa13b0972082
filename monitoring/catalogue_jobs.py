"""What jobs find in the decision log and history, exported by the monitor out of `job_results`."""

from __future__ import annotations

from monitoring.declaration import counter, gauge

JOB = "the monitor's table of jobs"
DRIFTED = "the model's columns, `<column> is null`, `score`, `decision`, `is_fraud`"


class JobMetrics:
    """Written by jobs and commands with `monitoring.job_results`."""

    feature_drift = gauge(
        "fraud_feature_drift",
        "distance",
        meaning="Drift of a column by the last report: Wasserstein of normal scores for numbers, else Jensen-Shannon",
        action="Above 0.15 watch, above 0.20 act: open the drift report, find the cause, retrain if it stays",
        feature=DRIFTED,
    )
    feature_drift_threshold = gauge(
        "fraud_feature_drift_threshold",
        "distance",
        meaning="The drift from which a column counts as drifted: what matters, or what chance reaches if that is more",
        action="Above 0.15: the last report had few rows, and a drift below it says nothing; wait for more decisions",
        feature=DRIFTED,
    )
    drift_share = gauge(
        "fraud_drift_share",
        "share of columns, 0..1",
        meaning="Share of the tested columns that drifted, by the last report",
        action="Many at once is a broken pipeline rather than a changed world: check freshness and nulls first",
    )
    score_drift = gauge(
        "fraud_score_drift",
        "distance",
        meaning="Drift of the fraud probability against the reference, by the last report",
        action="Above 0.15 watch, above 0.20 act: without drifted features the model was changed, else see those",
    )
    decision_drift = gauge(
        "fraud_decision_drift",
        "distance",
        meaning="Drift of the shares of approve, review and decline against the reference, by the last report",
        action="Above 0.15 watch, above 0.20 act: compare with the score's drift; alone it is a moved threshold",
    )
    label_drift = gauge(
        "fraud_label_drift",
        "distance",
        meaning="Drift of the share of fraud among known labels against the reference, by the last report",
        action="Above 0.15 watch, above 0.20 act: an attack, or feedback that stopped or doubled",
    )
    feature_nulls = gauge(
        "fraud_feature_nulls",
        "share of vectors, 0..1",
        meaning="Share of the served vectors in the drift job's window in which a feature was null",
        action="Jumps for one: its source is dead; for all stored ones: Redis was away or entities are new",
        feature="the model's columns",
    )
    skew_mismatches = gauge(
        "fraud_skew_mismatches",
        "share of vectors, 0..1",
        meaning="Share of the audited vectors whose value, recomputed from history, is another than the one served",
        action="Above 0: read the audit's examples; serving and training disagree on this feature",
        feature="the model's columns",
    )
    skew_audited = gauge(
        "fraud_skew_audited",
        "vectors",
        meaning="Served vectors that the last skew audit recomputed",
        action="0: nothing was compared, so that no mismatch means nothing; read the audit's log",
    )
    retraining_triggered = counter(
        "fraud_retraining_triggered_total",
        "rounds",
        meaning="Rounds of retraining begun, by the trigger that fired",
        action="Grows fast: the trigger fires again after each round; what it measures was not mended by training",
        reason=("schedule", "drift", "performance", "force"),
    )
    rollbacks = counter(
        "fraud_rollbacks_total",
        "rollbacks",
        meaning="Champions taken back, by cause",
        action="Read the reason on record in the model version's tags before promoting again",
        reason=("manual", "live_quality"),
    )


class MonitorMetrics:
    """How the monitor's jobs went; set by the monitor."""

    job_last_success = gauge(
        "fraud_job_last_success_timestamp_seconds",
        "seconds since 1970",
        meaning="When a job of the monitor last ended well",
        action="Older than twice its period: read the job's log in the platform's home",
        job=JOB,
    )
    job_duration = gauge(
        "fraud_job_duration_seconds",
        "seconds",
        meaning="How long a job's last run took",
        action="Near its period: it falls behind; sample less or run it less often",
        job=JOB,
    )
    job_failed = gauge(
        "fraud_job_failed",
        "1 or 0",
        meaning="1 if a job's last run failed; its figures are those of the run before",
        action="1: read the job's log in the platform's home",
        job=JOB,
    )
    job_failures = counter(
        "fraud_job_failures_total",
        "runs",
        meaning="Runs of a job that failed since the monitor started",
        action="Grows: read the job's log in the platform's home",
        job=JOB,
    )
