"""The pictures of an evaluation, as MLflow artifacts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay

Labels = npt.NDArray[np.int8]
Scores = npt.NDArray[np.float64]


def figures(name: str, fraud: Labels, scores: Scores, cuts: tuple[float, float]) -> dict[str, Figure]:
    """ROC, precision-recall, calibration and confusion at the review threshold, by file name."""
    share = float(fraud.mean())
    drawn: dict[str, Figure] = {}

    def canvas(file: str, title: str) -> Any:
        figure = Figure(figsize=(6, 5), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        axes.grid(alpha=0.3)
        drawn[file] = figure
        return axes

    RocCurveDisplay.from_predictions(fraud, scores, name=name, ax=canvas("roc.png", "ROC"), plot_chance_level=True)
    axes = canvas("precision_recall.png", f"Precision and recall ({share:.2%} fraud)")
    PrecisionRecallDisplay.from_predictions(fraud, scores, name=name, ax=axes, plot_chance_level=True)
    axes = canvas("calibration.png", "Calibration (ten groups of equal size)")
    CalibrationDisplay.from_predictions(fraud, scores, n_bins=10, strategy="quantile", name=name, ax=axes)
    axes.set(xscale="symlog", yscale="symlog", xlim=(0, 1), ylim=(0, 1))
    axes = canvas("confusion.png", f"Reviewed or declined from {cuts[0]:.4f} on")
    axes.grid(visible=False)
    ConfusionMatrixDisplay.from_predictions(
        fraud, scores >= cuts[0], display_labels=["legitimate", "fraud"], ax=axes, colorbar=False, values_format=","
    )
    return drawn


def importance(columns: tuple[str, ...], model: Any) -> Figure | None:
    """The twenty columns the model leans on most, where it says so; null for one that doesn't."""
    classifier = model.steps[-1][1] if hasattr(model, "steps") else model
    weights = getattr(classifier, "feature_importances_", None)
    if weights is None or len(weights) != len(columns):
        return None
    first = np.argsort(weights)[-20:]
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    axes.barh([columns[i] for i in first], weights[first])
    axes.set(title="Importance (share of the gain)", xlabel="share")
    axes.grid(axis="x", alpha=0.3)
    return figure
