"""The full profile on one machine without Docker: Postgres, Redis, Kafka, S3, and MLflow over Postgres and S3.

    with FullProfile(settings()) as servers:
        servers.start()

Real servers at free ports with empty data, which end with the block; what runs on them is told of them by `settings`.
Decisions go to Kafka first, so that the loss of Redis loses none. S3 is moto's server in MinIO's place.

`python -m monitoring.full_profile COMMAND...` runs a command on such a profile and ends with its exit code.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg

from feature_repo.settings import Settings, settings
from monitoring import artifacts_local, kafka_local, parts, postgres_local
from monitoring.processes import ending_on_sigterm
from monitoring.supervision import Part, PartFailed, Running, free_ports, kill, start, stop, wait

SERVERS = ("redis", "postgres", "kafka", "artifacts", "mlflow")
PLATFORM, REGISTRY = "tollgate", "mlflow"
"""The databases: history and decisions, and MLflow's."""


class FullProfile:
    """The servers, each of which can be ended and started again with the data it has left."""

    def __init__(self, base: Settings) -> None:
        self.running: dict[str, Running] = {}
        self._logs = base.home.resolve() / "full" / "logs"
        # Not below `home`: Postgres's user, `nobody` where root starts it, need not be let in there.
        # A server that is killed in the middle of its ending may still write a file.
        self._held = tempfile.TemporaryDirectory(prefix="tollgate-full-", ignore_cleanup_errors=True)
        self.folder = Path(self._held.name)
        self.folder.chmod(0o711)
        redis, mlflow, self._postgres, self._kafka, self._controller, self._artifacts = free_ports(6)
        self.settings = base.model_copy(
            update={
                "profile": "full",
                "redis_url": f"redis://127.0.0.1:{redis}/0",
                "mlflow_url": f"http://127.0.0.1:{mlflow}",
                "postgres_url": self.database(PLATFORM),
                "transport": "kafka",
                "kafka_bootstrap": f"127.0.0.1:{self._kafka}",
                "decision_log": "kafka",
            }
        )
        self._parts: dict[str, Callable[[], Part]] = {
            "redis": lambda: parts.redis(self._own),
            "postgres": lambda: postgres_local.part(self.postgres_folder, self._postgres),
            "kafka": lambda: kafka_local.part(self.folder / "kafka", self._kafka),
            "artifacts": lambda: artifacts_local.part(self.folder, self._artifacts),
            "mlflow": self._mlflow,
        }

    @property
    def _own(self) -> Settings:
        return self.settings.model_copy(update={"home": self.folder})

    @property
    def postgres_folder(self) -> Path:
        """Below it Postgres's data."""
        return self.folder / "postgres"

    @property
    def s3(self) -> dict[str, str]:
        """The variables by which S3's clients reach the object storage."""
        return artifacts_local.access(self._artifacts)

    def database(self, name: str) -> str:
        """The address of a database of the Postgres."""
        return postgres_local.address(self._postgres, name)

    def prepare(self) -> None:
        """Empty data for Postgres and Kafka."""
        postgres_local.initialise(self.postgres_folder)
        kafka_local.initialise(self.folder / "kafka", self._kafka, self._controller)

    def start(self, *names: str) -> None:
        """Start servers (default: all, the first time) and return when they are ready. Raises `PartFailed`."""
        if not names:
            self.prepare()
        begun: list[Part] = []
        for name in names or SERVERS[:-1]:
            begun.append(self._parts[name]())
            self.running[name] = start(begun[-1], self._logs)
        for part in begun:
            wait(part, self.running[part.name])
        if not names:
            for database in (PLATFORM, REGISTRY):
                self.create(database)
            self.start("mlflow")

    def create(self, database: str) -> None:
        """Make an empty database."""
        with psycopg.connect(self.database("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"')

    def kill(self, *names: str) -> None:
        """End servers as a power cut would end their processes."""
        for name in names:
            kill(self.running.pop(name))

    def stop(self, *names: str) -> None:
        """Stop servers (default: all), the last started first."""
        for name in [name for name in reversed(self.running) if not names or name in names]:
            stop(self.running.pop(name))

    def __enter__(self) -> FullProfile:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._held.cleanup()  # or when the process ends, should it be told to in the middle of this

    def _mlflow(self) -> Part:
        backend = self.database(REGISTRY).replace("postgresql://", "postgresql+psycopg://", 1)
        artifacts = f"s3://{artifacts_local.BUCKET}/artifacts"
        return parts.mlflow_server(self._own, artifacts_local.python(), backend, artifacts, self.s3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command on the profile; returns its exit code, 1 where a server does not start."""
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.full_profile", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="with its arguments")
    command = parser.parse_args(arguments).command
    if not command:
        parser.error("name a command to run on the profile")
    try:
        with ending_on_sigterm(), FullProfile(settings()) as servers:
            servers.start()
            return _run(command, os.environ | parts.environment(servers.settings))
    except PartFailed as error:
        print(error, file=sys.stderr)
        return 1


def _run(command: Sequence[str], environment: dict[str, str]) -> int:
    with subprocess.Popen(command, env=environment) as process:  # noqa: S603 - what the caller has typed
        try:
            return process.wait()
        except KeyboardInterrupt:  # the terminal has told the command too
            return process.wait()
        except SystemExit:
            process.terminate()
            process.wait()
            raise


if __name__ == "__main__":
    sys.exit(main())
