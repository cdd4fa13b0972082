"""The dashboard of drift, and of the jobs that look for it."""

from __future__ import annotations

from monitoring.dashboards.panel import Dashboard, Panel, Query, Row
from monitoring.dashboards.queries import DRIFT_LIMITS

DRIFT = Dashboard(
    "drift",
    "Drift",
    "How far payments, scores, decisions and labels are from what the champion was trained on, by the last report.",
    [
        Row(
            "At a glance",
            [
                Panel(
                    "Columns drifted",
                    [Query("max(fraud_drift_share)")],
                    "percentunit",
                    "By their own thresholds; an alert at 30 %.",
                    "stat",
                    (0.1, 0.3),
                    4,
                    8,
                    1,
                ),
                Panel(
                    "Score, decisions, labels",
                    [
                        Query("max(fraud_score_drift)", "score"),
                        Query("max(fraud_decision_drift)", "decisions"),
                        Query("max(fraud_label_drift)", "labels"),
                    ],
                    "none",
                    "Above 0.15 watch, above 0.20 act.",
                    limits=DRIFT_LIMITS,
                    width=10,
                ),
                Panel(
                    "Most drifted",
                    [Query("topk(10, max by (feature) (fraud_feature_drift))", "{{feature}}")],
                    "none",
                    "Ten columns, whether or not chance explains it.",
                    "bargauge",
                    DRIFT_LIMITS,
                    10,
                ),
            ],
        ),
        Row(
            "Columns",
            [
                Panel(
                    "Drift",
                    [Query('max by (feature) (fraud_feature_drift{feature=~"$feature"})', "{{feature}}")],
                    "none",
                    "Wasserstein of normal scores for numbers, Jensen-Shannon for categories.",
                    limits=DRIFT_LIMITS,
                    width=12,
                ),
                Panel(
                    "Beyond chance",
                    [
                        Query(
                            'max by (feature) (fraud_feature_drift{feature=~"$feature"}'
                            " / fraud_feature_drift_threshold)",
                            "{{feature}}",
                        )
                    ],
                    "none",
                    "Drift over the threshold of its column, which few rows raise: 1 and more counts as drifted.",
                    limits=(1.0,),
                    width=12,
                ),
                Panel(
                    "Nulls",
                    [Query('topk(10, max by (feature) (fraud_feature_nulls{feature=~"$feature"}))', "{{feature}}")],
                    "percentunit",
                    "Share of the vectors in the report's window in which a feature was null.",
                    "bargauge",
                    width=12,
                    most=1,
                ),
                Panel(
                    "Average amount",
                    [Query("max(avg_transaction_amount)", "mean of the last 1,000")],
                    "none",
                    "Live; the report tells of days.",
                    width=12,
                ),
            ],
        ),
        Row(
            "The jobs that look",
            [
                Panel(
                    "Last success",
                    [Query("time() - max by (job) (fraud_job_last_success_timestamp_seconds)", "{{job}} ago")],
                    "s",
                    "An alert at 26 hours.",
                    limits=(26 * 3600.0,),
                ),
                Panel(
                    "Duration", [Query("max by (job) (fraud_job_duration_seconds)", "{{job}}")], "s", "Of the last run."
                ),
                Panel(
                    "Failed",
                    [Query("max by (job) (fraud_job_failed)", "{{job}}")],
                    "bool_yes_no",
                    "Whether the last run failed; its figures are those of the run before.",
                    "bargauge",
                    (1.0,),
                    most=1,
                ),
            ],
        ),
    ],
    {"feature": "label_values(fraud_feature_drift, feature)"},
)
