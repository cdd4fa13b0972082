"""How far the features are: for each partition of the log, until when all that it held is in them.

The service reads it with the features, and says so where they are older than they may be. It is a word about features
and no part of them: that it cannot be written is no reason to stop.
"""

from __future__ import annotations

import logging
import time

from redis import Redis
from redis.exceptions import RedisError

from feature_repo.settings import Settings

log = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds between two words about one partition."""


class Progress:
    """Keeps the hash `settings.progress_key`: partition -> milliseconds since 1970."""

    def __init__(self, settings: Settings) -> None:
        self._client = Redis.from_url(settings.redis_url, socket_timeout=EVERY, socket_connect_timeout=EVERY)
        self._key = settings.progress_key
        self._told: dict[str, float] = {}

    def begin(self) -> None:
        """Forget what was said of partitions that may no longer be there."""
        try:
            self._client.delete(self._key)
        except RedisError as error:
            log.warning("How far the features are cannot be told: %s", error)

    def up_to(self, partition: str, at: float) -> None:
        """What the partition held until `at` (seconds since 1970) is in the features."""
        now = time.monotonic()
        if now - self._told.get(partition, float("-inf")) < EVERY:
            return
        self._told[partition] = now
        try:
            self._client.hset(self._key, partition, str(int(at * 1_000)))
        except RedisError as error:
            log.warning("How far the features are cannot be told: %s", error)
