"""A real Postgres for the tests, as `monitoring.postgres_local` starts it, in a folder of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from monitoring import postgres_local
from monitoring.supervision import PartFailed, free_ports, kill, start, wait

UNSAFE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
"""Faster, and a server that is thrown away has nothing to lose."""


class Postgres:
    """A running server, which makes as many empty databases as are asked for."""

    def __init__(self, folder: Path) -> None:
        [self._port] = free_ports(1)
        self._made = count(1)
        installed()
        postgres_local.initialise(folder)
        part = postgres_local.part(folder, self._port, *UNSAFE)
        self._running = start(part, folder / "logs")
        wait(part, self._running)

    def database(self) -> str:
        """The address of a new database."""
        return self._address(self._create("DATABASE"))

    def schema(self) -> str:
        """The address of an empty schema, which costs less than a database."""
        return f"{self._address('postgres')}?options=-csearch_path%3D{self._create('SCHEMA')}"

    def _create(self, kind: str) -> str:
        name = f"tollgate{next(self._made)}"
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE {kind} {name}")  # type: ignore[arg-type]
        return name

    def close(self) -> None:
        """End the server at once; whoever is connected is cut off."""
        kill(self._running)

    def _address(self, database: str) -> str:
        return postgres_local.address(self._port, database)


def installed() -> Path:
    """The folder of the server's programs; where there is none the test fails, and says what to install."""
    try:
        return postgres_local.programs()
    except PartFailed as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A Postgres for the whole session, which ends with it."""
    # Not pytest's own folder: that is closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="tollgate-postgres-"))
    try:
        server = Postgres(folder)
        try:
            yield server
        finally:
            server.close()
    finally:
        shutil.rmtree(folder)
