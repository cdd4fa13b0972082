"""The pictures of an evaluation, as MLflow artifacts: each says on its face what it is of, and on which days."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay

from training.comparison import shown
from training.costs import NEVER, Terms, days_of, savings
from training.evaluate import Scores

if TYPE_CHECKING:
    from training.fitting import Fitted

SIZE = (6.4, 4.8)
SHOWN_COLUMNS = 20
LEAST_GROUP = 20

Labels = npt.NDArray[np.int8]
PERCENT = PercentFormatter(1.0, decimals=0)


def pictures(fitted: Fitted, rows: pd.DataFrame, terms: Terms) -> dict[str, bytes]:
    """ROC, precision-recall, calibration, confusion and costs on the test days (`rows`), as PNG by file name.

    With them the columns that the model leans on most, where it says so.
    """
    fraud = rows["is_fraud"].to_numpy()
    drawn = {
        "roc.png": _roc(fitted, fraud),
        "precision_recall.png": _precision_recall(fitted, fraud),
        "calibration.png": _calibration(fitted, fraud),
        "confusion.png": _confusion(fitted, fraud),
        "costs.png": _costs(fitted, rows, terms),
    }
    leaning = importance(fitted)
    if leaning is not None:
        drawn["importance.png"] = leaning
    return {name: png(figure) for name, figure in drawn.items()}


def png(figure: Figure) -> bytes:
    """A figure as a picture."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=100)
    return out.getvalue()


def _canvas(title: str, size: tuple[float, float] = SIZE) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, layout="tight")
    axes = figure.subplots()
    axes.set_title(title)
    axes.grid(alpha=0.3)
    return figure, axes


def _said(fitted: Fitted, metric: str) -> str:
    return shown(metric, fitted.intervals[metric])


def _roc(fitted: Fitted, fraud: Labels) -> Figure:
    figure, axes = _canvas(f"{fitted.name}: AUC-ROC {_said(fitted, 'auc_roc')}")
    RocCurveDisplay.from_predictions(fraud, fitted.test_scores, ax=axes, plot_chance_level=True, name=fitted.name)
    axes.axvline(
        0.02,
        color="grey",
        linestyle=":",
        label=f"2 % FPR: recall {_said(fitted, 'recall_at_2_fpr')}",
    )
    axes.legend(loc="lower right")
    axes.set(xlabel="false positive rate", ylabel="recall (share of frauds found)")
    return figure


def _precision_recall(fitted: Fitted, fraud: Labels) -> Figure:
    figure, axes = _canvas(f"{fitted.name}: average precision {_said(fitted, 'average_precision')}")
    PrecisionRecallDisplay.from_predictions(fraud, fitted.test_scores, ax=axes, name=fitted.name)
    axes.axhline(fraud.mean(), color="black", linestyle="--", label=f"chance: {fraud.mean():.2%} are fraud")
    for name, cut in zip(("reviewed", "declined"), fitted.cuts, strict=True):
        stopped = fitted.test_scores >= cut
        if stopped.any():
            axes.plot(stopped[fraud == 1].mean(), fraud[stopped].mean(), "o", label=f"{name} from {cut:.3g} on")
    axes.legend(loc="lower left")
    axes.set(xlabel="recall (share of frauds found)", ylabel="precision (share of fraud among them)", ylim=(0, 1.02))
    return figure


def _calibration(fitted: Fitted, fraud: Labels) -> Figure:
    """Groups by rank, each half as large as the one below it: their mean score against their share of frauds."""
    figure, axes = _canvas(f"{fitted.name}: calibration error {_said(fitted, 'ece')}")
    least = 0.3 / len(fraud)
    for label, scores, marker in (("before", fitted.uncalibrated, "s--"), ("after", fitted.test_scores, "o-")):
        groups = _halving(scores)
        mean = [max(scores[group].mean(), least) for group in groups]
        share = [max(fraud[group].mean(), least) for group in groups]
        axes.plot(mean, share, marker, label=f"{label} calibration", alpha=0.8)
    axes.plot([least, 1], [least, 1], color="black", linestyle=":", label="as it should be")
    axes.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, 1))
    axes.set(xlabel="mean score of a group", ylabel="share of fraud in it (none: at the bottom)")
    axes.legend(loc="upper left")
    return figure


