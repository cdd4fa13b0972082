"""A process that carries what lies in one log into another place until it is told to end."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable

from feature_repo.settings import Settings, settings
from monitoring.declaration import begin
from monitoring.exposition import serve
from monitoring.metrics import metrics


def run(
    carry: Callable[[Settings, threading.Event], None], metrics_port: Callable[[Settings], int | None], counts: type
) -> None:
    """Carry under the process's settings until SIGTERM or SIGINT sets the event.

    `counts` is the part of the catalogue that the process sets.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    current, ended = settings(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    begin(metrics, counts)
    serve(current, metrics_port(current))
    carry(current, ended)
