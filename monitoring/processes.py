"""The embedded platform as running processes: owned by a `with` block, or left running by `up` until `down`.

    with Platform(settings()) as platform:
        platform.start("redis", "mlflow")

Invariant: parts stop in the reverse order of their start, and what `up` started is on record before it is awaited.
`python -m monitoring.processes up [PART...] | down | status`
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from feature_repo.settings import Settings, settings
from monitoring import platform_record
from monitoring.parts import PARTS, STORES
from monitoring.supervision import PartFailed, Running, free_ports, start, stop, wait
from monitoring.targets import METRICS_PORTS, write_targets


def at_free_ports(current: Settings) -> Settings:
    """The same settings with every part at free ports of this machine."""
    redis, mlflow, service, *telling = free_ports(3 + len(METRICS_PORTS))
    addresses = {"redis_url": f"redis://127.0.0.1:{redis}/0", "mlflow_url": f"http://127.0.0.1:{mlflow}"}
    ports = dict(zip(METRICS_PORTS.values(), telling, strict=True))
    return current.model_copy(update={**addresses, "host": "127.0.0.1", "port": service, **ports})


@contextlib.contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Make SIGTERM leave the block as `SystemExit`, so that it ends what Ctrl-C ends. For the main thread."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Platform:
    """Parts that live no longer than this process, and no longer than the `with` block around them."""

    def __init__(self, current: Settings | None = None) -> None:
        self.settings = current or settings()
        self.running: dict[str, Running] = {}
        self._owner = os.getpid()

    def start(self, *names: str) -> None:
        """Start parts (`redis`, `mlflow`, `service`, `stream`, ...) and return when all are ready.

        Raises `PartFailed` naming the part and the reason; parts already running stay until `stop`.
        """
        atexit.register(self.stop)
        _start(self.settings, names, self.running, detached=False, record=lambda: None)

    def stop(self, *names: str) -> None:
        """Stop these parts (default: all), the last started first. A fork of the process stops nothing."""
        if os.getpid() != self._owner:
            return
        stopping = [name for name in reversed(self.running) if not names or name in names]
        for name in stopping:
            stop(self.running[name])
            del self.running[name]
        if stopping:
            write_targets(self.settings, self.running)
        if not self.running:
            atexit.unregister(self.stop)

    def log(self, name: str) -> Path:
        """The file a part writes to."""
        return _logs(self.settings) / f"{name}.log"

    def __enter__(self) -> Platform:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def up(current: Settings, names: Sequence[str] = STORES) -> dict[str, Running]:
    """Start parts that outlive this process; returns them.

    Raises `PartFailed` if one of them is already up or does not become ready; then none of this call's is left.
    """
    with platform_record.locked(current) as running:
        for name in names:
            if name in running and running[name].alive():
                at = running[name]
                raise PartFailed(f"Part '{name}' is already up at {at.url} (process {at.pid}). Stop with `make down`.")
        before = {name: at for name, at in running.items() if name not in names}
        running.clear()
        running.update(before)
        try:
            _start(current, names, running, detached=True, record=lambda: platform_record.write(current, running))
        except BaseException:
            for name in [name for name in reversed(running) if name not in before]:
                stop(running.pop(name))
            raise
        return {name: running[name] for name in names}


def down(current: Settings, names: Sequence[str] = ()) -> list[str]:
    """Stop what `up` left running (default: all), the last started first; returns the parts that were alive."""
    stopped = []
    with platform_record.locked(current) as running:
        for name in [name for name in reversed(running) if not names or name in names]:
            if running[name].alive():
                stopped.append(name)
            stop(running.pop(name))
            platform_record.write(current, running)
        write_targets(current, running)
    return stopped


def status(current: Settings) -> dict[str, Running]:
    """What `up` started, running or not."""
    return platform_record.read(current)


def _start(
    current: Settings, names: Sequence[str], running: dict[str, Running], *, detached: bool, record: Callable[[], None]
) -> None:
    unknown = sorted(set(names) - set(PARTS))
    if unknown:
        raise PartFailed(f"Part '{unknown[0]}' does not exist; there are {', '.join(PARTS)}.")
    for stage in ([name for name in names if name in STORES], [name for name in names if name not in STORES]):
        parts = [PARTS[name](current) for name in stage]
        for part in parts:
            if part.name in running:
                raise PartFailed(f"Part '{part.name}' was already started here; stop it first.")
            running[part.name] = start(part, _logs(current), detached=detached)
            record()
        write_targets(current, running)
        for part in parts:
            wait(part, running[part.name])


def _logs(current: Settings) -> Path:
    return current.home / "logs"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 done, 1 refused or failed, for `status` 1 when nothing runs."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.processes", description="The local platform.")
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("up", help="start parts that stay until `down`")
    starting.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: redis mlflow")
    commands.add_parser("down", help="stop them")
    commands.add_parser("status", help="what is running, and where")
    given = parser.parse_args(arguments)
    try:
        with ending_on_sigterm():
            return _run(given.command, getattr(given, "parts", None) or STORES)
    except PartFailed as error:
        print(error, file=sys.stderr)
        return 1


def _run(command: str, parts: Sequence[str]) -> int:
    if command == "down":
        stopped = down(settings())
        print(f"Stopped {', '.join(stopped)}." if stopped else "Nothing was running.")
        return 0
    shown = up(settings(), parts) if command == "up" else status(settings())
    for name, at in shown.items():
        print(f"{name:8} {at.url:32} {f'process {at.pid}' if at.alive() else 'not running':16} log {at.log}")
    return 0 if any(at.alive() for at in shown.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
