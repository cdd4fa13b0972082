"""The record of what `up` left running: one JSON file in the platform's home.

Invariant: one `up` or `down` at a time changes it, and it is replaced whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from feature_repo.settings import Settings
from monitoring.supervision import Running

KEPT = ("name", "pid", "command", "url", "grace")


def read(current: Settings) -> dict[str, Running]:
    """The recorded parts by name, in the order of their start; they may have ended since."""
    path = _file(current)
    entries: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return {entry["name"]: Running(**entry | {"log": Path(entry["log"])}) for entry in entries}


def write(current: Settings, running: Mapping[str, Running]) -> None:
    """Replace the record."""
    entries = [{key: getattr(at, key) for key in KEPT} | {"log": str(at.log)} for at in running.values()]
    draft = _file(current).with_suffix(".new")
    draft.write_text(json.dumps(entries, indent=1))
    draft.replace(_file(current))


@contextlib.contextmanager
def locked(current: Settings) -> Iterator[dict[str, Running]]:
    """The record, held for this caller alone and written back at the end, whatever happened."""
    current.home.mkdir(parents=True, exist_ok=True)
    with (current.home / "platform.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = read(current)
        try:
            yield running
        finally:
            write(current, running)


def _file(current: Settings) -> Path:
    return current.home / "platform.json"
