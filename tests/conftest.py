"""Real Redis, MLflow, Postgres and Kafka for the tests, on free ports, in throw-away folders; a missing one fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from feature_repo.settings import Settings
from monitoring.processes import Platform, at_free_ports
from tests.kafka_broker import kafka_broker, pytest_terminal_summary  # noqa: F401 - a fixture and a hook
from tests.postgres_server import postgres_server  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The session's platform; nothing of it runs until a fixture starts it, all of it ends with the session."""
    with Platform(at_free_ports(Settings(home=tmp_path_factory.mktemp("platform")))) as platform:
        yield platform


@pytest.fixture(scope="session")
def redis_server(servers: Platform) -> str:
    """URL of a Redis for the whole session; a test that counts on an empty one flushes it first."""
    servers.start("redis")
    return servers.settings.redis_url


@pytest.fixture(scope="session")
def mlflow_server(servers: Platform) -> str:
    """URL of an MLflow server on SQLite that serves its artifacts."""
    servers.start("mlflow")
    return servers.settings.mlflow_url
