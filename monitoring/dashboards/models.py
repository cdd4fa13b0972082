"""The dashboard of the models: who answers, live quality beside what was promised, the challenger."""

from __future__ import annotations

from collections.abc import Sequence

from monitoring.dashboards.panel import Dashboard, Panel, Query, Row
from monitoring.dashboards.queries import AUC_LIMITS, by, rate, since_it_began

QUALITY = (
    ("Precision", "precision", ()),
    ("Recall", "recall", ()),
    ("Average precision", "average_precision", ()),
    ("AUC-ROC", "auc_roc", AUC_LIMITS),
)


def live(title: str, metric: str, limits: Sequence[float] = ()) -> Panel:
    """A figure of live quality for both maturities, beside what the champion's test promised."""
    return Panel(
        title,
        [
            Query(f"max by (maturity) (fraud_live_{metric})", "{{maturity}}"),
            Query(f'max(fraud_live_promised{{metric="{metric}"}})', "promised"),
        ],
        "none",
        "`full`: all labels had time to come. `partial`: they still come. A full week is never held against a part.",
        limits=tuple(limits),
        low_is_bad=True,
        most=1,
    )


MODELS = Dashboard(
    "models",
    "Model quality",
    "Which model answers, what it decides, whether it keeps its promise, and what its challenger would have done.",
    [
        Row(
            "In service",
            [
                Panel(
                    "Versions",
                    [
                        Query(
                            "max by (model_name, version) (active_model_version) == 1",
                            "{{model_name}} version {{version}}",
                        )
                    ],
                    "none",
                    "What answers payments, and the fallback.",
                    "stat",
                    width=6,
                    height=6,
                    names=True,
                ),
                Panel(
                    "Registry and cache",
                    [
                        Query("min(fraud_registry_reachable)", "registry answers"),
                        Query("max by (role) (fraud_model_from_cache)", "{{role}} from the cache"),
                    ],
                    "bool_yes_no",
                    "Payments do not depend on the registry.",
                    width=6,
                    height=6,
                    most=1,
                ),
                Panel(
                    "Swaps and refusals",
                    [
                        by("role", "fraud_model_swaps_total"),
                        by("reason", "fraud_model_refusals_total"),
                        by("tag", "fraud_control_refusals_total"),
                    ],
                    "cps",
                    "Versions put in service, versions refused, tags refused.",
                    width=6,
                    height=6,
                ),
                Panel(
                    "Retraining and rollbacks",
                    [
                        since_it_began("fraud_retraining_triggered_total", "reason"),
                        since_it_began("fraud_rollbacks_total", "reason"),
                    ],
                    "none",
                    "How often, by reason, since the platform was made.",
                    "stat",
                    width=6,
                    height=6,
                ),
            ],
        ),
        Row(
            "What it decides",
            [
                Panel(
                    "Decisions by version",
                    [
                        Query(
                            "sum by (model_version, prediction) (rate(predictions_total[$__rate_interval]))",
                            "{{model_version}} {{prediction}}",
                        )
                    ],
                    "reqps",
                    "A version that should be gone and still counts: a worker missed the swap.",
                    stacked=True,
                ),
                Panel(
                    "Scores",
                    [Query("sum by (le) (increase(fraud_score_distribution_bucket[$__rate_interval]))", "{{le}}")],
                    "none",
                    "How many payments got which fraud probability.",
                    "heatmap",
                ),
                Panel(
                    "High-risk share",
                    [
                        Query("tollgate:high_risk:ratio15m", "15 minutes"),
                        Query("tollgate:high_risk:ratio1d", "a day"),
                        Query("3 * tollgate:high_risk:ratio1d", "spike from"),
                        Query("0.2 * tollgate:high_risk:ratio1d", "collapse below (an hour's)"),
                    ],
                    "percentunit",
                    "Against the day's own share.",
                ),
            ],
        ),
        Row(
            "Live quality",
            [
                *(live(title, metric, limits) for title, metric, limits in QUALITY),
                live("Calibration error", "calibration_error"),
                Panel(
                    "Cost",
                    [Query("max by (maturity) (fraud_live_cost)", "{{maturity}}")],
                    "none",
                    "A day's, in the currency of the amounts: missed fraud, reviews, honest payments declined.",
                ),
                Panel(
                    "Labelled share",
                    [Query("max by (maturity) (fraud_live_labelled_share)", "{{maturity}}")],
                    "percentunit",
                    "Falls for `full`: labels have stopped coming.",
                    most=1,
                ),
                Panel(
                    "Control group",
                    [rate("fraud_control_group_total", "let through by lot")],
                    "reqps",
                    "Would-be declines approved by lot, to see what becomes of them; 0 unless it is switched on.",
                ),
                Panel(
                    "Served values that history contradicts",
                    [Query("topk(10, max by (feature) (fraud_skew_mismatches))", "{{feature}}")],
                    "percentunit",
                    "Of the last skew audit; any is an alert.",
                    "bargauge",
                    (0.000001,),
                ),
                Panel(
                    "Audited vectors",
                    [Query("max(fraud_skew_audited)", "vectors")],
                    "short",
                    "0: nothing was compared, so no mismatch means nothing.",
                    "stat",
                ),
            ],
        ),
        Row(
            "Challenger",
            [
                Panel(
                    "Share of payments",
                    [
                        Query("max(fraud_challenger_weight)", "set"),
                        Query(
                            'sum(rate(fraud_role_scores_total{role="challenger"}[$__rate_interval]))'
                            " / (sum(rate(total_transactions_total[$__rate_interval])) > 0)",
                            "answered by it",
                        ),
                    ],
                    "percentunit",
                    "0 without a challenger.",
                    most=1,
                ),
                Panel(
                    "Shadow",
                    [
                        rate("fraud_shadow_scores_total", "scored"),
                        rate("fraud_shadow_disagreements_total", "another decision"),
                        rate("fraud_shadow_dropped_total", "dropped"),
                        rate("fraud_shadow_unrecorded_total", "not recorded"),
                    ],
                    "reqps",
                    "What the challenger would have said to the champion's payments.",
                ),
                Panel(
                    "Taken out",
                    [
                        Query("max by (reason) (fraud_challenger_out)", "{{reason}}"),
                        rate("fraud_challenger_failures_total", "failed runs/s"),
                    ],
                    "none",
                    "1 while the guard keeps it out, by reason.",
                ),
                Panel(
                    "Scores in shadow",
                    [
                        Query(
                            "sum by (le) (increase(fraud_shadow_score_distribution_bucket[$__rate_interval]))", "{{le}}"
                        )
                    ],
                    "none",
                    "What the challenger would have given; another shape than above: its thresholds differ as well.",
                    "heatmap",
                ),
            ],
        ),
    ],
)
