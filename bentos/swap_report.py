"""What a swap changed, told in the log and in the metrics."""

from __future__ import annotations

import logging

from bentos.challenger_guard import REASONS, Reason
from bentos.lineup import Lineup
from bentos.model import LoadedModel
from monitoring.metrics import metrics

logger = logging.getLogger("bentoml.service.tollgate.models")


def tell(before: Lineup | None, now: Lineup, out: Reason | None) -> None:
    """Tell of a new line-up; `out` is why a challenger is kept out of it, if one is."""
    metrics.challenger_weight.set(now.weight)
    for reason in REASONS:
        metrics.challenger_out.labels(reason=reason).set(reason == out)
    for role in ("champion", "challenger", "fallback"):
        new: LoadedModel | None = getattr(now, role)
        old: LoadedModel | None = getattr(before, role, None)
        if new is not old:
            _tell_of(role, old, new)
    shared = (now.weight, now.shadow)
    if now.challenger is not None and (before is None or (before.weight, before.shadow) != shared):
        shadow = "on" if now.shadow else "off"
        logger.info("The challenger answers a share of %.4g of the payments, shadow %s.", now.weight, shadow)


def _tell_of(role: str, old: LoadedModel | None, new: LoadedModel | None) -> None:
    if new is None:
        logger.info("No %s any more.", role)
        return
    metrics.model_swaps.labels(role=role).inc()
    logger.info("Serving %s version %s as %s, from the %s.", new.name, new.version, role, new.source)
    if role == "challenger":  # its share is in a metric of its own
        return
    metrics.model_from_cache.labels(role=role).set(new.source == "cache")
    if old is not None:
        metrics.active_model_version.labels(model_name=old.name, version=old.version).set(0)
    metrics.active_model_version.labels(model_name=new.name, version=new.version).set(1)
