"""What the serving benchmark stands on: Redis with filled states, Feast applied, MLflow with models, and the service.

Everything lies in a folder of its own and ends with the `with` block.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from redis import Redis

from feature_repo.settings import Settings
from feature_repo.store import apply
from feature_repo.vector import FALLBACK_SERVICE, FEATURE_SERVICE, columns
from monitoring.processes import Platform, at_free_ports
from tests.load import serving_history, serving_model, serving_peer_seed, serving_peers
from tests.load.payments import card_id, merchant_id
from tests.load.serving_load import Load
from tests.load.serving_population import Population

WORKERS = 2
TRAINED_ON = 4_000
"""Payments; few, but enough for trees of full depth."""

WORKER_MODULE = "_bentoml_impl.worker.service"
MODEL_FILE = "peer-model.onnx"
SEED_ROWS = 200
"""Different ready-made hashes that the seed's entities share."""


@dataclass(frozen=True)
class Served:
    """A service that answers: where, after how many seconds it was ready, and the bytes of one of its answers."""

    load: Load
    ready_s: float
    answer_bytes: int
    processes: tuple[psutil.Process, ...]

    def worker_mb(self) -> dict[str, float]:
        """Memory of its largest worker, in MB: proportional share, and resident."""
        found = [each.memory_full_info() for each in self.processes]
        return {"pss": round(max(m.pss for m in found) / 1e6, 1), "rss": round(max(m.rss for m in found) / 1e6, 1)}


@dataclass(frozen=True)
class Rig:
    """The platform, filled; `versions` are the registered models, the champion's first."""

    platform: Platform
    population: Population
    versions: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def settings(self) -> Settings:
        """Where everything is."""
        return self.platform.settings

    @contextmanager
    def service(self, **variables: str) -> Iterator[Served]:
        """The service with these `FRAUD_*` variables beside its settings, warmed by a few payments."""
        began = time.perf_counter()
        with environment({"FRAUD_WORKERS": str(WORKERS), **variables}):
            self.platform.start("service")
        ready = time.perf_counter() - began
        try:
            load = Load(self.settings.host, self.settings.port, population=self.population)
            size = len(_answer(f"http://{self.settings.host}:{self.settings.port}"))
            workers = tuple(workers_of(self.platform.running["service"].processes()))
            yield Served(load, round(ready, 2), size, workers)
        finally:
            self.platform.stop("service")

    def forget_decisions(self) -> None:
        """Empty the decision log, so that each measurement begins with the same Redis."""
        stream = self.settings.decisions_stream
        with Redis.from_url(self.settings.redis_url) as client:
            client.delete(stream, "peer-decisions")
            claims: list[bytes] = []
            for key in client.scan_iter(match=f"{{{stream}}}:*", count=5_000):
                claims.append(key)
                if len(claims) == 5_000:
                    client.unlink(*claims)
                    claims.clear()
            if claims:
                client.unlink(*claims)

    @contextmanager
    def peer(self, name: str, answer_bytes: int) -> Iterator[Load]:
        """A peer that is ready, with what it reads in place."""
        extra = {
            "PEER_MODEL": str(self.settings.home / MODEL_FILE),
            "PEER_COLUMNS": ",".join(self.columns),
            "PEER_REDIS": self.settings.redis_url,
            "PEER_ANSWER_BYTES": str(answer_bytes),
        }
        with serving_peers.serving(name, self.settings, extra) as port:
            yield Load(serving_peers.HOST, port, form=serving_peers.FORMS[name], population=self.population)


@contextmanager
def rig(population: Population, trained_on: int = TRAINED_ON, models: int = 2) -> Iterator[Rig]:
    """Fill everything; the first of `models` is champion, the second challenger, the others wait for a swap."""
    with (
        tempfile.TemporaryDirectory(prefix="tollgate-bench-") as home,
        Platform(at_free_ports(Settings(home=Path(home)))) as platform,
    ):
        platform.start("redis", "mlflow")
        current = platform.settings
        store = apply(current)
        serving_history.fill(store, current.redis_url, population)
        seen = serving_model.vectors(store, FEATURE_SERVICE, population, trained_on)
        made = [serving_model.train(seen, FEATURE_SERVICE, seed) for seed in range(models)]
        alone = columns(store.get_feature_service(FALLBACK_SERVICE))
        fallback = serving_model.train(seen.of(alone), FALLBACK_SERVICE)
        versions = serving_model.register(current, made, fallback)
        (current.home / MODEL_FILE).write_bytes(made[0].graph)
        cards = [card_id(number) for number in range(population.cards)]
        merchants = [merchant_id(number) for number in range(population.merchants)]
        serving_peer_seed.fill(current.redis_url, seen.columns, seen.found[:SEED_ROWS], cards, merchants)
        yield Rig(platform, population, tuple(versions), seen.columns)


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Variables of this process, and so of those that it starts, for the length of the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def workers_of(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that answer requests, as BentoML starts them."""
    return [each for each in processes if WORKER_MODULE in each.cmdline()]


def _answer(url: str) -> bytes:
    """The answer to one payment of an unknown card."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    named = {"transaction_id": f"first-{time.time_ns():x}", "timestamp": at}
    told = httpx.post(f"{url}/predict", json={**named, "card_id": "c", "merchant_id": "m", "amount": 1.0}, timeout=30)
    return told.raise_for_status().content
