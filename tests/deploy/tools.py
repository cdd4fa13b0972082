"""The tools that `.ci/deploy-tools` brings; one that is not there fails the test that asks for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from feature_repo.settings import ROOT

TOOLS = ROOT / ".tollgate" / "tools" / "deploy"


def run(name: str, *arguments: str | Path, ok: tuple[int, ...] = (0,), **environment: str) -> str:
    """What a tool says, run from the project's root; another exit code than `ok` fails the test with all it said."""
    found = shutil.which(name, path=f"{TOOLS / 'bin'}:{os.environ['PATH']}")
    if found is None:
        pytest.fail(f"There is no {name}: run `.ci/deploy-tools`, which `make test-deploy` does first.")
    done = subprocess.run(
        [found, *arguments], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode in ok, f"{name} ended with {done.returncode}:\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout
