"""A measurement in a process of its own: what it imports, holds and compiles is nobody else's.

apart(measure, rows=1_000)   # measure(rows=1_000) of a module of tests.load, its dict with `peak_mb` added
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from feature_repo.settings import ROOT

RESULT = "RESULT "
MB = 1e6
STATUS = Path("/proc/self/status")


class MeasurementFailed(RuntimeError):
    """A measurement in its own process ended without a result; the message holds the end of what it said."""


def apart(function: Callable[..., Mapping[str, Any]], /, _environment: Any = None, **given: Any) -> dict[str, Any]:
    """The result of a module's function, whose arguments and result have a form in JSON, and `peak_mb` of its process.

    Raises `MeasurementFailed`.
    """
    command = [sys.executable, "-m", __name__, f"{function.__module__}:{function.__name__}", json.dumps(given)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | (_environment or {}), capture_output=True, text=True)
    *_, last = done.stdout.splitlines() or [""]
    if done.returncode or not last.startswith(RESULT):
        said = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise MeasurementFailed(f"{function.__module__}.{function.__name__} ended with {done.returncode}:\n{said}")
    found: dict[str, Any] = json.loads(last.removeprefix(RESULT))
    return found


def peak_mb() -> float:
    """The most memory this process has had resident, in MB."""
    if STATUS.exists():  # getrusage would also tell of the process that this one was forked from
        return status("VmHWM") / MB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB


def status(name: str) -> int:
    """Bytes of one line of what Linux says of this process."""
    [line] = [line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


def main() -> None:
    """Run one function and say what it found, in the last line."""
    module, _, name = sys.argv[1].partition(":")
    found = getattr(import_module(module), name)(**json.loads(sys.argv[2]))
    print(RESULT + json.dumps({**found, "peak_mb": round(peak_mb(), 1)}))


if __name__ == "__main__":
    main()
