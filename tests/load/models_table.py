"""The report on models as a table: every model beside what was published, and the goals.

Invariant: every line is a function of the report alone, as in `tests.load.table`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.table import Table

from tests.load.models_published import BEST, MARGIN, METRICS, PUBLISHED, SYNTHETIC_GOALS
from tests.load.table import Line, Report, drawn, written

SHORT = {
    "auc_roc": "AUC-ROC",
    "average_precision": "average precision",
    "card_precision_100": "card precision@100",
    "precision_at_90_recall": "precision at 90 % recall",
    "recall_at_2_fpr": "recall at 2 % FPR",
}
TITLES = {
    "handbook_ch3": "Handbook, chapter 3",
    "handbook_folds": "Handbook, four folds",
    "sparkov": "Sparkov",
    "synthetic": "synthetic",
}
LINEAR = "logistic_regression"
OVERHEAD = 1.10
"""Our training may take so many times as long as the plain library's on the same matrix."""

Figures = Mapping[str, Any]


def lines(report: Report) -> list[Line]:
    """A line for each figure that the report has."""
    found: list[Line] = []
    for part, make in PARTS.items():
        if "missing" in report.get(part, ()):
            found.append(Line(TITLES[part], report[part]["missing"]))
        elif part in report:
            found += make(part, report)
    return found


def _told(figures: Figures, metrics: tuple[str, ...] = METRICS) -> str:
    return " ".join(_figure(figures[metric]) for metric in metrics)


def _figure(value: Any) -> str:
    return f"{value[0]:.3f}±{value[1]:.3f}" if isinstance(value, list) else f"{value:.3f}"


def _mean(value: Any) -> float:
    return float(value[0] if isinstance(value, list) else value)


def _best(models: Mapping[str, Figures], metric: str) -> tuple[str, float]:
    name = max(models, key=lambda model: _mean(models[model][metric]))
    return name, _mean(models[name][metric])


def _models(part: str, report: Report) -> Iterator[Line]:
    yield Line(TITLES[part], "AUC AP CP@100")
    for name, figures in report[part].items():
        yield Line(f"  {name}", _told(figures))
    for name, row in PUBLISHED.get(part, {}).items():
        yield Line(f"  published: {name}", "", _told(dict(zip(METRICS, row, strict=True))))
    if part in report.get("ceiling", {}):
        yield Line("  an oracle that knows the generator", "", _told(report["ceiling"][part]))


def _handbook(part: str, report: Report) -> Iterator[Line]:
    yield from _models(part, report)
    for metric, margin in MARGIN.items():
        name, value = _best(report[part], metric)
        peer = BEST[part][metric]
        what, goal = f"  best {SHORT[metric]}: {name}", peer + margin
        yield Line(what, f"{value:.3f}", f"{peer:.3f}", f"{value - peer:+.3f}", f">= {goal:.3f}", value >= goal)


def _synthetic(part: str, report: Report) -> Iterator[Line]:
    yield from _models(part, report)
    linear = report[part].get(LINEAR)
    if part in report.get("ceiling", {}):
        yield Line("  the oracle, in the four goals below", _told(report["ceiling"][part], tuple(SYNTHETIC_GOALS)))
    measured = set.intersection(*(set(figures) for figures in report[part].values()))
    for metric, goal in SYNTHETIC_GOALS.items():
        if metric not in measured:
            yield Line(f"  {SHORT[metric]}", "not measured", goal=f"> {goal:.2f}", met=False)
            continue
        name, value = _best(report[part], metric)
        peer = f"{linear[metric]:.3f} linear" if linear else ""
        yield Line(f"  {SHORT[metric]}: {name}", f"{value:.3f}", peer, goal=f"> {goal:.2f}", met=value > goal)
    if linear:
        missed = [metric for metric, goal in SYNTHETIC_GOALS.items() if metric in measured and linear[metric] <= goal]
        what = "  goals that a linear model misses"
        yield Line(what, f"{len(missed)} of {len(SYNTHETIC_GOALS)}", goal=">= 1", met=bool(missed))


def _training(part: str, report: Report) -> Iterator[Line]:
    for name, figures in report[part].items():
        ours, plain = figures["seconds"], figures["plain_seconds"]
        ratio = ours / plain
        what = f"training {name}, s"
        yield Line(what, f"{ours:.2f}", f"{plain:.2f}", f"{ratio:.2f}", f"<= {OVERHEAD:.2f}", ratio <= OVERHEAD)
        yield Line("  peak memory, MB", f"{figures['peak_mb']:,.0f}")


PARTS: dict[str, Callable[[str, Report], Iterator[Line]]] = {
    "handbook_ch3": _handbook,
    "handbook_folds": _handbook,
    "sparkov": _models,
    "synthetic": _synthetic,
    "training": _training,
}


def table(report: Report) -> Table:
    """The table for a terminal of 120 columns or more."""
    return drawn(lines(report), report)


def markdown(report: Report) -> str:
    """The same table for a page of the docs."""
    return written(lines(report), report)
