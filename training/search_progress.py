"""What a person who waits for a search sees: a bar for each candidate, with the best score so far."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars


class Progress(Protocol):
    """Told of a search as it goes."""

    def of(self, name: str, trials: int | None) -> AbstractContextManager[None]: ...

    def trial(self, made: int, best: float) -> None: ...


class Silent:
    """Nobody waits."""

    @contextmanager
    def of(self, name: str, trials: int | None) -> Iterator[None]:
        yield

    def trial(self, made: int, best: float) -> None:
        """Nothing is shown."""


class Shown:
    """A bar on a console; without a number of trials it tells of the time alone."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def of(self, name: str, trials: int | None) -> Iterator[None]:
        """Show a search's bar while it lasts; it stays when the next one begins."""
        text = TextColumn("{task.description}  best {task.fields[best]}")
        self._bars = Bars(text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=self._console)
        self._task = self._bars.add_task(f"{name:<24}", total=trials, best="-")
        with self._bars:
            yield

    def trial(self, made: int, best: float) -> None:
        """Move the bar on."""
        self._bars.update(self._task, completed=made, best=f"{best:.4f}")
