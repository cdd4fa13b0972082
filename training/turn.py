"""One change of champion at a time, wherever the commands run: a name in MLflow that only one of them can take.

MLflow has no compare-and-set, but of two that create a registered model of one name one fails. The name is taken for
the moment of the change alone, not while a version is judged.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from training.versions import RegistryFailed, Versions, someone, utc_now

SUFFIX = ".changing"
AT_TAG, BY_TAG = "tollgate.at", "tollgate.by"

ABANDONED_AFTER = timedelta(minutes=2)
"""A change takes seconds; a name held for longer was left behind by a command that died."""

PATIENCE = 30.0
PAUSE = 0.2


class Busy(RuntimeError):
    """Another command is changing the champion, and does not come to its end."""


@contextlib.contextmanager
def turn(
    versions: Versions,
    patience: float = PATIENCE,
    now: Callable[[], datetime] = utc_now,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the model's turn for the length of the block; raises `Busy` after `patience` seconds of waiting."""
    name = versions.name + SUFFIX
    waited = 0.0
    while (holder := _take(versions, name, now())) is not None:
        if waited >= patience:
            raise Busy(f"Model '{versions.name}': {holder} is changing the champion. Try again when it is done.")
        pause(PAUSE)
        waited += PAUSE
    try:
        yield
    finally:
        with versions.failures("the end of the change"):
            versions.client.delete_registered_model(name)


def _take(versions: Versions, name: str, now: datetime) -> str | None:
    """Take the name; else who holds it. One that was left behind is given free, for the next attempt."""
    from mlflow.exceptions import MlflowException

    try:
        with versions.failures("the turn"):
            tags = {AT_TAG: now.isoformat(), BY_TAG: someone()}
            versions.client.create_registered_model(name, tags, f"Held while '{versions.name}' changes its champion.")
        return None
    except RegistryFailed as error:
        cause = error.__cause__
        if not isinstance(cause, MlflowException) or cause.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    try:
        with versions.failures("the turn"):
            held = versions.client.get_registered_model(name).tags
            if now - datetime.fromisoformat(held[AT_TAG]) > ABANDONED_AFTER:
                versions.client.delete_registered_model(name)
    except RegistryFailed as error:
        cause = error.__cause__
        if not isinstance(cause, MlflowException) or cause.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return "someone who has just finished"
    return held[BY_TAG]
