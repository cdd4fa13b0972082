"""What each image holds, told from this environment: the libraries of its groups, and what they weigh.

    python -m k8s.image_contents           a table; installed sizes, bytecode included, without the base image

Invariant: an image's libraries are the closure of its groups in pyproject.toml, and nothing is installed to find out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from feature_repo.settings import ROOT

LEFT_OUT = frozenset({"nvidia-nccl-cu12", "nvidia-nccl-cu13"})
"""k8s/images/overrides.txt."""


@dataclass(frozen=True)
class Image:
    """An image's groups of pyproject.toml, the requirements it has beside them, and the packages of ours in it."""

    groups: tuple[str, ...]
    packages: tuple[str, ...]
    also: tuple[str, ...] = ()
    core: bool = True


IMAGES: Mapping[str, Image] = {
    "service": Image(("serving",), ("bentos", "feature_repo", "monitoring")),
    "stream": Image(("streaming", "full"), ("feature_repo", "monitoring", "stream_jobs")),
    "batch": Image(
        ("streaming", "full", "embedded", "training", "monitoring"),
        ("feature_repo", "monitoring", "stream_jobs", "training"),
    ),
    "mlflow": Image((), (), ("mlflow", "psycopg[binary]"), core=False),
}


def project() -> dict[str, list[str]]:
    """The requirements of each group; those that every part has are the group ''."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups: dict[str, list[str]] = found["optional-dependencies"]
    return {"": found["dependencies"], **groups}


def libraries(image: Image) -> dict[str, Distribution]:
    """Every distribution in an image, by name. Raises `PackageNotFoundError` for one that is not installed here."""
    groups = project()
    named = [line for group in (("",) if image.core else ()) + image.groups for line in groups[group]]
    found: dict[str, Distribution] = {}
    done: set[tuple[str, str]] = set()
    _collect([Requirement(line) for line in (*named, *image.also)], {""}, found, done)
    return found


def _collect(
    asked: Iterable[Requirement], extras: set[str], found: dict[str, Distribution], done: set[tuple[str, str]]
) -> None:
    for one in asked:
        name = canonicalize_name(one.name)
        if name in LEFT_OUT or (one.marker and not any(one.marker.evaluate({"extra": extra}) for extra in extras)):
            continue
        wanted = {"", *one.extras}
        fresh = {extra for extra in wanted if (name, extra) not in done}
        if not fresh:
            continue
        done |= {(name, extra) for extra in fresh}
        found[name] = distribution(name)
        _collect([Requirement(line) for line in found[name].requires or ()], wanted, found, done)


def size(one: Distribution) -> int:
    """Bytes of a distribution's files as they lie here."""
    paths = (Path(str(one.locate_file(file))) for file in one.files or ())
    return sum(path.stat().st_size for path in paths if path.is_file())


def main() -> None:
    """Print what each image weighs, and its heaviest libraries."""
    print("| image | libraries | MB | heaviest |\n|---|--:|--:|---|")
    for name, image in IMAGES.items():
        sizes = {library: size(one) for library, one in libraries(image).items()}
        heaviest = sorted(sizes, key=lambda library: sizes[library], reverse=True)[:5]
        told = ", ".join(f"{library} {sizes[library] / 1e6:.0f}" for library in heaviest)
        print(f"| {name} | {len(sizes)} | {sum(sizes.values()) / 1e6:,.0f} | {told} |")


if __name__ == "__main__":
    main()
