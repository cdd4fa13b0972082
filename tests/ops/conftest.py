"""The watched platform, set once for all tests that ask it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ops.stage import Stage, stage
from tests.postgres_server import Postgres


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres) -> Iterator[Stage]:
    """A platform that has decided, streamed, carried and looked at itself, and a Prometheus that saw it."""
    with stage(tmp_path_factory.mktemp("watched"), postgres_server.database()) as made:
        yield made
