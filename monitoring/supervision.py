"""Runs a program as a part of the local platform: guarded, logged, awaited until ready, stopped with all it started.

Invariant: a part that was started is either stopped here or ends with the process that started it; only a detached
one stays, and its `Running` record is enough to stop it later.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

GUARD = Path(__file__).with_name("guard.py")
TAIL = 15
SPARE = 5.0
"""Seconds a guard gets beyond its program's own grace before it is killed."""


class PartFailed(RuntimeError):
    """A part could not be started or did not become ready; the message says why and what to do."""


@dataclass(frozen=True)
class Part:
    """A program to run. `ready` answers at once, and True when the part can be used; seconds in `deadline`, `grace`.

    `preparation` is a command that must have succeeded before the program starts.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    url: str
    ready: Callable[[], bool]
    address: tuple[str, int] | None = None
    setting: str = ""
    preparation: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    deadline: float = 60.0
    grace: float = 10.0


@dataclass
class Running:
    """A part that was started: its guard's process id and command line, and where its log is."""

    name: str
    pid: int
    command: list[str]
    url: str
    log: Path
    grace: float
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def alive(self) -> bool:
        """Whether the guard runs, and with it the part; a process that merely got the same number does not count."""
        if self.process is not None:
            return self.process.poll() is None
        try:
            return psutil.Process(self.pid).cmdline() == self.command
        except psutil.Error:
            return False

    def processes(self) -> list[psutil.Process]:
        """Every process of the part that runs, the guard first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            guard = psutil.Process(self.pid)
            family = [guard, *guard.children(recursive=True)] if self.alive() else []
            return [each for each in family if each.status() != psutil.STATUS_ZOMBIE]
        return []


def start(part: Part, logs: Path, *, detached: bool = False) -> Running:
    """Start a part, its output going to `logs/<name>.log`; await it with `wait`.

    Raises `PartFailed` if its port is taken or its preparation fails.
    """
    if part.address:
        _require_free(part.name, *part.address, part.setting)
    logs.mkdir(parents=True, exist_ok=True)
    part.folder.mkdir(parents=True, exist_ok=True)
    if part.preparation:
        _prepare(part)
    log = logs / f"{part.name}.log"
    command = [sys.executable, "-I", str(GUARD), str(part.grace), "0" if detached else "1", *part.command]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - the command is the platform's own
            command,
            cwd=part.folder,
            env=os.environ | part.environment,
            stdin=subprocess.DEVNULL if detached else subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Running(part.name, process.pid, command, part.url, log, part.grace, process)


def _prepare(part: Part) -> None:
    environment = os.environ | part.environment
    done = subprocess.run(part.preparation, cwd=part.folder, env=environment, capture_output=True, text=True)  # noqa: S603 - our own
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-TAIL:]
        raise PartFailed(f"Part '{part.name}' cannot start: " + "\n".join(said))


def wait(part: Part, running: Running) -> None:
    """Return when the part is ready.

    Raises `PartFailed`, with the end of its log, if it ends or misses its deadline before.
    """
    deadline = time.monotonic() + part.deadline
    while not part.ready():
        if not running.alive():
            code = "unknown" if running.process is None else running.process.returncode
            raise PartFailed(
                f"Part '{part.name}' ended with code {code} before it was ready; "
                f"{running.log} ends with:\n{tail(running.log)}"
            )
        if time.monotonic() > deadline:
            raise PartFailed(
                f"Part '{part.name}' was not ready after {part.deadline:g} s (waited for {part.url}); "
                f"{running.log} ends with:\n{tail(running.log)}"
            )
        time.sleep(0.05)


def stop(running: Running) -> None:
    """End a part and everything it started: asked first, killed when its grace is over. Stopping twice is allowed."""
    for number, patience in ((signal.SIGTERM, running.grace + SPARE), (signal.SIGKILL, SPARE)):
        if running.alive():
            os.kill(running.pid, number)
        deadline = time.monotonic() + patience
        while running.alive() and time.monotonic() < deadline:
            time.sleep(0.02)
    left = _leftovers(running.pid)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=SPARE)
    if running.process is not None:
        running.process.wait()
        if running.process.stdin is not None:
            running.process.stdin.close()


def kill(running: Running) -> None:
    """End a part as a power cut would end its processes: none is asked. Killing twice is allowed."""
    programs = running.processes()[1:]
    for program in programs:
        with contextlib.suppress(psutil.NoSuchProcess):
            program.kill()
    psutil.wait_procs(programs, timeout=SPARE)
    stop(running)


def tail(log: Path, lines: int = TAIL) -> str:
    """The last lines of a log, indented."""
    text = log.read_text(errors="replace").splitlines()[-lines:] if log.exists() else []
    return "\n".join(f"  {line}" for line in text) or "  (nothing)"


def _leftovers(guard: int) -> list[psutil.Process]:
    """What outlived a guard that was killed: its session. A number in use again is somebody else's session."""
    with contextlib.suppress(psutil.Error):
        if psutil.Process(guard).status() != psutil.STATUS_ZOMBIE:
            return []
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == guard and process.pid != guard:
                found.append(process)
    return found


def _require_free(name: str, host: str, port: int, setting: str) -> None:
    with socket.socket() as probe:
        # As servers do: a port whose last connections are still winding down is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PartFailed(
                f"Part '{name}': port {port} of {host} cannot be used ({error.strerror}). "
                f"Stop what listens there, or set {setting} to another port."
            ) from None


def free_ports(count: int) -> Sequence[int]:
    """Ports of 127.0.0.1 that are free now, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
