"""The workflows by actionlint, and what they run against what there is: the same targets and scripts as on a laptop."""

from __future__ import annotations

import re
from typing import Any

import yaml

from feature_repo.settings import ROOT
from tests.deploy.tools import run

FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS: dict[str, Any] = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yml"))}
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands(workflow: str) -> str:
    steps = [step for job in WORKFLOWS[workflow]["jobs"].values() for step in job.get("steps", ())]
    return "\n".join(step["run"] for step in steps if "run" in step)


def test_actionlint_finds_nothing():
    assert run("actionlint", "-no-color") == ""


def test_every_target_and_script_that_is_run_exists():
    for name in WORKFLOWS:
        text = commands(name)
        asked = set(re.findall(r"\bmake ([a-z][a-z-]*)", text))
        if "matrix" in str(WORKFLOWS[name]):
            asked |= {
                target
                for job in WORKFLOWS[name]["jobs"].values()
                for target in job.get("strategy", {}).get("matrix", {}).get("target", ())
            }
        assert asked <= TARGETS, name
        for script in re.findall(r"(?<!\S)(\.ci/[\w-]+)", text):
            assert (ROOT / script).stat().st_mode & 0o111, script


def test_ci_runs_all_that_a_person_runs_by_one_script():
    wanted = {line for line in (ROOT / ".ci" / "run").read_text().splitlines() if re.match(r"make |\.ci/", line)}
    assert wanted <= set(commands("ci").splitlines())
    assert "make test-deploy" in commands("ci")


def test_no_workflow_may_write_but_where_it_says_so():
    for name, workflow in WORKFLOWS.items():
        assert workflow["permissions"] == {"contents": "read"}, name
        assert all("timeout-minutes" in job for job in workflow["jobs"].values() if "steps" in job), name


def test_what_others_made_has_a_version():
    used = re.findall(r"uses: (\S+)", "\n".join(path.read_text() for path in FOLDER.glob("*.yml")))
    assert len(used) > 10
    assert [one for one in used if not re.search(r"@v?\d|^\./", one)] == []


def test_a_release_is_taken_back_by_the_script_that_a_person_would_run():
    assert "python -m k8s.release --watch 600 switch" in commands("release")
    assert 'python -m k8s.release "$WHAT"' in commands("operate")
    # YAML 1.1 reads `on` as true.
    assert WORKFLOWS["operate"][True]["workflow_dispatch"]["inputs"]["what"]["options"] == ["back", "canary"]
