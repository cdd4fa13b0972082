"""The manifests by the tools that read them: kustomize, strict schemas, and kube-score, whose findings are argued."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from feature_repo.settings import ROOT
from tests.deploy.rendered import OVERLAYS, objects, rendered, written
from tests.deploy.tools import TOOLS, run

VERSIONS = ("1.33", "1.34")
CRDS = "tests/deploy/schemas/crds/{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json"
FOREIGN = ("strimzi.io/", "cnpg.io/", "external-secrets.io/", "coreos.com/")
ARGUED = yaml.safe_load((ROOT / "tests" / "deploy" / "argued.yaml").read_text())


def is_foreign(api_version: str) -> bool:
    return any(group in api_version for group in FOREIGN)


def split(overlay: str, folder: Path) -> tuple[Path, Path]:
    """Kubernetes' own objects, and those of operators, in a file each."""
    own, foreign = folder / "own.yaml", folder / "foreign.yaml"
    found = objects(overlay)
    own.write_text(yaml.safe_dump_all(one for one in found if not is_foreign(one["apiVersion"])))
    foreign.write_text(yaml.safe_dump_all(one for one in found if is_foreign(one["apiVersion"])))
    return own, foreign


def by_schemas_of_kubernetes(path: Path, ok: tuple[int, ...] = (0,)) -> str:
    versions = [word for version in VERSIONS for word in ("-k", version)]
    validate = str(TOOLS / "venv" / "bin" / "kubernetes-validate")
    return run(validate, *versions, "--strict", path, ok=ok)


def by_schemas_of_operators(path: Path, ok: tuple[int, ...] = (0,)) -> dict[str, int]:
    said = run("kubeconform", "-strict", "-output", "json", "-summary", "-schema-location", CRDS, path, ok=ok)
    found: dict[str, int] = json.loads(said)["summary"]
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_has_its_schema_strictly(overlay: str, tmp_path: Path):
    own, foreign = split(overlay, tmp_path)
    by_schemas_of_kubernetes(own)
    of_operators = [one for one in objects(overlay) if is_foreign(one["apiVersion"])]
    assert by_schemas_of_operators(foreign)["valid"] == len(of_operators)
    assert bool(of_operators) == (overlay == "prod")


@pytest.mark.parametrize(
    ("place", "wrong"), [("minReplicas: 3", "minReplicas: three"), ("serviceName:", "serviceNam:")]
)
def test_a_wrong_object_of_kubernetes_is_found(place: str, wrong: str, tmp_path: Path):
    path = tmp_path / "wrong.yaml"
    assert place in rendered("prod-blue")
    path.write_text(rendered("prod-blue").replace(place, wrong))
    by_schemas_of_kubernetes(path, ok=(1,))


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ("kind: KafkaTopic\n", "kind: KafkaTopik\n"),
        ("partitions: 24", "partitons: 24"),
        ("instances: 3", "instances: x"),
    ],
)
def test_a_wrong_object_of_an_operator_is_found(place: str, wrong: str, tmp_path: Path):
    _, path = split("prod", tmp_path)
    assert place in path.read_text()
    path.write_text(path.read_text().replace(place, wrong))
    found = by_schemas_of_operators(path, ok=(1,))
    assert found["invalid"] + found["errors"] >= 1


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kube_score_finds_nothing_that_is_not_argued(overlay: str, tmp_path: Path):
    ignored = [word for check in ARGUED["everywhere"] for word in ("--ignore-test", check)]
    said = run(
        "kube-score", "score", "--ignore-container-cpu-limit", *ignored, "--output-format", "json",
        written(overlay, tmp_path), ok=(0, 1),
    )  # fmt: skip
    argued = ARGUED["objects"].get(overlay, {})
    found = {
        (f"{score['type_meta']['kind']}/{score['object_meta']['name']}", check["check"]["id"]): [
            one["summary"] for one in check["comments"] or ()
        ]
        for score in json.loads(said)
        for check in score["checks"]
        if not check["skipped"] and check["grade"] < 10
    }
    known = {(name, check) for name, checks in argued.items() for check in checks}
    assert {place: why for place, why in found.items() if place not in known} == {}
    assert known - set(found) == set()  # an argument that nothing needs any more
