"""The decision log's stand-in while its server is away: an SQLite file on this machine, each commit on the disk.

All workers of a machine share it, so that a payment is decided once among them. What is in it goes to the log's server,
in order, as soon as that answers; until all has, new decisions join it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tenacity import retry, retry_if_exception_message, stop_after_delay, wait_random

from bentos.decisions import Entry, Mark, Outcome
from bentos.errors import Unavailable
from monitoring.decision_log import LoggedDecision

BUSY_SECONDS = 2.0
"""How long a commit waits for another worker's. SQLite doesn't queue: one that is unlucky waits for many."""

_TABLE = """
CREATE TABLE IF NOT EXISTS decisions (
    place INTEGER PRIMARY KEY AUTOINCREMENT, transaction_id TEXT UNIQUE NOT NULL, digest BLOB NOT NULL,
    expires_ms INTEGER NOT NULL, request BLOB NOT NULL, vector BLOB NOT NULL, answer BLOB NOT NULL,
    service BLOB NOT NULL
)"""
KEPT = Entry._fields[:-1]
"""What a decision is; its trace ends here."""

_COLUMNS = ", ".join(KEPT)


class Journal:
    """Blocking; use it from one thread. Raises `Unavailable` where the disk does not take a decision."""

    def __init__(self, file: Path) -> None:
        self._file, self._mark = file, file.with_suffix(".in-use")
        self._connection: sqlite3.Connection | None = None

    def append(self, entries: Sequence[Entry]) -> list[Outcome]:
        """See `bentos.decisions.DecisionLog`: all of the entries or none."""
        return self._write(entries, lambda: True) or []

    def join(self, entries: Sequence[Entry]) -> list[Outcome] | None:
        """`append` while decisions wait here, None as soon as they no longer do: then the log knows of all of them."""
        return self._write(entries, self.in_use)

    def _write(self, entries: Sequence[Entry], allowed: Callable[[], bool]) -> list[Outcome] | None:
        with self._open() as journal, journal:
            journal.execute("BEGIN IMMEDIATE")
            if not allowed():
                return None
            outcomes = [self._append(journal, one) for one in entries]
            if entries:
                self._mark.touch()  # before the commit, under its lock: nobody sees the entries and not the mark
            return outcomes

    def in_use(self) -> bool:
        """Whether decisions of any worker wait here. Some microseconds, for any thread."""
        return self._mark.exists()

    def give_up(self) -> bool:
        """Take the mark away if nothing waits; whether that is so."""
        with self._open() as journal, journal:
            journal.execute("BEGIN IMMEDIATE")
            if journal.execute("SELECT 1 FROM decisions LIMIT 1").fetchone() is not None:
                return False
            self._mark.unlink(missing_ok=True)
            return True

    def check(self) -> None:
        """Raise `Unavailable` unless the disk takes a commit."""
        with self._open() as journal, journal:
            self._append(journal, Entry("", b"", 0, b"", b"", b"", b""))
            journal.execute("DELETE FROM decisions WHERE transaction_id = ''")

    def oldest(self, count: int) -> list[tuple[int, Entry]]:
        """The entries that wait longest, with their places."""
        if not self._file.exists():
            return []
        with self._open() as journal:
            asked = f"SELECT place, {_COLUMNS} FROM decisions ORDER BY place LIMIT ?"  # noqa: S608 - fixed names
            return [(place, Entry(*row)) for place, *row in journal.execute(asked, (count,))]

    def remove(self, places: Sequence[int]) -> None:
        """Forget entries that are on record elsewhere."""
        with self._open() as journal, journal:
            journal.executemany("DELETE FROM decisions WHERE place = ?", [(place,) for place in places])

    def find(self, transaction_id: str) -> LoggedDecision | None:
        """The decision on a payment that waits here."""
        if not self._file.exists():
            return None
        with self._open() as journal:
            asked = "SELECT place, request, vector, answer, service FROM decisions WHERE transaction_id = ?"
            found = journal.execute(asked, (transaction_id,)).fetchone()
        if found is None:
            return None
        place, request, vector, answer, service = found
        return LoggedDecision(f"journal-{place}", request, np.frombuffer(vector, "<f4"), answer, service.decode())

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _append(self, journal: sqlite3.Connection, entry: Entry) -> Outcome:
        marks = ", ".join("?" * len(KEPT))
        made = journal.execute(f"INSERT OR IGNORE INTO decisions ({_COLUMNS}) VALUES ({marks})", entry[:-1])  # noqa: S608
        if made.rowcount == 1:
            return Mark.RECORDED
        asked = "SELECT digest, answer FROM decisions WHERE transaction_id = ?"
        digest, answer = journal.execute(asked, (entry.transaction_id,)).fetchone()
        return answer if digest == entry.digest else Mark.CONFLICT

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._connection is None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._connection = _opened(self._file)
            yield self._connection
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise Unavailable("decision_log", error) from error


# SQLite's own patience does not cover the change to a write-ahead log, which the first process to open the file makes.
@retry(
    retry=retry_if_exception_message(match="database is locked"),
    stop=stop_after_delay(BUSY_SECONDS),
    wait=wait_random(0, 0.02),
    reraise=True,
)
def _opened(file: Path) -> sqlite3.Connection:
    made = sqlite3.connect(file, timeout=BUSY_SECONDS, check_same_thread=False)
    try:
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("PRAGMA synchronous = FULL")  # a commit returns when the disk has it
        made.execute(_TABLE)
    except sqlite3.Error:
        made.close()
        raise
    return made
