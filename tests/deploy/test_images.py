"""Dockerfiles by hadolint, shell scripts' form by the shell, and docker-compose.yml by the loader that Docker uses."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from feature_repo.settings import ROOT
from tests.deploy.tools import run

SCRIPTS = sorted((ROOT / "k8s").rglob("*.sh"))


def test_hadolint_finds_nothing():
    run("hadolint", "k8s/images/jobs.Dockerfile")


def test_compose_s_own_loader_takes_it():
    loaded = yaml.safe_load(run("compose-go", "docker-compose.yml"))
    asked = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert set(loaded["services"]) == set(asked)
    assert loaded["services"]["service"]["environment"]["FRAUD_KAFKA_BOOTSTRAP"] == "kafka:9092"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_one(script: Path):
    assert script.stat().st_mode & 0o111
    assert script.read_text().startswith("#!/bin/sh\n")
    assert subprocess.run(["sh", "-n", script], capture_output=True, text=True).stderr == ""
