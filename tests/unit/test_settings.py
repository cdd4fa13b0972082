"""Where settings come from: variables, and files of a folder of secrets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_repo.settings import settings


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FRAUD_SECRETS", str(tmp_path))
    monkeypatch.delenv("FRAUD_REDIS_URL", raising=False)
    return tmp_path


def test_a_file_of_the_folder_of_secrets_is_a_setting(folder: Path):
    (folder / "fraud_redis_url").write_text("redis://:s3cret@redis:6379/0\n")
    assert settings().redis_url == "redis://:s3cret@redis:6379/0"


def test_a_variable_wins_over_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "fraud_redis_url").write_text("redis://:s3cret@redis:6379/0")
    monkeypatch.setenv("FRAUD_REDIS_URL", "redis://127.0.0.1:7000/0")
    assert settings().redis_url == "redis://127.0.0.1:7000/0"


def test_a_folder_of_secrets_that_is_not_there_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FRAUD_SECRETS", str(folder / "absent"))
    with pytest.raises(NotADirectoryError, match="FRAUD_SECRETS"):
        settings()
