"""The demo's outcome: as JSON for machines, as a page in the terminal for people. Both from the same figures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from feature_repo.settings import ROOT
from training.comparison import COMPARED, side_by_side
from training.evidence import as_json as as_json_intervals
from training.evidence import cuts_as_json
from training.first import told

if TYPE_CHECKING:
    from training.prepare import Prepared

PUBLISHED = {
    "logistic regression": (0.871, 0.606, 0.291),
    "random forest": (0.867, 0.658, 0.287),
    "XGBoost": (0.862, 0.639, 0.273),
}
"""The Handbook's own figures on its chapter 3 protocol: AUC-ROC, average precision, card precision@100."""


def as_json(
    prepared: Prepared, live: dict[str, Any], drifted: dict[str, Any], steps: dict[str, float], seconds: float
) -> dict[str, Any]:
    """Everything the demo found."""
    rows = prepared.dataset.transactions
    measured = {name: as_json_intervals(each.intervals) for name, each in prepared.outcome.fitted.items()}
    return {
        "dataset": prepared.dataset.name,
        "origin": prepared.dataset.origin,
        "transactions": len(rows),
        "fraud_rate": float(rows["is_fraud"].mean()),
        "features": len(prepared.data.columns),
        "train_rows": prepared.outcome.train_rows,
        "test_rows": len(prepared.outcome.test.rows),
        "models": {name: {key: each[key][0] for key in COMPARED} for name, each in measured.items()},
        "intervals": {name: {key: each[key][1:] for key in COMPARED} for name, each in measured.items()},
        "thresholds": cuts_as_json(prepared.outcome.fitted[prepared.outcome.champion]),
        "champion": prepared.outcome.champion,
        "champion_version": prepared.outcome.version,
        "promotion": told(prepared.promoted),
        "replay": live,
        "drift_report": os.path.relpath(drifted["html"], ROOT),
        "drifted_features": list(drifted["drifted"]),
        "seconds": {name: round(spent, 1) for name, spent in steps.items()} | {"total": round(seconds, 1)},
    }


def _models(prepared: Prepared) -> Table:
    table = side_by_side(prepared.outcome.fitted, prepared.outcome.champion, "champion")
    if prepared.dataset.name == "handbook":
        table.add_section()
        for name, (auc, average, cards) in PUBLISHED.items():
            figures = (f"{auc:.3f}", f"{average:.3f}", "", "", f"{cards:.3f}", "")
            table.add_row(f"[dim]published: {name}[/]", *(f"[dim]{text}[/]" for text in figures))
    return table


def show(console: Console, prepared: Prepared, report: dict[str, Any], drifted: dict[str, Any]) -> None:
    """Print the page."""
    live, p = report["replay"], prepared.protocol
    origin = {"third-party": "published by others", "generated": "generated here", "file": "your file"}
    console.rule("[bold]data", align="left")
    console.print(
        f"  {report['dataset']} ({origin[report['origin']]}): {report['transactions']:,} payments, "
        f"{report['fraud_rate']:.2%} fraudulent; {len(prepared.quality.gates)} quality gates passed"
    )
    console.print(
        f"  trained {p.train_start:%F} to {p.train_end:%F} ({report['train_rows']:,} payments), {p.delay_days} days of "
        f"label delay, tested {p.test_start:%F} to {p.test_end:%F} ({report['test_rows']:,})"
    )
    console.rule(f"[bold]models[/] on the test days, {report['features']} features", align="left")
    console.print(_models(prepared))
    said = f"{prepared.outcome.champion}, version {report['champion_version']}, {report['promotion']}"
    console.print(f"  {said}", markup=False)
    console.rule("[bold]live replay[/]: scored over HTTP, then streamed", align="left")
    precision, recall = (f"{live[k]:.1%}" if live[k] is not None else "n/a" for k in ("precision", "recall"))
    console.print(
        f"  {live['scored']:,} payments, {live['frauds']} frauds: {live['stopped']} stopped, precision {precision}, "
        f"recall {recall}"
    )
    console.print(f"  latency at the client: P50 {live['p50_ms']:.1f} ms, P99 {live['p99_ms']:.1f} ms")
    same = live["vectors_different"] == 0
    console.print(
        f"  [{'green' if same else 'red'}]served vectors recomputed from history: {live['vectors_checked']:,}, "
        f"different: {live['vectors_different']:,}[/]"
    )
    console.print(f"  decisions on record before they were answered: {live['decisions_logged']:,}")
    if live["without_stored_features"]:
        console.print(f"  decided on the payment alone, Redis being slow: {live['without_stored_features']:,}")
    tested = len(drifted["columns"])
    console.rule("[bold]drift[/] of the replay against the training days", align="left")
    names = ", ".join(report["drifted_features"][:4]) or "none"
    more = f" and {len(report['drifted_features']) - 4} more" if len(report["drifted_features"]) > 4 else ""
    console.print(f"  {len(report['drifted_features'])} of {tested} columns drifted: {names}{more}")
    console.rule("[bold]where to look next", align="left")
    console.print(f"  drift report   {report['drift_report']}")
    console.print(f"  figures        {Path(report['drift_report']).parents[1] / 'demo.json'}")
    console.print("  models         make mlflow")
    console.print("  play           make up   (then the curl line it prints; make down ends it)")
    console.print(f"\n  [dim]{report['seconds']['total']:.0f} seconds[/]\n")


def curl(address: str, payment: dict[str, Any]) -> str:
    """A line that asks a running service about a payment."""
    import json

    return f"curl -s {address}/predict -H 'content-type: application/json' -d '{json.dumps(payment)}'"


__all__ = ["PUBLISHED", "as_json", "curl", "show"]