def _halving(scores: Scores) -> list[npt.NDArray[np.intp]]:
    order, groups = np.argsort(scores, kind="stable"), []
    while len(order) > 2 * LEAST_GROUP:
        middle = len(order) // 2
        groups.append(order[:middle])
        order = order[middle:]
    return [*groups, order]


def _confusion(fitted: Fitted, fraud: Labels) -> Figure:
    review, decline = fitted.cuts
    figure, axes = _canvas(f"{fitted.name}: reviewed from {review:.4g}, declined from {decline:.4g}")
    axes.grid(visible=False)
    ConfusionMatrixDisplay.from_predictions(
        fraud,
        fitted.test_scores >= min(review, decline),
        display_labels=["legitimate", "fraud"],
        ax=axes,
        colorbar=False,
        values_format=",",
        cmap="Blues",
    )
    axes.set(xlabel="approved   |   reviewed or declined", ylabel="what it was", xticklabels=["passed", "stopped"])
    return figure


def _costs(fitted: Fitted, rows: pd.DataFrame, terms: Terms) -> Figure:
    """What is saved if the most suspect payments are reviewed, or declined, by how many they are."""
    figure, axes = _canvas(f"{fitted.name}: saved {_said(fitted, 'cost_saved_share')} of what approving all costs")
    reviewed, declined = savings(rows, fitted.test_scores, terms.matrix)
    days, at_stake = days_of(rows), terms.matrix.approved(rows).sum()
    last = min(len(rows), max(int(0.1 * len(rows)), 10))
    stopped = np.arange(1, last + 1) / days
    axes.plot(stopped, reviewed[1 : last + 1] / at_stake, label="if all of them are reviewed")
    axes.plot(stopped, declined[1 : last + 1] / at_stake, label="if all of them are declined")
    axes.axhline(fitted.test["cost_saved_share"], color="C2", label="by the thresholds")
    for name, cut, style in zip(("reviewed", "declined"), fitted.cuts, ("--", ":"), strict=True):
        if cut < NEVER:
            axes.axvline((fitted.test_scores >= cut).sum() / days, color="C2", linestyle=style, label=f"{name} up to")
    most = (fitted.test_scores >= fitted.cuts[1]).sum() / days + terms.capacity(rows)
    axes.axvline(most, color="grey", alpha=0.5, linewidth=4, label="declined and all that people can see", zorder=0)
    low = min(0.0, float(fitted.test["cost_saved_share"]))
    axes.set(xlabel="payments stopped a day, the most suspect first", ylabel="saved, of what approving all costs")
    axes.set(xscale="log", ylim=(low - 0.25, 1.0))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(PERCENT)
    axes.legend(loc="lower left", fontsize="small")
    return figure


def importance(fitted: Fitted) -> Figure | None:
    """The columns the model leans on most, where it says so itself; null for one that doesn't."""
    own = getattr(fitted.model, "feature_importances_", None)
    if own is None:
        return None
    return bars(fitted.contract.columns, own / own.sum(), f"{fitted.name}: importance, as the model says", "share")


def bars(columns: tuple[str, ...], weights: npt.NDArray[np.float64], title: str, unit: str) -> Figure:
    """The columns of the largest weights, the largest on top."""
    first = np.argsort(weights, kind="stable")[-SHOWN_COLUMNS:]
    figure, axes = _canvas(title, (7, 6))
    axes.barh([columns[place] for place in first], weights[first])
    axes.set(xlabel=unit)
    axes.grid(visible=False, axis="y")
    return figure
