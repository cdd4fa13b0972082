"""Decisions by their payments, wherever they lie by now: Redis as long as their claims last, the table after that."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from feature_repo.settings import Settings
from monitoring.decision_claim import claimed
from monitoring.decision_log import LoggedDecision


def has_table(current: Settings) -> bool:
    """Whether the platform has a Postgres: in the full profile, and wherever its address is given."""
    return current.profile == "full" or "postgres_url" in current.model_fields_set


def find_decisions(
    client: redis.Redis, current: Settings, identifiers: Sequence[str], *, table: bool = True
) -> dict[str, LoggedDecision]:
    """The decisions on these payments that there are, by transaction id.

    Without `table` only Redis is asked. Raises `redis.RedisError` and `psycopg.OperationalError` where a part is away.
    """
    found = claimed(client, current.decisions_stream, identifiers)
    missing = [identifier for identifier in identifiers if identifier not in found]
    if missing and table and has_table(current):
        from monitoring.decision_table import connect, find  # needs a driver that only the full profile installs

        with connect(current.postgres_url) as connection:
            found |= find(connection, missing)
    return found
