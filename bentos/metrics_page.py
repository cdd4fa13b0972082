"""`GET /metrics`: the sum over the service's workers, by whichever of them is asked.

BentoML's own page comes with metrics that have a label for each path that anybody asks for, so that a stranger could
fill Prometheus, and a card's number in a wrong path would be kept there. It is switched off. Feast's are never counted.

What a dead worker counted stays: it was counted. What it said of its state goes. BentoML wipes everything when the
service itself starts.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil

from bentos.docs_page import App, Receive, Scope, Send
from monitoring.catalogue_models import ModelMetrics
from monitoring.catalogue_service import ServiceMetrics
from monitoring.declaration import begin as begin_counts
from monitoring.exposition import catalogued
from monitoring.metrics import metrics

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
OF_THE_LIVING = "gauge_live*_*.db"
"""Files of gauges that stand for workers that live, as prometheus_client names them; the last word is the process."""


def begin() -> None:
    """Export every count of this worker from 0 on."""
    begin_counts(metrics, ServiceMetrics)
    begin_counts(metrics, ModelMetrics)
    metrics.breaker_open.set(0)


class MetricsPage:
    """An ASGI middleware: answers `GET /metrics`, every other request goes through."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on."""
        if scope["type"] != "http" or scope["path"] != "/metrics" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        # A thread: it takes some milliseconds, which payments need not wait for.
        kind, body = await asyncio.to_thread(told)
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body if scope["method"] == "GET" else b""})


def told() -> tuple[str, bytes]:
    """Content type and text of the metrics of all workers, or of this process alone where it has no siblings."""
    from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    folder = os.environ.get(FOLDER)
    if folder is None:
        return CONTENT_TYPE_LATEST, generate_latest(catalogued(REGISTRY))
    forget_the_dead(Path(folder))
    return CONTENT_TYPE_LATEST, generate_latest(catalogued(MultiProcessCollector(None, path=folder)))


def forget_the_dead(folder: Path) -> None:
    """Remove what processes that no longer run said of their state."""
    from prometheus_client.multiprocess import mark_process_dead

    for pid in {int(file.stem.rpartition("_")[2]) for file in folder.glob(OF_THE_LIVING)}:
        if not psutil.pid_exists(pid):
            mark_process_dead(pid, str(folder))
