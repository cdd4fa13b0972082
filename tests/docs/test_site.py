"""The documentation's site: built strictly, every link leads somewhere, and showing it asks nothing of another host."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from feature_repo.settings import ROOT, Settings

MKDOCS = ROOT / ".tollgate" / "tools" / "docs" / "bin" / "mkdocs"


def build(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    if not MKDOCS.exists():
        pytest.fail(f"{MKDOCS.relative_to(ROOT)} is missing; `.ci/docs-tools` installs it.")
    command = [str(MKDOCS), "build", "--strict", "--config-file", str(root / "mkdocs.yml"), "--site-dir", str(out)]
    own = {name: value for name, value in os.environ.items() if name != "DOCS_REPOSITORY"}
    return subprocess.run(command, capture_output=True, text=True, env=own | {"NO_MKDOCS_2_WARNING": "1"})


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the site is made of, with the pages that are made of the code."""
    copy = tmp_path_factory.mktemp("checkout")
    subprocess.run([sys.executable, "-W", "ignore", "-m", "pages"], cwd=ROOT, check=True)
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in tracked.decode().split("\0")[:-1]:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    shutil.copytree(ROOT / "docs", copy / "docs", dirs_exist_ok=True)
    return copy


@pytest.fixture(scope="module")
def site(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(checkout, out)
    assert done.returncode == 0, done.stderr
    return out


def test_nothing_is_asked_of_another_host(site: Path):
    asked = []
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=\"?([^\" >]+)", text)
        loaded += re.findall(r"<link\b[^>]*\bhref=\"?([^\" >]+)", text)
        asked += [f"{page.name}: {each}" for each in loaded if re.match(r"(?:https?:)?//", each)]
        assert 'class="mermaid"' not in text, f"{page.name}: mermaid would be loaded from elsewhere; commit an SVG"
    for sheet in site.rglob("*.css"):
        asked += re.findall(r"url\(['\"]?((?:https?:)?//[^)]+)", sheet.read_text(encoding="utf-8"))
    assert asked == []


def test_every_setting_and_every_route_has_its_place(site: Path):
    told = (site / "reference" / "settings.html").read_text(encoding="utf-8")
    assert [name for name in Settings.model_fields if f"FRAUD_{name.upper()}" not in told] == []
    routes = (site / "reference" / "api.html").read_text(encoding="utf-8")
    for anchor in ("post-predict", "post-predict_batch", "post-feedback", "get-model", "transaction", "answer"):
        assert f'id="{anchor}"' in routes, anchor


def test_the_readme_links_lead_somewhere(site: Path):
    for link in re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if re.match(r"https?:", link):
            continue
        assert (ROOT / path).exists(), link
        if anchor:
            page = site / Path(path).relative_to("docs").with_suffix(".html")
            assert f'id="{anchor}"' in page.read_text(encoding="utf-8"), link


@pytest.mark.parametrize(
    ("addition", "complaints"),
    [
        ("[nowhere](nowhere.md) [no section](serving.md#never-written)", ("nowhere.md", "never-written")),
        ("[no such file](../feature_repo/nowhere.py)", ("no such file in the repository",)),
    ],
)
def test_a_link_that_leads_nowhere_fails_the_build(
    checkout: Path, tmp_path: Path, addition: str, complaints: tuple[str, ...]
):
    page = checkout / "docs" / "concepts.md"
    before = page.read_text(encoding="utf-8")
    page.write_text(f"{before}\n{addition}\n", encoding="utf-8")
    try:
        done = build(checkout, tmp_path / "site")
    finally:
        page.write_text(before, encoding="utf-8")
    assert done.returncode != 0
    assert [each for each in complaints if each not in done.stderr] == []
