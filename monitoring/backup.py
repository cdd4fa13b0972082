"""Backups and how they are restored: Postgres whole with its log, one database, the models' files.

    python -m monitoring.backup base FOLDER             a copy of Postgres's data, as of now (pg_basebackup)
    python -m monitoring.backup log FOLDER              its log as it is written, until ended (pg_receivewal)
    python -m monitoring.backup restore-base FOLDER DATA    data for a Postgres to start on: the copy, then the log
    python -m monitoring.backup dump FOLDER             one database (pg_dump): --database, default Postgres's own
    python -m monitoring.backup restore FOLDER          that database made anew (dropped where it is there)
    python -m monitoring.backup artifacts FOLDER        the files of the bucket that are not in the folder yet
    python -m monitoring.backup restore-artifacts FOLDER

Postgres is FRAUD_POSTGRES_URL's, by a user who may replicate; S3 is that of the AWS_* variables. With `--synchronous`
Postgres confirms a transaction once the log's copy has it too: then the loss of all its data loses none.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg.sql import SQL, Identifier

from feature_repo.settings import settings
from monitoring import artifacts_local, postgres_local
from monitoring.supervision import Part, PartFailed

DATA, LOG, DUMPS, ARTIFACTS = "data", "log", "dumps", "artifacts"
"""Folders of a backup."""

RECEIVER = "pg_receivewal"
"""The name by which Postgres knows whoever copies its log, and the slot that keeps the log for it."""

RECOVER = """
restore_command = 'cp "{log}/%f" "%p" || cp "{log}/%f.partial" "%p"'
recovery_target_timeline = 'latest'
"""


def base(url: str, folder: Path) -> None:
    """Copy the data of the whole server into a new `folder/data`. Raises `PartFailed`."""
    postgres_local.owned(folder)
    where = ("-D", str(folder / DATA), "--wal-method=stream", "--checkpoint=fast")
    postgres_local.run("pg_basebackup", "-d", _of(url, "postgres"), *where, folder=folder)


def log_receiver(url: str, folder: Path) -> Part:
    """The program that copies the log into `folder/log` as it is written; ready when it has caught up."""
    postgres_local.owned(folder / LOG)
    server = _of(url, "postgres")
    told = ("-d", server, "-S", RECEIVER)
    return Part(
        name="log",
        command=postgres_local.command(
            "pg_receivewal", *told, "-D", str(folder / LOG), "--synchronous", "--status-interval=1"
        ),
        preparation=postgres_local.command("pg_receivewal", *told, "--create-slot", "--if-not-exists"),
        folder=folder,
        url=server,
        ready=lambda: receiving(server),
    )


def receiving(url: str) -> bool:
    """Whether somebody copies the server's log and is at its end."""
    with psycopg.connect(url, connect_timeout=5) as connection:
        found = connection.execute(
            "SELECT state = 'streaming' FROM pg_stat_replication WHERE application_name = %s", [RECEIVER]
        )
        return (True,) in found.fetchall()


