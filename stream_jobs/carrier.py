"""A process that carries what lies in one log into another place until it is told to end."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable

from prometheus_client import start_http_server

from feature_repo.settings import Settings, settings


def run(carry: Callable[[Settings, threading.Event], None]) -> None:
    """Carry under the process's settings until SIGTERM or SIGINT sets the event."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    current, ended = settings(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    if current.carrier_metrics_port is not None:
        start_http_server(current.carrier_metrics_port, addr="127.0.0.1")
    carry(current, ended)
