"""What a figure was measured on: without it a figure means nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from feature_repo.settings import ROOT
from monitoring.parts import redis_server

PACKAGES = (
    "feast",
    "bytewax",
    "confluent-kafka",
    "redis",
    "duckdb",
    "ibis-framework",
    "numba",
    "numpy",
    "pandas",
    "pyarrow",
)


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system, and how busy it was before anything began."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "ram_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Of Python, the Redis server, the packages that matter, and the commit."""
    found = {"python": platform.python_version(), "redis-server": _first_line(redis_server(), "--version").split()[2]}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    commit = _first_line("git", "describe", "--always", "--dirty")
    return found | ({"commit": commit} if commit else {})


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    named = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return named[0].partition(":")[2].strip() if named else platform.processor()


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    except OSError:
        return ""
    return (done.stdout.splitlines() or [""])[0]
