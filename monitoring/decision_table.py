"""The table `decisions` in Postgres: every decision once, in a chain of hashes. `python -m monitoring.decision_table`

Invariant: rows are only ever added, numbered without gaps, by one writer at a time, each with the hash of the row
before it; `verify` says where that does not hold (`monitoring.decision_chain`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import psycopg
from psycopg.rows import tuple_row

from feature_repo.settings import settings
from monitoring.decision_chain import START, Anchor, kept_anchor, verify
from monitoring.decision_log import LoggedDecision
from monitoring.decision_row import CHAIN, COLUMNS, OPTIONAL, Row, Unreadable, content, link, row

LOCK = 7_305_104_207
"""Postgres's advisory lock of whoever appends; any number will do that nobody else uses."""

NAMES = ", ".join(COLUMNS)
CREATE = (
    "CREATE TABLE IF NOT EXISTS decisions ("
    + ", ".join(f"{name} {kind}{'' if name in OPTIONAL else ' NOT NULL'}" for name, kind in (COLUMNS | CHAIN).items())
    + ", PRIMARY KEY (seq), UNIQUE (transaction_id))",
    "CREATE INDEX IF NOT EXISTS decisions_decided_at ON decisions (decided_at)",
    "CREATE TABLE IF NOT EXISTS decision_conflicts (content bytea PRIMARY KEY, transaction_id text,"
    " entry text NOT NULL, reason text NOT NULL, noticed_at timestamptz NOT NULL DEFAULT now(), request bytea NOT NULL,"
    " vector bytea NOT NULL, answer bytea NOT NULL, service text NOT NULL)",
)

ASKED = "SELECT transaction_id, entry, request, vector, answer, service FROM decisions WHERE transaction_id = ANY(%s)"

ANOTHER = "another decision on the payment was recorded before"


class Appended(NamedTuple):
    """What became of a batch: positions of the decisions that are in the table now, and counts."""

    recorded: list[int]
    added: int
    repeated: int
    conflicts: int
    anchor: Anchor


def connect(url: str) -> psycopg.Connection[Any]:
    """A connection in UTC."""
    connection = psycopg.connect(url, connect_timeout=5, row_factory=tuple_row)
    connection.execute("SET TIME ZONE 'UTC'")
    connection.commit()
    return connection


def create(connection: psycopg.Connection[Any]) -> None:
    """Make the tables where they are missing."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        for statement in CREATE:
            connection.execute(statement)


def append(connection: psycopg.Connection[Any], decisions: Sequence[LoggedDecision]) -> Appended:
    """Put decisions at the end of the chain, all in one transaction; those that are there already stay as they are.

    Another decision on a payment that has one, or an entry that cannot be read, goes to `decision_conflicts`.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        last = connection.execute("SELECT seq, hash FROM decisions ORDER BY seq DESC LIMIT 1").fetchone()
        anchor = Anchor(*last) if last else START
        read = [_read(logged) for logged in decisions]
        known = _known(connection, [values[0] for values in read if isinstance(values, tuple)])
        rows: list[Row] = []
        recorded: list[int] = []
        aside: list[tuple[LoggedDecision, str | None, str]] = []
        for place, (logged, values) in enumerate(zip(decisions, read, strict=True)):
            if isinstance(values, str):
                aside.append((logged, None, values))
                continue
            evidence = content(logged)
            there = known.setdefault(values[0], b"")
            if there == b"":
                known[values[0]] = evidence
                rows.append(values)
            elif there != evidence:
                aside.append((logged, values[0], ANOTHER))
                continue
            recorded.append(place)
        anchor = _copy(connection, anchor, rows)
        _put_aside(connection, aside)
    return Appended(recorded, len(rows), len(recorded) - len(rows), len(aside), anchor)


def put_aside(connection: psycopg.Connection[Any], decisions: Sequence[LoggedDecision]) -> None:
    """Keep decisions that were answered while another one on the same payment was recorded; each once."""
    with connection.transaction():
        read = [(logged, _read(logged)) for logged in decisions]
        _put_aside(
            connection,
            [(one, None, said) if isinstance(said, str) else (one, said[0], ANOTHER) for one, said in read],
        )


def _read(logged: LoggedDecision) -> Row | str:
    try:
        return row(logged)
    except Unreadable as error:
        return str(error)


def _known(connection: psycopg.Connection[Any], identifiers: list[str]) -> dict[str, bytes]:
    found = connection.execute(ASKED, [identifiers])
    return {identifier: content(_logged(*rest)) for identifier, *rest in found}


def _logged(entry: str, request: str, vector: bytes, answer: str, service: str) -> LoggedDecision:
    return LoggedDecision(entry, request.encode(), np.frombuffer(vector, "<f4"), answer.encode(), service)


def _copy(connection: psycopg.Connection[Any], anchor: Anchor, rows: list[Row]) -> Anchor:
    if not rows:
        return anchor
    statement = f"COPY decisions ({NAMES}, {', '.join(CHAIN)}) FROM STDIN (FORMAT BINARY)"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types([*COLUMNS.values(), *CHAIN.values()])
        for values in rows:
            seq = anchor.seq + 1
            made = link(anchor.hash, seq, values)
            copy.write_row((*values, seq, anchor.hash, made))
            anchor = Anchor(seq, made)
    return anchor


def _put_aside(connection: psycopg.Connection[Any], aside: list[tuple[LoggedDecision, str | None, str]]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO decision_conflicts (content, transaction_id, entry, reason, request, vector, answer, service)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [
                (content(one), identifier, one.entry, reason, one.request, one.vector.tobytes(), one.answer,
                 one.feature_service)
                for one, identifier, reason in aside
            ],
        )  # fmt: skip


def find(connection: psycopg.Connection[Any], identifiers: Sequence[str]) -> dict[str, LoggedDecision]:
    """The decisions on these payments, by transaction id; none where there is no table yet."""
    if connection.execute("SELECT to_regclass('decisions')").fetchone() == (None,):
        return {}
    return {identifier: _logged(*rest) for identifier, *rest in connection.execute(ASKED, [list(identifiers)])}


def main() -> int:
    """The command line; exit code 0 where the chain holds, 1 where it is broken."""
    from redis import RedisError

    parser = argparse.ArgumentParser(prog="python -m monitoring.decision_table", description=__doc__)
    parser.add_argument("command", choices=["verify"], help="go through the chain of hashes and name the first break")
    parser.parse_args()
    current = settings()
    try:
        anchor, beside = kept_anchor(current), "up to the sink's anchor in Redis"
    except RedisError as error:
        anchor, beside = None, f"without an anchor, for Redis does not answer ({error}): a cut end would not show"
    with connect(current.postgres_url) as connection:
        create(connection)
        held, broken = verify(connection, anchor)
    if broken is not None:
        print(f"BROKEN after {held:,} rows. {broken}", file=sys.stderr)
        return 1
    print(f"{held:,} decisions, an unbroken chain ({beside}).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
