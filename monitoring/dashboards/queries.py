"""Queries that several dashboards ask in the same way, and the limits that their panels and the alerts share."""

from __future__ import annotations

from monitoring.dashboards.panel import Query

LATENCY_LIMITS = (0.1, 0.2)
ERROR_LIMITS = (0.01, 0.05)
DEGRADED_LIMITS = (0.01, 0.10)
DRIFT_LIMITS = (0.15, 0.20)
AUC_LIMITS = (0.75, 0.80)
"""Low is bad."""


def quantiles(histogram: str, *levels: float) -> list[Query]:
    """A query for each quantile of a histogram over all workers."""
    rate = f"sum by (le) (rate({histogram}_bucket[$__rate_interval]))"
    return [Query(f"histogram_quantile({level}, {rate})", f"P{level * 100:g}") for level in levels]


def by(label: str, counter: str) -> Query:
    """The rate of a counter for each value of a label."""
    return Query(f"sum by ({label}) (rate({counter}[$__rate_interval]))", f"{{{{{label}}}}}")


def rate(counter: str, legend: str) -> Query:
    """The rate of a counter, summed."""
    return Query(f"sum(rate({counter}[$__rate_interval]))", legend)


def since_it_began(counter: str, label: str) -> Query:
    """How often something has happened, by reason. The monitor tells nothing of what never did: 0 while it is seen."""
    never = f'label_replace(0 * max(up{{job="tollgate-monitor"}} == 1), "{label}", "none", "", "")'
    return Query(f"sum by ({label}) ({counter}) or {never}", f"{{{{{label}}}}}")
