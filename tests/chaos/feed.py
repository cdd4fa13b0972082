"""The sender of the payments that a load has had decided: each goes onto the stream, whatever becomes of the broker."""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import datetime

import orjson

from feature_repo.settings import Settings
from stream_jobs.transports.kafka_client import KafkaFailed
from stream_jobs.transports.kafka_producer import connect, publish
from tests.chaos.load import PAUSE, Load

PATIENCE = 300.0
"""Seconds that the stream may take for what is left when the load has ended."""


class Feed:
    """Puts each payment that was answered onto the stream, however often that takes: what every sender must do."""

    def __init__(self, current: Settings, load: Load) -> None:
        self._current, self._load = current, load
        self._ended = threading.Event()
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(PATIENCE)
        assert self._failed == []
        assert not self._thread.is_alive(), "the stream has not taken all payments"

    def _run(self) -> None:
        try:
            producer, done = connect(self._current.kafka_bootstrap, log_level=0), 0
            while not self._ended.is_set() or done < len(self._load.replies):
                some = self._load.replies[done:]
                paid = [one.payment for one in some if one.ok]
                with contextlib.suppress(KafkaFailed):  # the broker is away: all of it again
                    publish(
                        producer,
                        self._current.transactions_stream,
                        [orjson.dumps(one) for one in paid],
                        [int(datetime.fromisoformat(one["timestamp"]).timestamp() * 1e6) for one in paid],
                        [one["card_id"].encode() for one in paid],
                    )
                    done += len(some)
                time.sleep(PAUSE)
        except BaseException as error:
            self._failed.append(error)
