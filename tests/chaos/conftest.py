"""The stage of the chaos tests: one service for most of them, put right again after each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.chaos.stage import Stage, on_stage, settings_of
from tests.integration.logs import unique

NIGHTLY = os.environ.get("FRAUD_NIGHTLY") == "1"


@pytest.fixture(scope="package")
def set_up(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str) -> Iterator[Stage]:
    """Redis and two workers, a champion and a fallback."""
    current = settings_of(tmp_path_factory.mktemp("chaos"), mlflow_server, model_name=unique("chaos"))
    with on_stage(current) as made:
        yield made


@pytest.fixture
def stage(set_up: Stage) -> Iterator[Stage]:
    """The stage in working order, its log read from here on."""
    set_up.restore()
    set_up.begin()
    yield set_up
    set_up.restore()


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Says a line in the nightly run."""

    def say(line: str) -> None:
        if NIGHTLY:
            with capsys.disabled():
                print(f"\n{line}")

    return say
