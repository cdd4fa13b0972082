"""What the jobs' command lines share: an instant as an argument, and the errors that say why a job cannot run."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import UTC, datetime

import redis

from feature_repo.settings import Settings
from monitoring.champion import NoChampion
from monitoring.decision_finder import has_table
from monitoring.decision_window import NoDecisions


def instant(text: str) -> datetime:
    """An instant in ISO 8601, in UTC; raises `ArgumentTypeError` for one without an offset."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"'{text}' is no instant; write 2026-03-20T09:30:00Z.") from None
    if found.tzinfo is None:
        raise ArgumentTypeError(f"'{text}' has no offset; write 2026-03-20T09:30:00Z.")
    return found.astimezone(UTC)


def outcome(what: str, current: Settings, work: Callable[[], str], *more: type[Exception]) -> int:
    """Do a job's work and print what it tells; returns the exit code, 1 where it cannot run here now.

    That is what `failures` lists, and `more`.
    """
    try:
        print(work())
    except (*more, *failures(current)) as error:
        print(f"The {what} could not run. {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def failures(current: Settings) -> tuple[type[Exception], ...]:
    """What a job raises where it cannot run here now, each with the way out in its words."""
    expected: tuple[type[Exception], ...] = (NoChampion, NoDecisions, redis.RedisError)
    if has_table(current):
        import psycopg  # a driver that only the full profile installs

        expected += (psycopg.Error,)
    return expected
