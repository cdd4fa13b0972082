"""Each command of the README and the docs is run by something, or its fence says what it needs."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from feature_repo.settings import ROOT
from pages.fences import Fence, commands, fences

WALKED = ROOT / "docs" / "tutorial.md"
"""Its commands are run as they stand: `make newcomer`."""

PAGES = sorted(
    [ROOT / "README.md", *(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "reference")]
)
MARKS = {
    "needs a cluster",
    "needs an AWS account",
    "needs Docker",
    "needs Kafka",
    "needs Postgres and Redis",
    "needs a running platform",
    "needs a running platform and Prometheus",
    "needs a registered model",
    "takes minutes",
    "takes minutes; the candidate is yours",
    "run by make newcomer",
    "with the address that you have it from",
    "needs certificates",
}
"""What a fence may say of itself instead of being run by a test; a reader sees it above the fence."""

WITHOUT_ARGUMENTS = {"training.datasets.catalogue", "stream_jobs.history", "stream_jobs.velocity"}
"""Modules that read no arguments: here it is enough that they are there; tests start all of them."""

TRIED_BY_ITS_PARTS = {"training.tune": "training.search"}
"""A module that no test starts, and what it is made of, which tests try."""

QUICK = {
    "python -m monitoring.metrics": "fraud_decisions_logged_total",
    "python -m k8s.capacity": "payments/s at the peak",
    "python -m k8s.capacity --peak 2500 --cards 20000000": "2,500",
    "make data": "FRAUD_DATA",
    "make help": "make demo",
}
"""Commands that take a second or two, and something that they must say: they are run here."""


@dataclass(frozen=True)
class Command:
    """One command of a page."""

    page: Path
    fence: Fence
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.fence.line}: {self.text}"


def documented() -> Iterator[Command]:
    for page in PAGES:
        for fence in fences(page.read_text(encoding="utf-8")):
            if fence.is_shell:
                for text in commands(fence):
                    for part in re.split(r" && ", text):
                        yield Command(page, fence, part.strip("() "))


COMMANDS = list(documented())


def words(text: str) -> list[str]:
    """The words of a command up to a pipe, without the settings ahead of it; brackets around options are taken away."""
    found = shlex.split(re.sub(r"\[(--[^\]]*)\]", r"\1", text))
    found = found[: found.index("|")] if "|" in found else found
    while found and re.fullmatch(r"[A-Z_]+=.*", found[0]):
        found = found[1:]
    return found


def module_of(text: str) -> list[str]:
    """Module and arguments of a `python -m`; empty for another command."""
    if not re.match(r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?python -m ", text):
        return []
    return words(text)[2:]


def targets_of(text: str) -> list[str]:
    """The targets that a `make` is asked for."""
    found = words(text) if re.match(r"(?:[A-Z_]+=\S+ )*make ", text) else []
    return [word for word in found[1:] if "=" not in word]


def run_by_ci() -> str:
    """Every line that CI runs, here or at the forge."""
    files = [*(ROOT / ".ci").iterdir(), *(ROOT / ".github" / "workflows").iterdir()]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def test_there_are_commands():
    assert len(COMMANDS) > 120


def test_every_fence_of_commands_that_says_what_it_needs_says_it_in_words_we_know():
    marked = {fence.mark for page in PAGES for fence in fences(page.read_text(encoding="utf-8")) if fence.is_shell}
    assert marked - {""} <= MARKS


def test_no_command_hides_in_a_fence_without_a_language():
    found = [
        f"{page.relative_to(ROOT)}:{fence.line}"
        for page in PAGES
        for fence in fences(page.read_text(encoding="utf-8"))
        if not fence.language and re.search(r"^\$? ?(?:make|python -m|curl|kubectl|docker) ", fence.text, re.MULTILINE)
    ]
    assert found == []


def test_every_make_target_is_there():
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert [each.place for each in COMMANDS if not set(targets_of(each.text)) <= targets] == []


ASKED = [(each, module_of(each.text)) for each in COMMANDS if module_of(each.text)]
PARSED = [(each, found) for each, found in ASKED if found[0] not in ("pytest", *WITHOUT_ARGUMENTS, "bytewax.run")]
BROKEN = {
    "--nope": ["training.train", "--nope"],
    "much": ["monitoring.traffic", "--weight", "much"],
    "promte": ["training.promote", "promte"],
}
"""Commands that no parser may take, by what it must complain of."""


@pytest.fixture(scope="module")
def complaints() -> list[str]:
    """Of each of `PARSED`, and then of each of `BROKEN`: all in one process, for each would import Feast and MLflow."""
    asked = [*(filled(found) for _, found in PARSED), *BROKEN.values()]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.docs.parsing"],
        input=json.dumps(asked), cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == len(asked)
    return found


def test_every_documented_module_is_there():
    assert [each.place for each, (module, *_) in ASKED if importlib.util.find_spec(module) is None] == []


def test_every_module_takes_the_arguments_it_is_shown_with(complaints: list[str]):
    told = zip(PARSED, complaints[: len(PARSED)], strict=True)
    assert [f"{each.place}: {said}" for (each, _), said in told if said] == []


def test_the_parsers_are_asked(complaints: list[str]):
    assert [word in said for word, said in zip(BROKEN, complaints[len(PARSED) :], strict=True)] == [True] * 3


def test_what_is_said_to_be_run_by_make_newcomer_is():
    walked = {each.text for each in COMMANDS if each.page == WALKED}
    said = [each for each in COMMANDS if each.fence.mark == "run by make newcomer"]
    assert said
    assert [each.place for each in said if each.text not in walked] == []


def filled(found: list[str]) -> list[str]:
    """The arguments with something in the place of what a page writes in capitals."""
    stand_ins = {"INSTANT": "2024-05-01T00:00:00+00:00", "V": "1"}
    return [stand_ins.get(word, word) for word in found]


def test_modules_shown_without_arguments_are_run_by_a_test():
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    tests += run_by_ci() + (ROOT / "Makefile").read_text()
    shown = {module_of(each.text)[0] for each in COMMANDS if module_of(each.text)} - {"pytest", "bytewax.run"}
    unknown = []
    for module in sorted(TRIED_BY_ITS_PARTS.get(each, each) for each in shown):
        package, _, name = module.rpartition(".")
        told = rf"{re.escape(module)}\b|from {re.escape(package)} import [^\n]*\b{name}\b"
        if not re.search(told, tests):
            unknown.append(module)
    assert unknown == []


def test_every_command_is_run_or_its_fence_says_what_it_needs():
    ran = run_by_ci()
    left = []
    for each in COMMANDS:
        if each.fence.mark or each.page == WALKED or each.text in QUICK or module_of(each.text):
            continue
        if (targets := targets_of(each.text)) and all(
            re.search(rf"\bmake {name}\b|\b{name}[,\]]", ran) for name in targets
        ):
            continue
        if each.text.startswith(".ci/") and each.text in ran:
            continue
        left.append(each.place)
    assert left == [], 'run it in a test, or say in the fence what it needs: ```console title="needs ..."'


@pytest.mark.parametrize("text", QUICK)
def test_quick_commands_do_what_they_say(text: str):
    command = words(text)
    if command[0] == "make":
        command = ["make", "--silent", "--assume-old=.venv/.ready", *command[1:]]
    else:
        command[0] = sys.executable
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert QUICK[text] in done.stdout
