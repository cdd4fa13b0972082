"""What the status page says, as figures: rates, shares and quantiles out of the monitor's last look at the platform.

Pure: a snapshot in (`monitoring.snapshot.Watch.look`), plain data out, fit for JSON. What is not known is null.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from monitoring.metrics import Catalogue

LINE = re.compile(r"([^{]+)(?:\{(.*)\})?")
LABEL = re.compile(r'(\w+)="([^"]*)"')
TOP = 8
"""Columns of drift that are shown."""

QUALITY = ("precision", "recall", "average_precision", "auc_roc", "calibration_error", "cost")

Series = list[tuple[dict[str, str], float]]


class Samples:
    """The lines of a snapshot by their metric's name."""

    def __init__(self, lines: Mapping[str, float]) -> None:
        self._series: dict[str, Series] = {}
        for line, value in lines.items():
            found = LINE.fullmatch(line)
            if found is not None and not math.isnan(value):
                labels = dict(LABEL.findall(found[2] or ""))
                self._series.setdefault(found[1], []).append((labels, value))

    def of(self, name: str) -> Series:
        """All series of a metric: labels and value."""
        return self._series.get(name, [])

    def total(self, name: str, where: Iterable[tuple[str, str]] = ()) -> float | None:
        """Their sum, of those with these labels; None where there is none."""
        values = [value for labels, value in self.of(name) if all(labels.get(k) == v for k, v in where)]
        return sum(values) if values else None

    def by(self, name: str, label: str) -> dict[str, float]:
        """Their sums for each value of a label."""
        found: dict[str, float] = {}
        for labels, value in self.of(name):
            found[labels.get(label, "")] = found.get(labels.get(label, ""), 0.0) + value
        return found

    def buckets(self, name: str) -> list[tuple[float, float]]:
        """A histogram's upper bounds with what lies in each, in order, the last one infinite."""
        below = sorted((float(bound), count) for bound, count in self.by(f"{name}_bucket", "le").items())
        counts = [count for _, count in below]
        return [(bound, counts[n] - (counts[n - 1] if n else 0.0)) for n, (bound, _) in enumerate(below)]

    def quantile(self, name: str, share: float) -> float | None:
        """A histogram's quantile as Prometheus estimates it; None where nothing was counted."""
        buckets = self.buckets(name)
        wanted = share * sum(count for _, count in buckets)
        if wanted <= 0.0:
            return None
        before = lower = 0.0
        for bound, count in buckets:
            if count > 0 and before + count >= wanted:
                return lower if math.isinf(bound) else lower + (bound - lower) * (wanted - before) / count
            before, lower = before + count, lower if math.isinf(bound) else bound
        return lower


def figures(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """Everything on the page but alerts and links: rates are per second over the last minute, shares 0..1, times s."""
    now, rates = Samples(snapshot["samples"]), Samples(snapshot["rates"])
    return {
        "at": snapshot["at"],
        "up": snapshot["up"],
        "now": _now(rates),
        "decisions": _decisions(now, rates),
        "degraded": _shown(rates.by(Catalogue.degraded_answers.name, "cause")),
        "scores": _scores(now, rates),
        "models": _models(now),
        "drift": _drift(now),
        "quality": _quality(now),
        "skew": _skew(now),
        "jobs": snapshot["jobs"],
    }


def _now(rates: Samples) -> dict[str, float | None]:
    payments = rates.total(Catalogue.total_transactions.name)
    by_type = rates.by(Catalogue.errors.name, "error_type")
    errors = sum(value for kind, value in by_type.items() if kind != "invalid_input")
    degraded = rates.total(Catalogue.degraded_answers.name)
    latency, freshness = Catalogue.prediction_latency.name, Catalogue.feature_freshness.name
    return {
        "payments": payments,
        "p50": rates.quantile(latency, 0.50),
        "p99": rates.quantile(latency, 0.99),
        "errors": _share(errors, None if payments is None else payments + errors),
        "degraded": _share(degraded or 0.0, payments),
        "high_risk": _share(rates.total(Catalogue.high_risk_transactions.name) or 0.0, payments),
        "freshness": rates.quantile(freshness, 0.99),
    }


def _share(part: float, whole: float | None) -> float | None:
    return part / whole if whole else None


def _decisions(now: Samples, rates: Samples) -> dict[str, Any]:
    name = Catalogue.predictions.name
    return {"rates": rates.by(name, "prediction"), "totals": now.by(name, "prediction")}


def _scores(now: Samples, rates: Samples) -> list[tuple[float, float]]:
    """Of the last minute if there were payments, else of all since the service started."""
    name = Catalogue.score.name
    shown = rates if rates.total(f"{name}_count") else now
    return [(bound, count) for bound, count in shown.buckets(name) if not math.isinf(bound)]


def _shown(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in sorted(values.items(), key=lambda item: -item[1]) if value > 0}


def _models(now: Samples) -> list[dict[str, str]]:
    return [
        {"name": labels["model_name"], "version": labels["version"]}
        for labels, value in now.of(Catalogue.active_model_version.name)
        if value == 1
    ]


def _drift(now: Samples) -> dict[str, Any]:
    """The columns that moved most, by what chance leaves unexplained: their drift against their own threshold."""
    thresholds = now.by(Catalogue.feature_drift_threshold.name, "feature")
    found = {
        name: value / thresholds[name]
        for name, value in now.by(Catalogue.feature_drift.name, "feature").items()
        if thresholds.get(name)
    }
    top = [
        {"column": name, "drift": times * thresholds[name], "drifted": times >= 1}
        for name, times in _shown(found).items()
    ]
    return {"share": now.total(Catalogue.drift_share.name), "columns": len(found), "top": top[:TOP]}


def _quality(now: Samples) -> list[dict[str, Any]]:
    promised = now.by(Catalogue.live_promised.name, "metric")
    found = []
    for name in QUALITY:
        live = now.by(getattr(Catalogue, f"live_{name}").name, "maturity")
        if live or name in promised:
            row = {"metric": name, "full": live.get("full"), "partial": live.get("partial")}
            found.append(row | {"promised": promised.get(name)})
    return found


def _skew(now: Samples) -> dict[str, Any]:
    wrong = _shown(now.by(Catalogue.skew_mismatches.name, "feature"))
    return {"audited": now.total(Catalogue.skew_audited.name), "features": wrong}
