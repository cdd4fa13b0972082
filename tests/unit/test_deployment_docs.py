"""docs/deployment.md against what it speaks of: links, commands, images and their sizes, schedules."""

from __future__ import annotations

import importlib.util
import re

import pytest
import yaml

from feature_repo.settings import ROOT
from k8s.image_contents import IMAGES, libraries, size

DOCS = ROOT / "docs"
PAGES = ["deployment.md", "capacity.md", "disaster-recovery.md"]
TEXT = (DOCS / "deployment.md").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", (DOCS / page).read_text())]
    assert links
    assert [link for link in links if link and not link.startswith("http") and not (DOCS / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_there(page: str):
    text = (DOCS / page).read_text()
    modules = set(re.findall(r"python -m ([\w.]+)", text))
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:^|`|&& )make ([a-z][a-z-]*)", text, re.MULTILINE)) <= set(targets)
    assert [
        path for path in re.findall(r"`((?:k8s|tests|\.github)/[\w./-]+)`", text) if not (ROOT / path).exists()
    ] == []


def test_the_sizes_of_images_are_what_they_hold():
    told = {name: (int(count), int(weight.replace(",", ""))) for name, count, weight in
            re.findall(r"^\| `tollgate/(\w+)` \|[^|]*\| ([\d]+) \| ([\d,]+) \|", TEXT, re.MULTILINE)}  # fmt: skip
    assert set(told) == set(IMAGES)
    for name, (count, weight) in told.items():
        held = libraries(IMAGES[name])
        assert count == pytest.approx(len(held), abs=3), name
        assert weight == pytest.approx(sum(size(one) for one in held.values()) / 1e6, rel=0.1), name


def test_the_schedules_are_those_of_the_cron_jobs():
    told = dict(re.findall(r"^\| ([a-z-]+) \| [^|]+ \| (`[^|]+) \|$", TEXT, re.MULTILINE))
    crons = list(yaml.safe_load_all((ROOT / "k8s" / "base" / "schedules.yaml").read_text()))
    found = {}
    for cron in crons:
        [container] = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        found[cron["metadata"]["name"]] = " ".join([*container["command"], *container.get("args", ())])
    assert set(told) == set(found)
    for name, command in found.items():
        for part in re.findall(r"python -m [\w. -]+\w", command):
            assert f"`{part}`" in told[name], name
