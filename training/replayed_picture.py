"""The picture of a replay: quality over time beside its promise, the drift, and marks for what happened."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from matplotlib.figure import Figure

from training.plots import PERCENT, png

MARKS = {
    "drift planted": "tab:red",
    "bad version planted": "tab:red",
    "quality breach": "tab:orange",
    "drift": "tab:olive",
    "retrained": "tab:blue",
    "promoted": "tab:green",
    "rolled back": "tab:purple",
}
SHOWN = {"precision": "tab:blue", "recall": "tab:green", "average_precision": "tab:gray"}


def picture(told: dict[str, Any]) -> bytes:
    """A PNG of a replay's JSON.

    A figure stands at the middle of the payments that it is of, which is two weeks before it was known.
    """
    figure = Figure(figsize=(11, 8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for name, colour in SHOWN.items():
        _quality(above, told["weeks"], name, colour)
    above.set_title(f"{told['scenario']}: {told['live_payments']:,} payments, {told['payments_per_day']} a day")
    above.set_ylabel("live, labels due (dashed: promised by its test)")
    below.step(
        [_at(one) for one in told["weeks"]],
        [one["drift_share"] for one in told["weeks"]],
        "o-", where="mid", color="tab:brown", markersize=4,
    )  # fmt: skip
    below.set_ylabel("columns drifted from\nthe champion's training")
    for axes in (above, below):
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PERCENT)
        axes.grid(alpha=0.3)
        seen: set[str] = set()
        for one in told["events"]:
            if one["event"] in MARKS:
                label = None if one["event"] in seen else one["event"]
                seen.add(one["event"])
                shift = timedelta(hours=6 * list(MARKS).index(one["event"]))  # several on one day stay apart
                axes.axvline(_at(one) + shift, color=MARKS[one["event"]], alpha=0.8, linewidth=1.6, label=label)
    above.legend(loc="lower left", fontsize=8, ncols=2)
    figure.autofmt_xdate()
    return png(figure)


def _at(one: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(one["at"])


def _quality(axes: Any, weeks: list[dict[str, Any]], name: str, colour: str) -> None:
    known = [one for one in weeks if one["live"] is not None and one["live"][name] is not None]
    middle = [_at(one) - timedelta(days=10.5) for one in known]
    axes.plot(middle, [one["live"][name] for one in known], "o-", color=colour, label=f"live {name.replace('_', ' ')}")
    bounds = [one["live"].get(f"{name}_interval") for one in known]
    if known and all(bounds):
        low, high = zip(*bounds, strict=True)
        axes.fill_between(middle, low, high, color=colour, alpha=0.12)
    told = [one for one in weeks if name in one["promised"]]
    promised = [one["promised"][name] for one in told]
    axes.step([_at(one) for one in told], promised, "--", where="post", color=colour, linewidth=1)
