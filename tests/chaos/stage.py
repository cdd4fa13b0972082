"""The platform that the scenarios break: a service of two workers, its Redis, its models, and nothing at Postgres.

Invariant: what a scenario reads of the log begins where the scenario began.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis

from bentos.journal import Journal
from feature_repo.contract import ModelContract
from feature_repo.settings import Settings
from feature_repo.store import apply
from feature_repo.vector import FALLBACK_SERVICE, FEATURE_SERVICE, columns
from monitoring.decision_log import LoggedDecision, read_decisions
from monitoring.processes import Platform, at_free_ports
from monitoring.supervision import kill
from tests import tiny_model
from tests.chaos.load import Reply, until

BIAS, BIAS_ALONE = -2.0, -2.5
NOBODY = "postgresql://nobody@127.0.0.1:9/none"
WORKER = "_bentoml_impl.worker.service"


@contextlib.contextmanager
def on_stage(current: Settings) -> Iterator[Stage]:
    """Redis and the service with a champion and a fallback, for the length of the block."""
    with Platform(current) as platform:
        made = Stage(platform)
        platform.start("redis")
        made.prepare()
        platform.start("service")
        yield made


class Stage:
    """A running platform and the means to break it."""

    def __init__(self, platform: Platform) -> None:
        self.platform, self.settings = platform, platform.settings
        self.biases: dict[tuple[str, str], float] = {}
        self.contract: ModelContract | None = None
        self._seen = "-"

    def prepare(self) -> None:
        """Features applied and both models registered, for a service to start with."""
        store, url, name = apply(self.settings), self.settings.mlflow_url, self.settings.model_name
        self.contract = tiny_model.contract(columns(store.get_feature_service(FEATURE_SERVICE)))
        self.publish(BIAS)
        alone = tiny_model.contract(columns(store.get_feature_service(FALLBACK_SERVICE)), FALLBACK_SERVICE)
        version = tiny_model.publish(url, f"{name}-request", tiny_model.files(alone, BIAS_ALONE))
        self.biases[f"{name}-request", version] = BIAS_ALONE

    def publish(self, bias: float, **broken: bytes) -> str:
        """A new champion, some of its files replaced; its version."""
        assert self.contract is not None
        files = tiny_model.files(self.contract, bias) | broken
        version = tiny_model.publish(self.settings.mlflow_url, self.settings.model_name, files)
        if not broken:
            self.biases[self.settings.model_name, version] = bias
        return version

    def get(self, path: str) -> httpx.Response:
        """What the service tells; over a new connection, so any worker's word."""
        return httpx.get(f"http://{self.settings.host}:{self.settings.port}{path}", timeout=20)

    # -- the log -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """From here on the log is read."""
        with self._client() as client:
            last: Any = client.xrevrange(self.settings.decisions_stream, count=1)
        self._seen = last[0][0].decode() if last else "0-0"

    def record(self) -> list[LoggedDecision]:
        """The decisions on record since `begin`."""
        found = read_decisions(self.settings.redis_url, self.settings.decisions_stream)
        return [one for one in found if _place(one.entry) > _place(self._seen)]

    def put_aside(self) -> list[LoggedDecision]:
        """Decisions on payments that the log had decided otherwise."""
        return list(read_decisions(self.settings.redis_url, f"{self.settings.decisions_stream}.conflicts"))

    def journal_is_empty(self) -> bool:
        journal = Journal(self.settings.home / "journal.db")
        try:
            return not journal.oldest(1)
        finally:
            journal.close()

    def drained(self) -> None:
        """Return when the journal has been carried over; nothing must be sent meanwhile."""
        until(self.journal_is_empty)

    def journal_files(self) -> list[Path]:
        return list(self.settings.home.glob("journal.db*"))

    # -- what breaks -------------------------------------------------------------------------------------------------

    def redis_process(self) -> psutil.Process:
        with self._client() as client:
            found: Any = client.info("server")
        return psutil.Process(found["process_id"])

    def kill_redis(self) -> None:
        """Redis ends without a word."""
        self.redis_process().kill()
        self.platform.stop("redis")

    def start_redis(self) -> None:
        if "redis" not in self.platform.running:
            self.platform.start("redis")

    @contextlib.contextmanager
    def redis_hung(self) -> Iterator[None]:
        """Redis keeps its connections and answers nothing."""
        process = self.redis_process()
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    def workers(self) -> list[psutil.Process]:
        found = []
        for process in self.platform.running["service"].processes():
            with contextlib.suppress(psutil.Error):
                if WORKER in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def kill_service(self) -> None:
        """Every process of the service ends at once, as in a power cut."""
        kill(self.platform.running["service"])
        self.platform.stop("service")

    def room(self, bytes_left: int | None) -> None:
        """The files the workers write may grow to this size and no further; None: any."""
        for worker in self.workers():
            _, hard = worker.rlimit(psutil.RLIMIT_FSIZE)
            worker.rlimit(psutil.RLIMIT_FSIZE, (hard if bytes_left is None else bytes_left, hard))

    def restore(self) -> None:
        """Whatever a scenario left broken works again."""
        self.start_redis()
        if "service" in self.platform.running and not self.platform.running["service"].alive():
            self.platform.stop("service")
        if "service" not in self.platform.running:
            self.platform.start("service")
        self.room(None)
        until(lambda: len(self.workers()) == self.settings.workers and self.get("/readyz").status_code == 200)

    def _client(self) -> redis.Redis:
        return redis.Redis.from_url(self.settings.redis_url)


def settings_of(home: Path, mlflow_url: str, **changed: Any) -> Settings:
    """Settings of a stage: a registry looked at often, and a Postgres address at which nobody is."""
    given = {"workers": 2, "registry_poll": timedelta(seconds=0.5), "postgres_url": NOBODY} | changed
    return at_free_ports(Settings(home=home, **given)).model_copy(update={"mlflow_url": mlflow_url})


def same_bytes(first: Sequence[Reply], again: Sequence[Reply]) -> bool:
    """Whether repeats got the answers that the first ones got."""
    return [(one.transaction_id, one.status, one.body) for one in first] == [
        (one.transaction_id, one.status, one.body) for one in again
    ]


def _place(entry: str) -> tuple[int, int]:
    at, number = entry.split("-")
    return int(at), int(number)
