"""What the labels that have come say of the decisions made: figures of the job `quality_job`."""

from __future__ import annotations

from monitoring.declaration import gauge

MATURITY = ("full", "partial")


class QualityMetrics:
    """Exported by the monitor out of `job_results`. A week half labelled is never held against a full one."""

    live_precision = gauge(
        "fraud_live_precision",
        "share, 0..1",
        meaning="Share of the flagged payments that were fraud, by the labels known so far",
        action="Below fraud_live_promised: read the drift report, then consider retraining or rolling back",
        maturity=MATURITY,
    )
    live_recall = gauge(
        "fraud_live_recall",
        "share, 0..1",
        meaning="Share of the known frauds that were flagged",
        action="Below fraud_live_promised: fraud has changed or features are broken; read the drift report",
        maturity=MATURITY,
    )
    live_average_precision = gauge(
        "fraud_live_average_precision",
        "0..1",
        meaning="Area under precision and recall of the scores given, by the labels known so far",
        action="Below fraud_live_promised by more than its margin: retrain",
        maturity=MATURITY,
    )
    live_auc_roc = gauge(
        "fraud_live_auc_roc",
        "0..1",
        meaning="AUC-ROC of the scores given, by the labels known so far",
        action="Below 0.80 watch, below 0.75 act: compare with drift and skew, retrain or roll back",
        maturity=MATURITY,
    )
    live_calibration_error = gauge(
        "fraud_live_calibration_error",
        "probability, 0..1",
        meaning="Mean distance between the probability given and the share of fraud found, over bins of scores",
        action="Grows: thresholds no longer mean what they cost; calibrate anew",
        maturity=MATURITY,
    )
    live_cost = gauge(
        "fraud_live_cost",
        "currency units per day",
        meaning="What the decisions cost per day: missed fraud, reviews and honest payments declined",
        action="Rises: see whether missed fraud or reviews carry it; adapt the threshold or retrain",
        maturity=MATURITY,
    )
    live_promised = gauge(
        "fraud_live_promised",
        "as the metric named",
        meaning="What the champion's own test promised for a metric of live quality",
        action="The line that the live figure is held against; it moves with a promotion alone",
        metric=("precision", "recall", "average_precision", "auc_roc", "calibration_error", "cost"),
    )
    live_labelled_share = gauge(
        "fraud_live_labelled_share",
        "share of payments, 0..1",
        meaning="Share of the window's payments whose label is known",
        action="Falls for `full`: labels stopped coming; read the log of the feedback job",
        maturity=MATURITY,
    )
