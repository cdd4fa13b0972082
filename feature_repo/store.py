"""The Feast store of this process: `feature_store.yaml` of the profile, with the addresses of the settings."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import yaml

from feature_repo.settings import REPO, Settings, settings


def repo_config(current: Settings | None = None) -> Any:
    """Feast's `RepoConfig` for these settings (default: the process's own)."""
    from feast.repo_config import RepoConfig

    current = current or settings()
    name = "feature_store.yaml" if current.profile == "embedded" else "feature_store.full.yaml"
    raw = yaml.safe_load(os.path.expandvars((REPO / name).read_text()))
    raw["registry"]["path"] = current.registry
    raw["online_store"]["connection_string"] = connection_string(current.redis_url)
    raw["offline_store"]["path"] = str(current.offline_folder)
    raw["offline_store"]["memory"] = current.offline_memory
    if current.profile == "full":
        raw["offline_store"]["postgres_url"] = current.postgres_url
    return RepoConfig(**raw, repo_path=REPO)


def connection_string(redis_url: str) -> str:
    """A Redis URL as Feast writes it: `host:port,db=0,password=...`."""
    url = urlsplit(redis_url)
    parts = [f"{url.hostname}:{url.port or 6379}", f"db={(url.path or '/0').lstrip('/') or '0'}"]
    if url.username:
        parts.append(f"username={url.username}")
    if url.password:
        parts.append(f"password={url.password}")
    if url.scheme == "rediss":
        parts.append("ssl=true")
    return ",".join(parts)


def feature_store(current: Settings | None = None) -> Any:
    """A `FeatureStore`; nothing is read from the registry until it is asked.

    It reads the registry anew by itself when asked after `cache_ttl_seconds`. With the repository's own `cache_mode:
    thread` each store would leave a thread behind that does so for ever, whether or not the store is still there. Nor
    does it keep connections to the registry, which nobody would close when the store goes.
    """
    from feast import FeatureStore
    from sqlalchemy.pool import NullPool

    _without_alpha_warnings()
    config = repo_config(current)
    config.registry.cache_mode = "sync"
    config.registry.sqlalchemy_config_kwargs = config.registry.sqlalchemy_config_kwargs | {"poolclass": NullPool}
    return FeatureStore(config=config)


def apply(current: Settings | None = None) -> Any:
    """What `feast apply` does in `feature_repo/`, in silence; returns the store."""
    from feast.repo_operations import apply_total

    from feature_repo import sources  # like all that imports Feast, when it is needed

    current = current or settings()
    current.home.mkdir(parents=True, exist_ok=True)
    with sources.profile(current.profile), _flat_imports(), contextlib.redirect_stdout(io.StringIO()):
        _without_alpha_warnings()
        apply_total(repo_config(current), REPO, skip_source_validation=False)
    return feature_store(current)


def put_online(store: Any, since: datetime, as_of: datetime, views: list[str]) -> None:
    """`feast materialize` of the views for [since, as_of], in silence."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        store.materialize(since, as_of, feature_views=views)


def _without_alpha_warnings() -> None:
    """Feast calls its stream and on-demand views experimental each time it reads one; that hides what matters."""
    warnings.filterwarnings("ignore", message=r".*experimental feature", category=RuntimeWarning)


@contextlib.contextmanager
def _flat_imports() -> Iterator[None]:
    """Feast imports the repository's files by their bare names from the working directory, as its command line does."""
    sys.path.insert(0, str(REPO))
    try:
        with contextlib.chdir(REPO):
            yield
    finally:
        sys.path.remove(str(REPO))
        sys.modules.pop("definitions", None)
