"""The overlays as kustomize renders them, once for all tests."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from feature_repo.settings import ROOT
from k8s.draw_secrets import draw
from tests.deploy.tools import run

OVERLAYS = ("local", "prod", "prod-blue", "prod-green")
DRAWN = ROOT / "k8s" / "overlays" / "local" / "secrets"
WORKLOADS = ("Deployment", "StatefulSet", "CronJob", "Job")

Object = dict[str, Any]


@lru_cache
def rendered(overlay: str) -> str:
    """One overlay as YAML; overlays/local needs its secrets, which are drawn where they are not there."""
    if overlay == "local":
        draw(DRAWN)
    return run("kustomize", "build", f"k8s/overlays/{overlay}")


def objects(*overlays: str) -> list[Object]:
    """Every object of these overlays."""
    return [one for overlay in overlays for one in yaml.safe_load_all(rendered(overlay))]


def named(overlay: str, kind: str, name: str) -> Object:
    """The one object of a kind and name; kustomize adds a hash to the names of what it makes itself."""
    [found] = [
        one
        for one in objects(overlay)
        if one["kind"] == kind and name in (one["metadata"]["name"], one["metadata"]["name"].rpartition("-")[0])
    ]
    return found


def workloads(*overlays: str) -> list[Object]:
    """What makes pods."""
    return [one for one in objects(*overlays) if one["kind"] in WORKLOADS]


def pod(workload: Object) -> Object:
    """A workload's pod: its template's `spec`."""
    spec = workload["spec"]
    template = spec["jobTemplate"]["spec"]["template"] if workload["kind"] == "CronJob" else spec["template"]
    found: Object = template["spec"]
    return found


def containers(workload: Object) -> list[Object]:
    """Of a workload's pod all containers, those that set it up too."""
    spec = pod(workload)
    return [*spec.get("initContainers", ()), *spec["containers"]]


def written(overlay: str, folder: Path) -> Path:
    """An overlay as a file."""
    path = folder / f"{overlay}.yaml"
    path.write_text(rendered(overlay))
    return path
