"""What a process tells Prometheus: the catalogue's metrics, and nothing else that a library may have registered.

`GET /metrics` on a port of the process's own; the service answers where it answers payments, with the sum over its
workers (`bentos.metrics_page`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from feature_repo.settings import Settings
from monitoring.declaration import declared
from monitoring.metrics import Catalogue

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

OF_A_PROCESS = ("python_", "process_")
"""What prometheus_client knows of any process."""

log = logging.getLogger(__name__)


class Catalogued:
    """A collector: what another one collects, as far as the catalogue has it."""

    def __init__(self, every: Any) -> None:
        self._every = every
        self._names = {entry.name.removesuffix("_total") for entry in declared(Catalogue)}

    def describe(self) -> Iterable[Any]:
        """Nothing, so that nobody collects to find out."""
        return ()

    def collect(self) -> Iterable[Any]:
        """The families."""
        return (one for one in self._every.collect() if one.name in self._names or one.name.startswith(OF_A_PROCESS))


def catalogued(every: Any) -> CollectorRegistry:
    """A registry that exports what this collector or registry has, as far as the catalogue has it."""
    from prometheus_client import CollectorRegistry

    made = CollectorRegistry(auto_describe=False)
    collector: Any = Catalogued(every)
    made.register(collector)
    return made


def serve(current: Settings, port: int | None) -> None:
    """Serve in a thread until the process ends; nothing without a port or with FRAUD_METRICS=off.

    A port that cannot be had is told in the log and no reason to stop: the work is worth more than figures about it.
    """
    if port is None or not current.metrics:
        return
    from prometheus_client import REGISTRY, start_http_server

    try:
        start_http_server(port, addr=current.metrics_host, registry=catalogued(REGISTRY))
    except OSError as error:
        at = f"{current.metrics_host}:{port}"
        log.error("This process's metrics are not served at %s: %s. Give each process its own port.", at, error)
