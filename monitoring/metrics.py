"""Every metric of the platform: what it is called, what it means, and what to do when it is wrong.

Invariant: whatever any part exports is an entry here, and a label has few values (never a card, merchant or payment).

    from monitoring.metrics import metrics
    metrics.predictions.labels(model_version="3", prediction="review").inc()

`python -m monitoring.metrics` prints the catalogue as a Markdown table, or writes it into its place in a document.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from monitoring.catalogue_jobs import JobMetrics, MonitorMetrics
from monitoring.catalogue_models import ModelMetrics
from monitoring.catalogue_quality import QualityMetrics
from monitoring.catalogue_service import ServiceMetrics
from monitoring.catalogue_stream import DecisionsMetrics, FeedbackMetrics, StreamMetrics
from monitoring.declaration import Bound, declared

AMOUNT_MEMORY = 1_000
"""Payments over which the average amount forgets: the weight of one falls to 1/e that many payments later."""


class Catalogue(
    MonitorMetrics,
    QualityMetrics,
    JobMetrics,
    FeedbackMetrics,
    DecisionsMetrics,
    StreamMetrics,
    ModelMetrics,
    ServiceMetrics,
):
    """The declared metrics; use the process's one instance, `metrics`, on which an entry is its live object."""


metrics = Catalogue()
"""The live metrics of this process, in prometheus_client's default registry."""


def decayed_mean(mean: float, weight: float, amounts: Iterable[float]) -> tuple[float, float]:
    """Continue an exponentially weighted mean (start: 0, 0), newest amount last; returns the new mean and weight.

    The weight makes it an exact mean at the start instead of one pulled towards 0.
    """
    keep = 1.0 - 1.0 / AMOUNT_MEMORY
    for amount in amounts:
        weight = weight * keep + 1.0
        mean += (amount - mean) / weight
    return mean, weight


_amount_state = (0.0, 0.0)


def record_amounts(amounts: Iterable[float]) -> None:
    """Take the amounts of scored payments into `average_amount`.

    Each worker keeps its own mean of the payments it sees and the last one to write is exported: every worker's is an
    estimate of the same mean, where a sum over workers would not be a mean at all.
    """
    global _amount_state
    _amount_state = decayed_mean(*_amount_state, amounts)
    metrics.average_amount.set(_amount_state[0])


def markdown() -> str:
    """The catalogue as a Markdown table, one row per metric."""
    lines = ["| metric | type | labels | unit | meaning | when it is wrong |", "|---|---|---|---|---|---|"]
    for entry in declared(Catalogue):
        labels = "<br>".join(f"`{label}`: {_bound(bound)}" for label, bound in entry.labels.items()) or "–"
        lines.append(f"| `{entry.name}` | {entry.kind} | {labels} | {entry.unit} | {entry.meaning} | {entry.action} |")
    return "\n".join(lines)


def _bound(bound: Bound) -> str:
    return bound if isinstance(bound, str) else ", ".join(f"`{value}`" for value in bound)


BEGIN, END = "<!-- catalogue -->\n", "<!-- end of catalogue -->"


def in_document(text: str) -> str:
    """A document with the table between its two marks; raises ValueError where they are not in it."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The document has no place for the catalogue; must have {BEGIN.strip()!r} and {END!r}.")
    return f"{before}{begin}{markdown()}\n{end}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.metrics", description="The catalogue of metrics.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into a document, between its marks")
    file: Path | None = parser.parse_args(arguments).write
    if file is None:
        print(markdown())
    else:
        file.write_text(in_document(file.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
