"""Images hold what their commands import, and not what others need."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from functools import lru_cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from feature_repo.settings import ROOT
from k8s.image_contents import IMAGES, LEFT_OUT, Image, libraries, size

OURS = ("feature_repo", "monitoring", "stream_jobs", "training", "bentos")
COMMANDS = {
    "service": ["bentos.service", "bentos.kafka_log"],
    "stream": [
        "stream_jobs.velocity",
        "stream_jobs.history",
        "stream_jobs.decisions",
        "stream_jobs.feedback",
        "stream_jobs.topics",
        "feature_repo.postgres_tables",
    ],
    "batch": [
        "training.prepare",
        "training.backfill",
        "training.train",
        "training.batch",
        "training.retrain",
        "training.skew_audit",
        "training.promote",
        "training.promote_command",
        "stream_jobs.rebuild",
        "monitoring.monitor",
        "monitoring.drift_job",
        "monitoring.quality_job",
        "monitoring.traffic",
        "feature_repo.postgres_tables",
    ],
}
ELSEWHERE = {
    # The offline store's driver: history is never read by the service.
    "service": {"adbc_driver_manager", "adbc_driver_postgresql"},
    "stream": set[str](),
    "batch": set[str](),
}
DOCKERFILE = (ROOT / "k8s" / "images" / "jobs.Dockerfile").read_text()


@lru_cache
def tree(module: str) -> tuple[Path, list[str]] | None:
    """A module's file and what it imports, at its top or within a function, but for the types' sake."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    found = []
    for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return Path(spec.origin), found


def reached(modules: list[str]) -> tuple[set[str], set[str]]:
    """Of our modules those that these import, and the packages of others."""
    ours, others, waiting = set[str](), set[str](), list(modules)
    while waiting:
        module = waiting.pop()
        top = module.split(".")[0]
        if top not in OURS:
            others.add(top)
            continue
        try:
            found = tree(module)
        except ModuleNotFoundError:  # a name in a module
            continue
        if found is not None and module not in ours:
            ours.add(module)
            waiting += found[1]
    return ours, others - set(sys.stdlib_module_names)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_image_holds_what_its_commands_import(name: str):
    image = IMAGES[name]
    held, known = set(libraries(image)), packages_distributions()
    ours, others = reached(COMMANDS[name])
    assert {module.split(".")[0] for module in ours} <= set(image.packages)
    absent = {
        package for package in others
        if package in known and not held & {canonicalize_name(each) for each in known[package]}
    }  # fmt: skip
    assert absent <= ELSEWHERE[name]


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("service", {"mlflow", "xgboost", "lightgbm", "scikit-learn", "scipy", "evidently", "bytewax", "matplotlib"}),
        ("stream", {"mlflow", "xgboost", "lightgbm", "scikit-learn", "onnxruntime", "evidently", "bentoml"}),
        ("batch", {"bentoml", "hypothesis", "ruff", "pytest"}),
        ("mlflow", {"feast", "xgboost", "evidently", "bentoml"}),
    ],
)
def test_an_image_does_not_hold_what_it_has_no_use_for(name: str, others: set[str]):
    assert set(libraries(IMAGES[name])) & (others | LEFT_OUT) == set()


def test_the_served_image_is_half_of_what_trains():
    weights = {name: sum(size(one) for one in libraries(IMAGES[name]).values()) for name in ("service", "batch")}
    assert weights["service"] < 0.6 * weights["batch"]


def test_the_dockerfile_installs_the_same_groups():
    for name in ("stream", "batch"):
        [stage] = re.findall(rf"AS {name}-libraries\n(.*?)\n\n", DOCKERFILE, re.DOTALL)
        assert tuple(re.findall(r"--extra (\w+)", stage)) == IMAGES[name].groups
    copied = re.findall(r"COPY (\w+) /app/\w+", DOCKERFILE)
    assert set(copied) == set(IMAGES["batch"].packages)
    excluded = (ROOT / "k8s" / "images" / "overrides.txt").read_text()
    assert set(re.findall(r"^([\w-]+) ;", excluded, re.MULTILINE)) == LEFT_OUT
    assert isinstance(IMAGES["mlflow"], Image)
