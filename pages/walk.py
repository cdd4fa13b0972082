"""Walk through a page as a reader would: run its commands in order, in a fresh clone, and tell what each section took.

`python -m pages.walk docs/tutorial.md [--skip "See the whole loop"]`; exit code 1 at the first command that fails. What
is not committed is not walked through. The clone has a platform of its own, at free ports.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from feature_repo.settings import ROOT
from monitoring.supervision import free_ports
from pages.fences import Fence, fences

PORTS = ("PORT", "MONITOR_PORT", "STREAM_METRICS_PORT", "DECISIONS_METRICS_PORT", "FEEDBACK_METRICS_PORT")


def surroundings() -> dict[str, str]:
    """The environment of somebody who has set nothing, but for ports that nobody else uses."""
    redis, mlflow, *others = free_ports(2 + len(PORTS))
    own = {f"FRAUD_{name}": str(port) for name, port in zip(PORTS, others, strict=True)}
    own |= {"FRAUD_REDIS_URL": f"redis://127.0.0.1:{redis}/0", "FRAUD_MLFLOW_URL": f"http://127.0.0.1:{mlflow}"}
    left = {name: value for name, value in os.environ.items() if not name.startswith(("FRAUD_", "PYTHON"))}
    return left | own


def walk(page: Path, folder: Path, own: dict[str, str], skipped: list[str], seconds: dict[str, float]) -> None:
    """Run the page's unmarked fences in this clone and environment; adds to each heading's seconds.

    Raises `CalledProcessError` where a command fails.
    """
    for fence in fences(page.read_text(encoding="utf-8")):
        if not fence.is_shell or fence.mark or any(word in fence.heading for word in skipped):
            continue
        began = time.perf_counter()
        try:
            _run(fence, folder, own)
        finally:
            seconds[fence.heading] = seconds.get(fence.heading, 0.0) + time.perf_counter() - began


def _run(fence: Fence, folder: Path, own: dict[str, str]) -> None:
    print(f"\n── {fence.heading}\n{fence.text}", flush=True)
    subprocess.run(["bash", "-euo", "pipefail", "-c", fence.text], cwd=folder, env=own, check=True)  # noqa: S603, S607


def main() -> None:
    """Walk, tell the times, and leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("--skip", action="append", default=[], metavar="WORDS", help="leave out sections so headed")
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="newcomer-"))
    folder = home / "tollgate"
    own, seconds, failed = surroundings(), dict[str, float](), ""
    try:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)  # noqa: S603, S607
        walk(arguments.page.resolve(), folder, own, arguments.skip, seconds)
    except subprocess.CalledProcessError as error:
        failed = f"\nA command of the last section ended with code {error.returncode}."
    finally:
        if (folder / ".venv").exists():
            subprocess.run(["make", "--silent", "down"], cwd=folder, env=own, check=True)  # noqa: S607
        shutil.rmtree(home)
    print(f"\n{arguments.page}, as it stands:")
    for heading, took in seconds.items():
        print(f"{took:7.0f} s  {heading}")
    print(f"{sum(seconds.values()):7.0f} s  in all")
    sys.exit(failed or None)


if __name__ == "__main__":
    main()
