"""This process's metrics over HTTP, for Prometheus: `GET /metrics` on a port of its own.

The service has no part in it: BentoML serves the sum over its workers.
"""

from __future__ import annotations

import logging

from feature_repo.settings import Settings

log = logging.getLogger(__name__)


def serve(current: Settings, port: int | None) -> None:
    """Serve in a thread until the process ends; nothing without a port or with FRAUD_METRICS=off.

    A port that cannot be had is told in the log and no reason to stop: the work is worth more than figures about it.
    """
    if port is None or not current.metrics:
        return
    from prometheus_client import start_http_server

    try:
        start_http_server(port, addr=current.metrics_host)
    except OSError as error:
        at = f"{current.metrics_host}:{port}"
        log.error("This process's metrics are not served at %s: %s. Give each process its own port.", at, error)
