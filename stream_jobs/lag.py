"""How far the stream job is behind its log, told as a metric, also while the job itself stands still."""

from __future__ import annotations

import contextlib
import logging
import threading
import time

from monitoring.metrics import metrics
from stream_jobs.transports.base import Transport

EVERY = 5.0
"""Seconds between two looks; where the job is far behind, one has the server go through 20,000 records."""

log = logging.getLogger(__name__)


def tell_lag(transport: Transport) -> None:
    """Set `fraud_stream_lag` from a thread until the process ends."""
    threading.Thread(target=_tell, args=(transport,), name="lag", daemon=True).start()


def _tell(transport: Transport) -> None:
    while True:
        try:
            with contextlib.closing(transport.backlog()) as backlog:
                while True:
                    metrics.stream_lag.set(backlog.lag())
                    time.sleep(EVERY)
        except Exception as error:  # whatever the transport raises, the job goes on and a later look may succeed
            log.warning("How far the job is behind cannot be told: %s", error)
            time.sleep(EVERY)
