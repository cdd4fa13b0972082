"""Stands between the platform and one program it runs: `guard.py GRACE LIFELINE COMMAND...`.

Invariant: when the program ends, the guard is told to, or whoever started it is gone, nothing the program started lives
on. With LIFELINE 1 standard input is a pipe that the starter holds open and never writes: its end is the starter's end,
kill -9 included. With 0 the guard outlives its starter.

It runs as a file, by path, so that it is up before anything of the project is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LEFTOVER_GRACE = 2.0


class Guard:
    """One program under guard; `run` returns its exit code, as a shell would."""

    def __init__(self, command: list[str], grace: float, lifeline: bool) -> None:
        self._grace = grace
        self._lifeline = lifeline
        self._parent = os.getppid()
        self._told = False
        self._status: int | None = None
        self._wake, write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._tell)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # Children of a program that died come to the guard instead of to init, so that it can end them.
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._program = subprocess.Popen(  # noqa: S603 - the command is the platform's own
            command,
            stdin=subprocess.DEVNULL,
            # Should the guard itself be killed, the program is told to end.
            preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
        )

    def run(self) -> int:
        while self._status is None and not self._told and not self._alone():
            self._sleep(1.0)
        self._end()
        return os.waitstatus_to_exitcode(self._status) if self._status is not None else 1

    def _tell(self, *_: object) -> None:
        self._told = True

    def _alone(self) -> bool:
        if not self._lifeline:
            return False
        ended = select.select([0], [], [], 0)[0] and not os.read(0, 1)
        return bool(ended) or os.getppid() != self._parent

    def _sleep(self, seconds: float) -> None:
        """Until a signal comes, the lifeline ends or the time is up; then collect the children that ended."""
        watched = [self._wake, 0] if self._lifeline and not self._told else [self._wake]
        select.select(watched, [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 1024)
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._program.pid:
                    self._status = found[1]

    def _end(self) -> None:
        """The program first, so that it can end its own workers; then whatever it left behind."""
        self._told = True
        if self._status is None:
            os.kill(self._program.pid, signal.SIGTERM)
        deadline = time.monotonic() + self._grace
        while self._status is None and time.monotonic() < deadline:
            self._sleep(0.1)
        _signal_all(signal.SIGTERM)
        deadline = time.monotonic() + LEFTOVER_GRACE
        while _descendants() and time.monotonic() < deadline:
            self._sleep(0.1)
        while _descendants():
            _signal_all(signal.SIGKILL)
            self._sleep(0.1)


def _descendants() -> list[int]:
    import psutil

    found = psutil.Process().children(recursive=True)
    return [process.pid for process in found if process.status() != psutil.STATUS_ZOMBIE]


def _signal_all(number: signal.Signals) -> None:
    for pid in _descendants():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    grace, lifeline, *command = sys.argv[1:]
    code = Guard(command, float(grace), lifeline == "1").run()
    sys.exit(code if code >= 0 else 128 - code)
