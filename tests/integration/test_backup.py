"""Backups of a real Postgres by the commands that an operator types, and what comes back after it is gone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from feature_repo.settings import ROOT
from monitoring import backup, postgres_local
from monitoring.supervision import Running, free_ports, kill, start, stop, wait

WITHIN = 60.0


class Server:
    """A Postgres that can be killed, and started on other data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "postgres"
        [self._port] = free_ports(1)
        postgres_local.initialise(self.folder)
        self._running: Running | None = None
        self.start()
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE kept")
        with psycopg.connect(self.url()) as connection:
            connection.execute("CREATE TABLE t (x int PRIMARY KEY)")

    def url(self, database: str = "kept") -> str:
        return postgres_local.address(self._port, database)

    def start(self) -> None:
        part = postgres_local.part(self.folder, self._port)
        self._running = start(part, self.folder / "logs")
        wait(part, self._running)

    def kill(self) -> None:
        assert self._running is not None
        kill(self._running)

    def add(self, *numbers: int) -> None:
        with psycopg.connect(self.url()) as connection:
            connection.cursor().executemany("INSERT INTO t VALUES (%s)", [(number,) for number in numbers])

    def rows(self) -> list[int]:
        with psycopg.connect(self.url()) as connection:
            return [number for (number,) in connection.execute("SELECT x FROM t ORDER BY x")]


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that Postgres's user may enter, as he may not enter pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="tollgate-backup-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    made = Server(folder)
    yield made
    made.kill()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "monitoring.backup", *(str(one) for one in arguments)]


def environ(server: Server) -> dict[str, str]:
    return os.environ | {"FRAUD_POSTGRES_URL": server.url()}


def run(server: Server, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, env=environ(server), capture_output=True, text=True)


def awaited(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def test_a_dropped_database_is_made_anew_from_its_dump(server: Server, folder: Path) -> None:
    server.add(1, 2, 3)
    done = run(server, "dump", folder)
    assert (done.returncode, done.stdout.strip()) == (0, str(folder / "dumps" / "kept.dump")), done.stderr
    server.add(4)
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE kept")
    assert run(server, "restore", folder).returncode == 0
    assert server.rows() == [1, 2, 3]


def test_a_restore_cuts_off_who_is_connected_and_replaces_what_is_there(server: Server, folder: Path) -> None:
    server.add(1)
    assert run(server, "dump", folder).returncode == 0
    server.add(2)
    with psycopg.connect(server.url()) as connected:
        connected.execute("SELECT 1")
        assert run(server, "restore", folder).returncode == 0
        with pytest.raises(psycopg.OperationalError):
            connected.execute("SELECT 1")
    assert server.rows() == [1]


def test_a_dump_that_is_not_there_leaves_the_database_as_it_is(server: Server, folder: Path) -> None:
    server.add(1)
    done = run(server, "restore", folder)
    assert done.returncode == 1
    assert done.stderr.strip() == f"There is no dump of the database 'kept' at {folder / 'dumps' / 'kept.dump'}."
    assert server.rows() == [1]


@pytest.fixture
def following(server: Server, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The log being copied, Postgres waiting for it, and a base backup made since."""
    process = subprocess.Popen(
        command("log", folder / "saved", "--synchronous"), cwd=ROOT, env=environ(server), text=True
    )
    try:
        awaited(lambda: backup.receiving(server.url("postgres")))
        server.add(1)
        assert run(server, "base", folder / "saved").returncode == 0
        yield process
    finally:
        process.terminate()
        process.wait()


def test_the_loss_of_all_its_data_costs_postgres_nothing_that_it_confirmed(
    server: Server, folder: Path, following: subprocess.Popen[str]
) -> None:
    server.add(2, 3)  # after the base backup: in the log alone
    server.add(4)
    server.kill()
    shutil.rmtree(server.folder / "data")
    done = run(server, "restore-base", folder / "saved", server.folder / "data")
    assert done.returncode == 0, done.stderr
    server.start()
    assert server.rows() == [1, 2, 3, 4]


def test_without_the_log_only_the_base_backup_comes_back(
    server: Server, folder: Path, following: subprocess.Popen[str]
) -> None:
    server.add(2)
    server.kill()
    shutil.rmtree(server.folder / "data")
    shutil.rmtree(folder / "saved" / "log")
    assert run(server, "restore-base", folder / "saved", server.folder / "data").returncode == 0
    server.start()
    assert server.rows() == [1]


def test_a_transaction_waits_for_the_copy_of_the_log(
    server: Server, folder: Path, following: subprocess.Popen[str]
) -> None:
    following.terminate()
    following.wait()
    awaited(lambda: not backup.receiving(server.url("postgres")))
    writing = threading.Thread(target=server.add, args=(2,), daemon=True)
    writing.start()

    def waits() -> bool:
        with psycopg.connect(server.url("postgres")) as connection:
            found = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").fetchone()
        return found == (1,)

    awaited(waits)
    assert writing.is_alive()
    part = backup.log_receiver(server.url(), folder / "saved")
    again = start(part, folder / "logs")
    try:
        wait(part, again)
        writing.join(WITHIN)
        assert not writing.is_alive()
        assert server.rows() == [1, 2]
    finally:
        stop(again)


def test_nothing_is_restored_over_data_that_are_there(server: Server, folder: Path) -> None:
    assert run(server, "base", folder / "saved").returncode == 0
    done = run(server, "restore-base", folder / "saved", server.folder / "data")
    assert done.returncode == 1
    assert f"{server.folder / 'data'} exists; move it away" in done.stderr
    server.add(1)
    assert server.rows() == [1]
