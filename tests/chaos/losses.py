"""The full profile at work, its backups, and each of its parts lost and restored.

The docstring of a loss is its line in the table: what is lost, and how it is had again.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import psycopg

from feature_repo.settings import ROOT, Settings
from feature_repo.store import feature_store
from monitoring import backup
from monitoring.decision_table import connect, create
from monitoring.full_profile import REGISTRY, FullProfile
from monitoring.processes import Platform
from monitoring.supervision import Running, kill, start, stop, wait
from tests.chaos.load import Load, until
from tests.chaos.stage import Stage
from tests.integration.velocity_platform import payments
from training import backfill, batch
from training.demo import placed
from training.prepare import ALL_VIEWS
from training.replaying import environ

MEANWHILE = 40
"""Answers given while a part is away, at least."""

JOBS = ("stream", "decisions")
PAST = timedelta(days=40)
"""History begins so long ago, and ends half as long ago: every label in it is known and published."""

PARTS: dict[str, str] = {
    "postgres": "Postgres", "redis": "Redis", "kafka": "Kafka", "mlflow": "MLflow", "registry": "registry database",
    "artifacts": "artifact store", "workers_killed": "service's workers", "service": "service",
    "stream": "stream job", "sink": "decision sink", "journal": "Kafka, then the service",
}  # fmt: skip
"""Losses by the names of their methods."""


class FullStage(Stage):
    """A platform on servers that can be lost, and what it takes to have them again."""

    def __init__(self, servers: FullProfile, platform: Platform) -> None:
        super().__init__(platform)
        self.servers, self.load = servers, Load(platform.settings)
        self.backup = servers.folder / "backup"
        self._series = 0
        self._receiver: Running | None = None
        self._logs = platform.settings.home / "full" / "logs"

    # -- before ------------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """History, features online, models, everything running, and a first backup."""
        self.prepare()
        begin = datetime.now(UTC) - PAST
        past = payments(7, 2_000, begin, PAST / 2, cards=50, merchants=20, name="past-")
        past["card_id"] = "card-" + past["card_id"].str.removeprefix("c")
        past["merchant_id"] = "merchant-" + past["merchant_id"].str.removeprefix("m")
        backfill.load(past, self.settings, "past")
        batch.publish(self.settings, batch.midnights(begin + PAST / 2, begin + PAST), None)
        batch.put_online(feature_store(self.settings), begin - PAST, datetime.now(UTC), ALL_VIEWS)
        with connect(self.settings.postgres_url) as connection:
            create(connection)
        self.platform.start(*JOBS, "service")
        self.take_backup()

    def take_backup(self) -> None:
        """Postgres with its log from here on, the registry's database, the models' files."""
        self.follow_log()
        backup.base(self.settings.postgres_url, self.backup)
        backup.dump(self.servers.database(REGISTRY), self.backup)
        backup.artifacts("save", self.backup, self.servers.s3)

    def follow_log(self) -> None:
        """Copy Postgres's log from now on, into a backup of its own; Postgres waits for the copy."""
        self._series += 1
        self.backup = self.servers.folder / f"backup-{self._series}"
        part = backup.log_receiver(self.settings.postgres_url, self.backup)
        self._receiver = start(part, self._logs)
        wait(part, self._receiver)
        backup.synchronous(self.settings.postgres_url, True)

    def complete_backup(self) -> None:
        """The data that belong to the log that is being copied, where there are none yet."""
        if not (self.backup / backup.DATA).exists():
            backup.base(self.settings.postgres_url, self.backup)

    def end(self) -> None:
        """Stop what copies the log."""
        if self._receiver is not None:
            stop(self._receiver)
            self._receiver = None

    # -- losses ------------------------------------------------------------------------------------------------------

    def meanwhile(self) -> None:
        """Payments go on being answered."""
        self.load.more(MEANWHILE)

    def postgres(self) -> None:
        """killed, its data removed | base backup and log restored, started"""
        self.servers.kill("postgres")
        self.end()
        shutil.rmtree(self.servers.postgres_folder / "data")
        self.meanwhile()
        backup.restore_base(self.backup, self.servers.postgres_folder / "data")
        self.servers.start("postgres")
        self.follow_log()

    def redis(self) -> None:
        """killed, its data removed | started empty, `make rebuild-online`"""
        self.servers.kill("redis")
        shutil.rmtree(self.servers.folder / "redis")
        self.meanwhile()
        self.platform.stop("stream")
        self.servers.start("redis")
        command = [sys.executable, "-m", "stream_jobs.rebuild"]
        subprocess.run(command, cwd=ROOT, env=environ(self.settings), check=True, capture_output=True)
        self.platform.start("stream")

    def kafka(self) -> None:
        """killed | started"""
        self.servers.kill("kafka")
        self.meanwhile()
        self.servers.start("kafka")

    def mlflow(self) -> None:
        """killed | started"""
        self.servers.kill("mlflow")
        self.meanwhile()
        self.servers.start("mlflow")

    def registry(self) -> None:
        """MLflow's database dropped | its dump restored, MLflow started again"""
        with psycopg.connect(self.servers.database("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {REGISTRY} WITH (FORCE)")
        self.meanwhile()
        self.servers.stop("mlflow")
        backup.restore(self.servers.database(REGISTRY), self.backup_of("dumps"))
        self.servers.start("mlflow")

    def artifacts(self) -> None:
        """killed, all it held gone | started empty, the copies put back"""
        self.servers.kill("artifacts")
        self.meanwhile()
        self.servers.start("artifacts")
        backup.artifacts("restore", self.backup_of("artifacts"), self.servers.s3)

    def workers_killed(self) -> None:
        """all killed at once | by the service itself"""
        for worker in self.workers():
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()

    def service(self) -> None:
        """every process killed | started"""
        self.kill_service()
        self.platform.start("service")

    def stream(self) -> None:
        """killed | started"""
        self._job("stream")

    def sink(self) -> None:
        """killed | started"""
        self._job("decisions")

    def journal(self) -> None:
        """Kafka killed, then the service with decisions on its disk alone | both started"""
        self.servers.kill("kafka")
        self.load.run_until(lambda: not self.journal_is_empty())
        self.meanwhile()
        self.kill_service()
        self.platform.start("service")
        self.servers.start("kafka")
        until(self.journal_is_empty, 300.0)

    def _job(self, name: str) -> None:
        kill(self.platform.running[name])
        self.platform.stop(name)
        self.meanwhile()
        self.platform.start(name)

    def backup_of(self, kind: str) -> Path:
        """The last backup that has dumps, or artifacts."""
        return max(self.servers.folder.glob(f"backup-*/{kind}")).parent


@contextlib.contextmanager
def full_stage(home: Path) -> Iterator[FullStage]:
    """A full profile that is set up, for the length of the block."""
    base = Settings(home=home, model_name="drill", feature_budget=2.0, log_timeout=1.0, workers=2,
                    kafka_partitions=3, registry_poll=timedelta(seconds=1))  # fmt: skip
    with FullProfile(base) as servers:
        servers.start()
        with Platform(placed(servers.settings)) as platform:
            made = FullStage(servers, platform)
            try:
                made.set_up()
                yield made
            finally:
                made.end()
