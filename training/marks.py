"""How far a round has come: a folder of its own, and a mark for each step that is done, with digests of its files.

Invariant: a mark is there whole or not at all, and one whose files are not what they were counts as not there. One
process at a time works below a home; who dies lets go.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


class Busy(RuntimeError):
    """Another round is running."""


@contextlib.contextmanager
def alone(home: Path) -> Iterator[None]:
    """Hold the lock of a home; raises `Busy` where another process holds it. It ends with the process."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"Another round is running below {home}; wait for its end.") from None
        yield


class Marks:
    """The marks of one round, named by its key, below a home."""

    def __init__(self, home: Path, key: str) -> None:
        self.key = key
        self.folder = home / key
        self.folder.mkdir(parents=True, exist_ok=True)

    def found(self, step: str) -> dict[str, Any] | None:
        """What a step that is done found; null where it is not, or its files are not as it left them."""
        try:
            mark = json.loads(self._file(step).read_text())
        except FileNotFoundError:
            return None
        if any(digest(self.folder / name) != known for name, known in mark["files"].items()):
            return None
        result: dict[str, Any] = mark["found"]
        return result

    def done(self, step: str, found: dict[str, Any], files: Sequence[str] = ()) -> None:
        """Mark a step as done, with what it found and the digests of the files that it leaves in `folder`."""
        mark = {
            "step": step,
            "at": datetime.now(UTC).isoformat(),
            "found": found,
            "files": {name: digest(self.folder / name) for name in files},
        }
        draft = self._file(step).with_suffix(".new")
        draft.write_text(json.dumps(mark, indent=1))
        draft.replace(self._file(step))

    def forget(self, steps: Sequence[str]) -> None:
        """Take the marks of steps away."""
        for step in steps:
            self._file(step).unlink(missing_ok=True)

    def tidy(self, keep: int) -> None:
        """Remove the folders of all but the newest rounds of this home."""
        rounds = [path for path in self.folder.parent.iterdir() if path.is_dir() and path != self.folder]
        newest = sorted(rounds, key=lambda path: path.stat().st_mtime, reverse=True)
        for path in newest[max(keep - 1, 0) :]:
            shutil.rmtree(path)

    def _file(self, step: str) -> Path:
        return self.folder / f"{step}.json"


def digest(file: Path) -> str | None:
    """A digest of a file's bytes; null where there is none."""
    if not file.exists():
        return None
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "blake2b").hexdigest()[:32]
