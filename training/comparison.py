"""Figures of models as people read them: with their bounds, side by side, in a terminal or in Markdown."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from rich import box
from rich.table import Table

from training.fitting import Fitted
from training.intervals import Interval

COMPARED = ("auc_roc", "average_precision", "precision_at_90_recall", "recall_at_2_fpr", "card_precision_100",
            "cost_saved_share")  # fmt: skip

TITLES = {
    "auc_roc": "AUC-ROC",
    "average_precision": "average precision",
    "precision_at_90_recall": "precision at 90 % recall",
    "recall_at_2_fpr": "recall at 2 % FPR",
    "card_precision_100": "card precision@100",
    "brier": "Brier score",
    "log_loss": "log loss",
    "ece": "calibration error",
    "precision": "precision of what is stopped",
    "recall": "recall of what is stopped",
    "stopped_share": "share stopped",
    "cost_saved": "cost saved",
    "cost_saved_share": "cost saved, share",
}

SHORT = {
    "auc_roc": "AUC-ROC",
    "average_precision": "average\nprecision",
    "precision_at_90_recall": "precision at\n90 % recall",
    "recall_at_2_fpr": "recall at\n2 % FPR",
    "card_precision_100": "card\nprecision@100",
    "cost_saved_share": "cost\nsaved",
}


def pipes(table: pd.DataFrame) -> str:
    """A table of text as Markdown."""
    head = [table.index.name or "", *table.columns]
    rows = [
        head,
        ["---", *["---:"] * len(table.columns)],
        *([str(name), *row] for name, row in zip(table.index, table.values.tolist(), strict=True)),
    ]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)


def three(interval: Interval) -> str:
    """Three digits, with the bounds."""
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def percent(interval: Interval) -> str:
    """In percent, with the bounds."""
    return f"{interval.value:.0%} [{interval.low:.0%}, {interval.high:.0%}]"


def shown(name: str, interval: Interval) -> str:
    """A figure with its bounds, in as many digits as it deserves."""
    if name == "cost_saved":
        return f"{interval.value:,.0f} [{interval.low:,.0f}, {interval.high:,.0f}]"
    if name in ("brier", "log_loss", "ece", "stopped_share"):
        return f"{interval.value:.5f} [{interval.low:.5f}, {interval.high:.5f}]"
    return percent(interval) if name == "cost_saved_share" else three(interval)


def side_by_side(fitted: Mapping[str, Fitted], champion: str, said: str) -> Table:
    """The candidates of a round for a terminal of 110 columns; the bounds stand below the values.

    `said` is what the best by the earlier fold is called.
    """
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, caption="95 % intervals over whole cards", caption_justify="left"
    )
    table.add_column("model")
    for metric in COMPARED:
        table.add_column(SHORT[metric], justify="right")
    for name, each in fitted.items():
        best = name == champion
        cells = [_lines(metric, each.intervals[metric], best) for metric in COMPARED]
        table.add_row(f"[bold]{name}\n◀ {said}[/]" if best else name, *cells)
    return table


def _lines(metric: str, interval: Interval, best: bool) -> str:
    share = metric == "cost_saved_share"
    value, low, high = (f"{x:.0%}" if share else f"{x:.3f}" for x in (interval.value, interval.low, interval.high))
    return f"[bold]{value}[/]\n[dim]{low}–{high}[/]" if best else f"{value}\n[dim]{low}–{high}[/]"


def note(fitted: Mapping[str, Fitted], champion: str) -> str:
    """The candidates of a round side by side, for its page in MLflow."""
    rows = {
        f"**{name}** (best on the earlier fold)" if name == champion else name: [
            (percent if metric == "cost_saved_share" else three)(each.intervals[metric]) for metric in COMPARED
        ]
        for name, each in fitted.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[TITLES[metric] for metric in COMPARED])
    return f"On the test days, with 95 % intervals:\n\n{pipes(table)}\n"
