"""The peers of the serving benchmark as processes: each started as its own page says, two workers, one at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from feature_repo.settings import ROOT, Settings
from feature_repo.store import repo_config
from monitoring.parts import QUIET, answers_ok, environment
from monitoring.supervision import Part, free_ports, start, stop, wait

HOST = "127.0.0.1"
WORKERS = "2"
DEADLINE = 180.0
PEERS = {"stock": "/readyz", "seed": "/health", "feast": "/health", "bare": "/"}
"""Each peer's name, and where it says that it is ready."""

FORMS = {"stock": "single", "seed": "single", "feast": "feast", "bare": "single"}


@contextmanager
def serving(name: str, current: Settings, extra: Mapping[str, str]) -> Iterator[int]:
    """One peer that is ready, at the port given; `extra` are the `PEER_*` variables that it reads."""
    (port,) = free_ports(1)
    part = Part(
        name=f"peer-{name}",
        command=(sys.executable, "-m", *_command(name, current, str(port))),
        folder=ROOT,
        url=f"http://{HOST}:{port}",
        ready=lambda: answers_ok(HOST, port, PEERS[name]),
        environment=QUIET
        | environment(current)
        | {"BENTOML_HOME": str(current.home / f"bentoml-{name}"), "FEAST_USAGE": "False"}
        | dict(extra),
        deadline=DEADLINE,
    )
    running = start(part, current.home / "logs")
    try:
        wait(part, running)
        yield port
    finally:
        stop(running)


def _command(name: str, current: Settings, port: str) -> tuple[str, ...]:
    at = ("--host", HOST, "--port", port)
    if name == "stock":
        return ("bentoml", "serve", "tests.load.serving_peer_stock:StockService", *at)
    if name == "feast":
        # Its own default restarts a worker every 1,000 requests, for leaks that a minute does not have.
        options = ("--workers", WORKERS, "--max-requests", "0", "--no-access-log")
        return ("feast.cli.cli", "--chdir", str(_repository(current)), "serve", *at, *options)
    module = {
        "seed": ("tests.load.serving_peer_seed:create", "--factory"),
        "bare": ("tests.load.serving_peer_bare:app",),
    }
    return ("uvicorn", *module[name], *at, "--workers", WORKERS, "--no-access-log", "--log-level", "warning")


def _repository(current: Settings) -> Path:
    """A folder with a `feature_store.yaml` that names the platform's own stores, for Feast's command line."""
    folder = current.home / "feast-server"
    folder.mkdir(exist_ok=True)
    config = repo_config(current).model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"repo_path"})
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(config))
    return folder
