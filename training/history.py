"""The history of one data set in a store of its own, below the platform's home: what a training command trains on.

It is made once: a second command on the same data finds it. The platform's own history, which the service and the
stream live on, is not touched. A file that changes is another data set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from feature_repo.settings import Settings
from feature_repo.store import apply
from training import backfill, batch
from training.datasets import catalogue, synthetic
from training.datasets.catalogue import load_dataset
from training.datasets.dataset import Dataset
from training.split import Protocol
from training.validate import require, validate

DAY = timedelta(days=1)
PROFILES_FILE, STATE_FILE = "profiles.parquet", "history.json"


class UncoveredWindow(ValueError):
    """A protocol some of whose days have no history."""


class Loaded(BaseModel):
    """What a store holds: the days [first, end) of a data set, and the midnights whose card profiles are there."""

    model_config = ConfigDict(frozen=True)

    name: str
    digest: str
    rows: int
    first: datetime
    end: datetime
    midnights: tuple[datetime, ...] = ()


@dataclass(frozen=True)
class History:
    """A data set's store: the settings under which it is read, Feast's view of it, and what it holds."""

    settings: Settings
    store: Any
    loaded: Loaded

    def covers(self, protocol: Protocol) -> None:
        """Raise `UncoveredWindow` unless every day of the protocol, and of its earlier fold, has history."""
        covers(self.loaded.name, self.loaded.first, self.loaded.end, protocol)

    def publish_profiles(self, protocol: Protocol) -> None:
        """Publish the card profiles of every midnight that the protocol needs and the store lacks."""
        wanted = batch.midnights(protocol.earlier().train_start, protocol.test_end)
        missing = [midnight for midnight in wanted if midnight not in self.loaded.midnights]
        if not missing:
            return
        file = self.settings.home / PROFILES_FILE
        profiles = pd.read_parquet(file) if file.exists() else None
        batch.publish(self.settings, missing, profiles)
        known = tuple(sorted({*self.loaded.midnights, *missing}))
        _write(self.settings, self.loaded.model_copy(update={"midnights": known}))


def covers(name: str, first: datetime, end: datetime, protocol: Protocol) -> None:
    """Raise `UncoveredWindow` unless [first, end) holds the protocol and its earlier fold, and say what would fit."""
    fold = protocol.earlier()
    if first <= fold.train_start and protocol.test_end <= end:
        return
    earliest = first + (protocol.train_start - fold.train_start)
    latest = end - (protocol.test_end - protocol.train_start)
    fits = (
        f"with these lengths --train-start can be {earliest:%F} to {latest:%F}"
        if earliest <= latest
        else f"these lengths need {(protocol.test_end - fold.train_start).days} days of {(end - first).days}: "
        "shorten --train-days, --delay-days or --test-days"
    )
    raise UncoveredWindow(
        f"Data set '{name}' covers {first:%F} to {end - DAY:%F}; the window needs {fold.train_start:%F} (the earlier "
        f"fold's first day) to {protocol.test_end - DAY:%F} (the last test day). {fits[0].upper()}{fits[1:]}."
    )


def prepare(current: Settings, name: str, rows: int, progress: Callable[[str], None]) -> History:
    """The store of a data set, loaded and validated unless it is there already.

    `name` is a data set's or a file's, `rows` the size of a generated one. Raises what loading and validating raise.
    """
    seen, dataset = digest(current, name, rows)
    folder = f"{Path(name).stem}-{seen[:12]}"
    # The data set's own store is files, whatever the platform's is: nobody else reads it.
    own = current.model_copy(
        update={"home": current.home / "datasets" / folder, "profile": "embedded", "registry_url": None}
    )
    state = own.home / STATE_FILE
    if state.exists():
        progress(f"using the history of {name} at {own.home}")
        return History(own, apply(own), Loaded.model_validate_json(state.read_bytes()))
    progress(f"loading and validating {name}")
    dataset = dataset or load_dataset(name, current.data, rows=rows)
    require(validate(dataset))
    store = apply(own)
    backfill.load(dataset.transactions, own, "history")
    if dataset.profiles is not None:
        dataset.profiles.to_parquet(own.home / PROFILES_FILE)
    stamps = dataset.transactions["timestamp"]
    first, last = (stamp.floor("D").to_pydatetime() for stamp in (stamps.min(), stamps.max()))
    loaded = Loaded(name=dataset.name, digest=seen, rows=len(stamps), first=first, end=last + DAY)
    _write(own, loaded)
    return History(own, store, loaded)


def digest(current: Settings, name: str, rows: int) -> tuple[str, Dataset | None]:
    """What tells this data from other data of the name; generated data are known by their rows, and given with it."""
    seen = hashlib.blake2b(digest_size=16)
    if name == synthetic.NAME:
        dataset = load_dataset(name, current.data, rows=rows)
        seen.update(pd.util.hash_pandas_object(dataset.transactions, index=False).to_numpy().tobytes())
        return seen.hexdigest(), dataset
    public = catalogue.PUBLIC.get(name)
    path = current.data / public.FILE if public else Path(name)
    for file in (path, path.with_suffix(".mapping.toml")):
        if file.is_file():
            seen.update(file.read_bytes())
    return seen.hexdigest(), None


def _write(current: Settings, loaded: Loaded) -> None:
    draft = (current.home / STATE_FILE).with_suffix(".new")
    draft.write_text(loaded.model_dump_json(indent=1))
    draft.replace(current.home / STATE_FILE)
