"""Decisions on their way into the log: a batch is appended whole or not at all, before its answers leave."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol, cast

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from bentos.errors import Unavailable
from bentos.model import LoadedModel
from bentos.scoring import Scored
from feature_repo.settings import Settings
from monitoring.decision_log import LoggedDecision, encode


class DecisionLog(Protocol):
    """Where decisions go on record."""

    def append(self, scored: Sequence[Scored], model: LoadedModel, decided_at: datetime) -> None:
        """Put decisions on record; when it returns they are. Raises `Unavailable` where they are not, or may not be."""
        ...

    def alive(self) -> bool:
        """Whether the log's store answers."""
        ...


class RedisDecisionLog:
    """The log in a Redis Stream. Safe to call from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._stream = settings.decisions_stream
        limit = settings.feature_timeout
        # No retry: an XADD whose answer was lost may have been carried out, and a second one would log it twice.
        self._redis: Any = redis.Redis.from_url(
            settings.redis_url, socket_timeout=limit, socket_connect_timeout=limit, retry=Retry(NoBackoff(), 0)
        )

    def append(self, scored: Sequence[Scored], model: LoadedModel, decided_at: datetime) -> None:
        """See `DecisionLog`."""
        try:
            with self._redis.pipeline(transaction=True) as pipeline:
                for one in scored:
                    pipeline.xadd(self._stream, cast(dict[Any, Any], encode(logged(one, model, decided_at))))
                pipeline.execute()
        except RedisError as error:
            raise Unavailable("decision_log", error) from error

    def alive(self) -> bool:
        """See `DecisionLog`."""
        try:
            return bool(self._redis.ping())
        except RedisError:
            return False

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()


def logged(scored: Scored, model: LoadedModel, decided_at: datetime) -> LoggedDecision:
    """A decision as it goes on record."""
    return LoggedDecision(
        entry="",
        request=scored.transaction.model_dump_json(exclude_none=True).encode(),
        vector=scored.vector,
        feature_service=model.contract.feature_service,
        model_name=model.name,
        model_version=model.version,
        model_role=model.role,
        probability=scored.probability,
        decision=scored.decision,
        feature_age_seconds=scored.feature_age_seconds,
        decided_at=decided_at,
    )
