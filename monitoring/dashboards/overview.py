"""The dashboard for whoever is on call."""

from __future__ import annotations

from monitoring.dashboards.now import NOW
from monitoring.dashboards.panel import Dashboard, Panel, Query, Row
from monitoring.dashboards.queries import AUC_LIMITS, DRIFT_LIMITS, ERROR_LIMITS, LATENCY_LIMITS, by, quantiles

OVERVIEW = Dashboard(
    "overview",
    "Overview",
    "Is it up, is it fast, are the features fresh, does the model still catch fraud: one page for whoever is on call.",
    [
        NOW,
        Row(
            "Payments",
            [
                Panel(
                    "Decisions",
                    [by("prediction", "predictions_total")],
                    "reqps",
                    "Approved, sent to review, declined.",
                    width=12,
                    stacked=True,
                ),
                Panel(
                    "Latency",
                    quantiles("prediction_latency_seconds", 0.5, 0.95, 0.99),
                    "s",
                    "The lines are the thresholds of the alerts: 100 and 200 ms.",
                    limits=LATENCY_LIMITS,
                    width=12,
                ),
                Panel(
                    "High-risk share",
                    [Query("tollgate:high_risk:ratio15m", "15 minutes"), Query("tollgate:high_risk:ratio1d", "a day")],
                    "percentunit",
                    "A spike is three times the day's share, a collapse a fifth of it.",
                ),
                Panel(
                    "Without a decision",
                    [Query("tollgate:errors:ratio5m", "errors"), Query("tollgate:degraded:ratio5m", "degraded")],
                    "percentunit",
                    "Shares of the payments; the lines are 1 % and 5 %.",
                    limits=ERROR_LIMITS,
                ),
                Panel(
                    "Average amount",
                    [Query("max(avg_transaction_amount)", "mean of the last 1,000")],
                    "none",
                    "A factor of 100 is a sender that changed its unit.",
                ),
            ],
        ),
        Row(
            "Parts and model",
            [
                Panel(
                    "Parts",
                    [Query('min by (job) (up{job=~"tollgate-.*"})', "{{job}}")],
                    "bool_on_off",
                    "What answers a scrape.",
                    "bargauge",
                    (1.0,),
                    low_is_bad=True,
                    most=1,
                ),
                Panel(
                    "Model in service",
                    [
                        Query(
                            "max by (model_name, version) (active_model_version) == 1",
                            "{{model_name}} version {{version}}",
                        )
                    ],
                    "none",
                    "What answers payments, and the fallback.",
                    "stat",
                    names=True,
                ),
                Panel(
                    "Live quality",
                    [
                        Query('max(fraud_live_auc_roc{maturity="full"})', "AUC-ROC"),
                        Query('max(fraud_live_average_precision{maturity="full"})', "average precision"),
                    ],
                    "none",
                    "On payments whose labels had all time to come. AUC-ROC: below 0.80 watch, below 0.75 act.",
                    limits=AUC_LIMITS,
                    low_is_bad=True,
                    most=1,
                ),
                Panel(
                    "Largest drift",
                    [Query("topk(5, tollgate:drift)", "{{feature}}")],
                    "none",
                    "By the last report; above 0.15 watch, above 0.20 act.",
                    "bargauge",
                    DRIFT_LIMITS,
                ),
                Panel(
                    "Jobs: last success",
                    [Query("time() - max by (job) (fraud_job_last_success_timestamp_seconds)", "{{job}}")],
                    "s",
                    "How long ago; an alert at 26 hours.",
                    "bargauge",
                    (14 * 3600.0, 26 * 3600.0),
                ),
                Panel(
                    "Alerts",
                    [
                        Query(
                            'ALERTS{alertstate="firing"}'
                            ' or label_replace(0 * count(tollgate:payments:rate5m), "alertname", "none", "", "")'
                        )
                    ],
                    "none",
                    "Each with its labels; the row `none` with 0 stands where nothing fires.",
                    "table",
                ),
            ],
        ),
    ],
)
