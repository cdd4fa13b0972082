"""A backtest as files: `backtest.json` for programs, `backtest.md` and `backtest.html`, with pictures, for people."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

COLUMNS = ("payments", "labelled", "frauds", "reviewed", "declined", "precision", "recall", "auc_roc",
           "average_precision", "card_precision_100", "expected_frauds", "brier")  # fmt: skip
"""The figures that a table shows; the JSON has all."""

DRAWN = ("average_precision", "auc_roc", "precision", "recall")

Report = dict[str, Any]


def write(report: Report, out: Path) -> None:
    """Write the three files and the pictures into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "backtest.json").write_text(json.dumps(report, indent=1) + "\n")
    pictures = {name: _png(figure) for name, figure in _pictures(report).items()}
    for name, content in pictures.items():
        (out / name).write_bytes(content)
    tables = _tables(report)
    lines = [f"# {_title(report)}", "", *_said(report), ""]
    for title, rows in tables:
        lines += [f"## {title}", "", *_markdown(rows), ""]
    lines += [f"![{name}]({name})" for name in pictures]
    (out / "backtest.md").write_text("\n".join(lines) + "\n")
    (out / "backtest.html").write_text(_html(report, tables, pictures))


def _title(report: Report) -> str:
    versions = " against ".join(f"version {one['version']}" for one in report["versions"])
    return f"Backtest of {report['model']}, {versions}, {report['from']} to {report['to']}"


def _said(report: Report) -> list[str]:
    days = f"{report['label_days']:g} days"
    lines = [f"{report['payments']:,} payments; labels as known {days} after the end of each day, and as known now."]
    for one in report["versions"]:
        lines.append(
            f"Version {one['version']}: {one['algorithm']}, trained until {one['trained_until']}, reviews from "
            f"{one['review_from']:.4g}, declines from {one['decline_from']:.4g}."
        )
        if any(day["trained_on"] for day in one["days"]):
            lines.append(f"**Version {one['version']} was trained on a part of these days: its figures flatter it.**")
    return lines


def _tables(report: Report) -> list[tuple[str, list[list[str]]]]:
    """Titles and rows, the first row the names."""
    found = []
    for view, known in (("then", "as then known"), ("now", "as known now")):
        total = [
            ["version", *COLUMNS],
            *([one["version"], *_cells(one["total"][view])] for one in report["versions"]),
        ]
        found.append((f"The whole period, labels {known}", total))
    if report["difference"]:
        for view, differences in report["difference"].items():
            rows = [["metric", "difference", "from", "to"]]
            rows += [[name, *(_cell(value) for value in interval)] for name, interval in differences.items()]
            first, second = (one["version"] for one in report["versions"])
            known = "then" if view == "then" else "now"
            found.append((f"Version {first} less version {second}, 95 % intervals, labels as known {known}", rows))
    for stretch in ("weeks", "days"):
        for one in report["versions"]:
            rows = [["from", *COLUMNS]]
            rows += [[part["from"] + "*" * part["trained_on"], *_cells(part["then"])] for part in one[stretch]]
            found.append((f"Version {one['version']}, {stretch}, labels as then known (* trained on)", rows))
    return found


def _cells(figures: dict[str, Any]) -> list[str]:
    return [_cell(figures.get(name)) for name in COLUMNS]


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    ruled = [rows[0], ["---:"] * len(rows[0]), *rows[1:]]
    return ["| " + " | ".join(row) + " |" for row in ruled]


def _pictures(report: Report) -> dict[str, Figure]:
    return {"days.png": _over_time(report, "days"), "weeks.png": _over_time(report, "weeks"),
            "calibration.png": _calibration(report)}  # fmt: skip


def _over_time(report: Report, stretch: str) -> Figure:
    figure = Figure(figsize=(11, 7), layout="constrained")
    for axes, metric in zip(figure.subplots(2, 2).flat, DRAWN, strict=True):
        for one in report["versions"]:
            for view, style in (("then", "-"), ("now", ":")):
                at = [part["from"] for part in one[stretch]]
                values = [part[view].get(metric) for part in one[stretch]]
                line = [float("nan") if value is None else value for value in values]
                axes.plot(at, line, style, marker=".", label=f"version {one['version']}, as known {view}")
        axes.set(title=f"{metric}, {stretch}", ylim=(0, 1.02))
        axes.set_xticks(at[:: max(1, len(at) // 6)])
        axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def _calibration(report: Report) -> Figure:
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    for one in report["versions"]:
        curve = one["calibration"]
        axes.plot(curve["score"], curve["fraud"], "o-", label=f"version {one['version']}")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axes.set(xscale="symlog", yscale="symlog", xlim=(0, 1), ylim=(0, 1), xlabel="mean score", ylabel="share of frauds")
    axes.set_title("Calibration (groups of equal size, labels as then known)")
    axes.legend()
    return figure


def _png(figure: Figure) -> bytes:
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=110)
    return held.getvalue()


def _html(report: Report, tables: list[tuple[str, list[list[str]]]], pictures: dict[str, bytes]) -> str:
    """One file that needs no other."""
    title = html.escape(_title(report))
    parts = [f"<h1>{title}</h1>", *(f"<p>{html.escape(line.strip('*'))}</p>" for line in _said(report))]
    for heading, (names, *rows) in tables:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        parts.append(f"<h2>{html.escape(heading)}</h2><table><tr>{head}</tr>{body}</table>")
    for name, content in pictures.items():
        parts.append(f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(content).decode()}">')
    style = "body{font:14px sans-serif;margin:2em}td,th{padding:.2em .6em;text-align:right}img{max-width:100%}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>'
        + "".join(parts) + "</html>\n"
    )  # fmt: skip
