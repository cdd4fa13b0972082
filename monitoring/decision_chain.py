"""The chain of hashes over the table `decisions`, gone through from the first row to the last.

It names the first row that was changed, moved, or had rows before it taken away. What was cut off the end only an
anchor shows: the number and hash of a row, kept elsewhere; the sink keeps its last one in Redis.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
import redis

from feature_repo.settings import Settings
from monitoring.decision_row import CHAIN, COLUMNS, GENESIS, Row, link

PAGE = 5_000
"""Rows fetched at a time."""


class Anchor(NamedTuple):
    """A row that is known to have been in the table; number 0 stands before the first."""

    seq: int
    hash: bytes


START = Anchor(0, GENESIS)


def carried_key(stream: str) -> str:
    """The hash in Redis where the sink says how far it has come; in Redis Cluster it lies beside the stream."""
    return f"{{{stream}}}/carried"


def kept_anchor(current: Settings) -> Anchor | None:
    """The anchor that the sink keeps in Redis; None where it has written nothing. Raises `redis.RedisError`."""
    with redis.Redis.from_url(current.redis_url) as client:
        found: Any = client.hmget(carried_key(current.decisions_stream), ["seq", "hash"])
    seq, made = found
    return None if seq is None or made is None else Anchor(int(seq), made)


def verify(connection: psycopg.Connection[Any], anchor: Anchor | None = None) -> tuple[int, str | None]:
    """Go through the whole chain; how many rows hold, and what is wrong with the first that doesn't."""
    previous = START
    met = anchor is None or anchor.seq == 0
    for values, seq, before, made in _rows(connection):
        subject = f"Row {seq}, decision on '{values[0]}' (entry {values[1]})"
        if seq != previous.seq + 1:
            missing = f"row {previous.seq + 1}" + (f" to {seq - 1}" if seq > previous.seq + 2 else "")
            return previous.seq, f"{subject}: {missing} before it is missing."
        if bytes(before) != previous.hash:
            return previous.seq, f"{subject}: is not linked to the row before it; a row was replaced or moved."
        if link(previous.hash, seq, values) != bytes(made):
            return previous.seq, f"{subject}: does not have the content it was recorded with."
        previous = Anchor(seq, bytes(made))
        if anchor is not None and seq == anchor.seq:
            met = True
            if previous.hash != anchor.hash:
                return seq - 1, f"{subject}: is not the row that the sink wrote; the chain was made anew."
    if not met and anchor is not None:
        return previous.seq, f"Row {previous.seq + 1} to {anchor.seq}: cut off the end; the sink wrote them."
    return previous.seq, None


def _rows(connection: psycopg.Connection[Any]) -> Iterator[tuple[Row, int, bytes, bytes]]:
    with connection.transaction(), connection.cursor("verify") as cursor:
        cursor.itersize = PAGE
        cursor.execute(f"SELECT {', '.join([*COLUMNS, *CHAIN])} FROM decisions ORDER BY seq")  # noqa: S608 - fixed names
        for *values, seq, before, made in cursor:
            yield tuple(values), seq, before, made