def synchronous(url: str, wanted: bool) -> None:
    """Whether a transaction is confirmed only once the copy of the log has it."""
    with psycopg.connect(_of(url, "postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{RECEIVER if wanted else ''}'")
        connection.execute("SELECT pg_reload_conf()")


def restore_base(folder: Path, data: Path) -> None:
    """Make data that a Postgres can start on: those of the backup, which it brings forward by the log to its end.

    Raises `FileExistsError` where there is something at `data`.
    """
    if data.exists():
        raise FileExistsError(f"{data} exists; move it away, so that nothing is written over.")
    if not (folder / DATA / "PG_VERSION").exists():
        raise FileNotFoundError(f"There is no copy of a Postgres at {folder / DATA}.")
    postgres_local.owned(data.parent)
    shutil.copytree(folder / DATA, data, symlinks=True)
    with (data / "postgresql.auto.conf").open("a") as more:
        more.write(RECOVER.format(log=(folder / LOG).resolve()))
    (data / "recovery.signal").touch()
    data.chmod(0o700)
    for one in (data, *data.rglob("*")):
        postgres_local.own(one)


def dump(url: str, folder: Path) -> Path:
    """A database into `folder/dumps`; returns the file. Raises `PartFailed`."""
    file = _dumped(url, folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    _plain("pg_dump", "--format=custom", "--file", f"{file}.part", "-d", url)
    os.replace(f"{file}.part", file)
    return file


def restore(url: str, folder: Path) -> None:
    """Make a database anew from its dump; who is connected to what is there is cut off. Raises `PartFailed`."""
    file, name = _dumped(url, folder), Identifier(_name(url))
    if not file.exists():
        raise PartFailed(f"There is no dump of the database '{_name(url)}' at {file}.")
    with psycopg.connect(_of(url, "postgres"), autocommit=True) as connection:
        connection.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        connection.execute(SQL("CREATE DATABASE {}").format(name))
    _plain("pg_restore", "--no-owner", "--exit-on-error", "--single-transaction", "-d", url, str(file))


def artifacts(direction: str, folder: Path, s3: Mapping[str, str], bucket: str = artifacts_local.BUCKET) -> str:
    """`save` or `restore` the bucket's files in `folder/artifacts`; says how many were copied. Raises `PartFailed`."""
    (folder / ARTIFACTS).mkdir(parents=True, exist_ok=True)
    command = (artifacts_local.python(), "-I", str(artifacts_local.COPY), direction, bucket, str(folder / ARTIFACTS))
    return _said(command, s3)


def _of(url: str, database: str) -> str:
    return urlsplit(url)._replace(path=f"/{database}").geturl()


def _name(url: str) -> str:
    return urlsplit(url).path.lstrip("/")


def _dumped(url: str, folder: Path) -> Path:
    return folder / DUMPS / f"{_name(url)}.dump"


def _plain(program: str, *arguments: str) -> None:
    _said((str(postgres_local.programs() / program), *arguments), {})


def _said(command: Sequence[str], more: Mapping[str, str]) -> str:
    done = subprocess.run(command, env=os.environ | more, capture_output=True, text=True)  # noqa: S603 - our own
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2_000:]
        raise PartFailed(f"{Path(command[0]).name} ended with code {done.returncode}: {said}")
    return done.stdout.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 1 where it failed."""
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.backup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = ("base", "log", "restore-base", "dump", "restore", "artifacts", "restore-artifacts")
    parser.add_argument("command", choices=commands)
    parser.add_argument("folder", type=Path, help="of the backup")
    parser.add_argument("data", type=Path, nargs="?", help="of `restore-base`: the data folder to make")
    parser.add_argument("--database", help="of `dump` and `restore`: another one of the same server, as MLflow's")
    parser.add_argument("--synchronous", action="store_true", help="of `log`: Postgres waits for it from now on")
    asked = parser.parse_args(arguments)
    if asked.command == "restore-base" and asked.data is None:
        parser.error("restore-base: name the data folder to make")
    url = settings().postgres_url
    url = _of(url, asked.database) if asked.database else url
    try:
        return _do(asked, url)
    except (PartFailed, OSError, psycopg.OperationalError) as error:
        print(error, file=sys.stderr)
        return 1


def _do(asked: argparse.Namespace, url: str) -> int:
    folder: Path = asked.folder.resolve()
    if asked.command == "base":
        base(url, folder)
    elif asked.command == "log":
        receiver = log_receiver(url, folder)
        _said(receiver.preparation, {})
        synchronous(url, asked.synchronous)
        os.chdir(folder)
        os.execv(receiver.command[0], receiver.command)  # noqa: S606 - so that whoever ends us ends the receiver
    elif asked.command == "restore-base":
        restore_base(folder, asked.data.resolve())
    elif asked.command == "dump":
        print(dump(url, folder))
    elif asked.command == "restore":
        restore(url, folder)
    else:
        print(artifacts("save" if asked.command == "artifacts" else "restore", folder, {}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
