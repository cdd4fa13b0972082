"""The programs that the tests of operation need: on PATH, or where `.ci/ops-tools` put them. A missing one fails."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from feature_repo.settings import ROOT
from monitoring.prometheus_local import program
from monitoring.supervision import PartFailed

RULES = ROOT / "monitoring" / "prometheus" / "rules"
CONFIG = ROOT / "monitoring" / "prometheus" / "prometheus.yml"
ROUTES = ROOT / "monitoring" / "alertmanager" / "alertmanager.yml"


def run(tool: str, *arguments: str | Path) -> str:
    """What a tool prints; the test fails with it where the tool does, and with what to install where it is missing."""
    try:
        found = program(tool)
    except PartFailed as error:
        pytest.fail(str(error))
    done = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
