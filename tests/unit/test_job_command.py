"""What the jobs' command lines take."""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import UTC, datetime

import pytest

from feature_repo.settings import Settings
from monitoring.job_command import failures, instant


def test_an_instant_is_read_with_its_offset():
    assert instant("2026-03-20T09:30:00+02:00") == datetime(2026, 3, 20, 7, 30, tzinfo=UTC)
    assert instant("2026-03-20T09:30:00Z").tzinfo is UTC


@pytest.mark.parametrize(("text", "rule"), [("2026-03-20T09:30:00", "has no offset"), ("yesterday", "is no instant")])
def test_an_instant_without_an_offset_is_refused(text: str, rule: str):
    with pytest.raises(ArgumentTypeError, match=rule):
        instant(text)


def test_only_a_platform_with_a_postgres_can_miss_it():
    import psycopg

    assert psycopg.Error not in failures(Settings(profile="embedded"))
    assert psycopg.Error in failures(Settings(profile="full"))
