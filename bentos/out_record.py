"""The record of a challenger that is out, in a file: a restart keeps it, and the workers of a machine share it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from pydantic import ValidationError

from bentos.lineup_card import ChallengerOut

logger = logging.getLogger("bentoml.service.tollgate.models")


class OutRecord:
    """At most one challenger's record; a disk that fails costs the record and nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> ChallengerOut | None:
        """The record, None where there is none that can be read."""
        try:
            return ChallengerOut.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            logger.warning("The record %s is passed over: %s", self._path, error)
            return None

    def write(self, out: ChallengerOut) -> None:
        """Keep the record, in the place of an earlier one."""
        unfinished = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(out.model_dump_json())
            unfinished.replace(self._path)
        except OSError as error:
            logger.warning("That the challenger is out could not be recorded in %s: %s", self._path, error)

    def clear(self) -> None:
        """Forget the record."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("The record %s could not be removed: %s", self._path, error)
