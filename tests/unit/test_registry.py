"""The registry over a scripted MLflow: what is asked, what is kept, and what is said when there is nothing to serve."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest

from bentos.registry import NoModel, Registry, RegistryUnreachable

ADDRESS = "mlflow-artifacts:/0/models/m-1/artifacts"
FILES = ("MLmodel", "model.onnx", "parity.json")


class Mlflow:
    """Answers as an MLflow server does; `asked` lists the paths."""

    def __init__(self, address: str = ADDRESS, version: str = "3", files: Sequence[str] = FILES) -> None:
        self.address, self.version, self.files = address, version, files
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/2.0")
        self.asked.append(path)
        if path == "/mlflow/registered-models/alias":
            if dict(request.url.params) != {"name": "fraud", "alias": "champion"}:
                return httpx.Response(404, json={"message": "Registered model alias other not found."})
            return httpx.Response(200, json={"model_version": {"version": self.version}})
        if path == "/mlflow/model-versions/get-download-uri":
            assert dict(request.url.params) == {"name": "fraud", "version": self.version}
            return httpx.Response(200, json={"artifact_uri": self.address})
        if path == "/mlflow-artifacts/artifacts":
            assert self.address.endswith(request.url.params["path"])
            return httpx.Response(200, json={"files": [{"path": file, "is_dir": False} for file in self.files]})
        if path == "/mlflow/registered-models/get":
            aliases = [{"alias": "champion", "version": self.version}, {"alias": "challenger", "version": "12"}]
            tags = [{"key": "tollgate.shadow", "value": "off"}, {"key": "empty"}]
            told = {"name": request.url.params["name"], "aliases": aliases, "tags": tags}
            return httpx.Response(200, json={"registered_model": told})
        return httpx.Response(200, content=path.encode())


def registry(cache: Path, answer: Callable[[httpx.Request], httpx.Response]) -> Registry:
    return Registry("http://mlflow:5000/", "fraud", cache, httpx.MockTransport(answer))


def test_a_version_is_fetched_once(tmp_path: Path):
    mlflow = Mlflow()
    files = registry(tmp_path, mlflow).fetch("champion")
    assert (files.version, files.source, files.folder) == ("3", "registry", tmp_path / "fraud" / "3")
    artifact = "/mlflow-artifacts/artifacts/0/models/m-1/artifacts/"
    assert (files.folder / "model.onnx").read_text() == f"{artifact}model.onnx"
    assert (files.folder / "MLmodel").read_text() == f"{artifact}MLmodel"
    registry(tmp_path, mlflow).fetch("champion")
    assert len([path for path in mlflow.asked if path.startswith(artifact)]) == len(FILES)
    assert [entry.name for entry in (tmp_path / "fraud").iterdir()] == ["3"], "nothing unfinished is left"


def test_the_same_number_from_another_registry_is_fetched_anew(tmp_path: Path):
    registry(tmp_path, Mlflow()).fetch("champion")
    files = registry(tmp_path, Mlflow(address="mlflow-artifacts:/0/models/m-2/artifacts")).fetch("champion")
    assert "m-2" in (files.folder / "model.onnx").read_text()


def test_a_download_that_breaks_off_leaves_no_version(tmp_path: Path):
    mlflow = Mlflow()

    def breaks(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("model.onnx"):
            raise httpx.ReadError("gone")
        return mlflow(request)

    with pytest.raises(RegistryUnreachable, match="http://mlflow:5000 does not answer: gone"):
        registry(tmp_path, breaks).fetch("champion")
    assert list((tmp_path / "fraud").iterdir()) == []


def test_an_alias_that_does_not_exist_is_no_model(tmp_path: Path):
    with pytest.raises(NoModel, match=r"alias other not found.*Train and register"):
        registry(tmp_path, Mlflow()).fetch("other")


def test_a_server_in_trouble_is_unreachable_rather_than_without_a_model(tmp_path: Path):
    with pytest.raises(RegistryUnreachable, match="answers 502"):
        registry(tmp_path, lambda _: httpx.Response(502, text="<html>")).fetch("champion")


def test_artifacts_that_mlflow_does_not_serve_are_refused(tmp_path: Path):
    with pytest.raises(NoModel, match=r"s3://bucket/m.*--serve-artifacts"):
        registry(tmp_path, Mlflow(address="s3://bucket/m")).fetch("champion")


def test_what_a_version_holds_beside_its_model_is_not_fetched(tmp_path: Path):
    mlflow = Mlflow(files=(*FILES, "conda.yaml", "input_example.json"))
    files = registry(tmp_path, mlflow).fetch("champion")
    assert {file.name for file in files.folder.iterdir()} == {*FILES, "origin.json"}


def test_a_version_that_was_fetched_before_its_evidence_came_is_fetched_anew(tmp_path: Path):
    mlflow = Mlflow(files=FILES[:2])
    files = registry(tmp_path, mlflow).fetch("champion")
    assert not (files.folder / "parity.json").exists(), "what loads it says so, not who fetches it"
    mlflow.files = FILES
    assert (registry(tmp_path, mlflow).version("3").folder / "parity.json").exists()


def test_every_alias_and_tag_comes_in_one_request(tmp_path: Path):
    mlflow = Mlflow()
    found = registry(tmp_path, mlflow).registered()
    assert found.aliases == {"champion": "3", "challenger": "12"}
    assert found.tags == {"tollgate.shadow": "off", "empty": ""}
    assert mlflow.asked == ["/mlflow/registered-models/get"]


def test_what_speaks_no_json_is_no_mlflow(tmp_path: Path):
    with pytest.raises(RegistryUnreachable, match=r"What answers at http://mlflow:5000 is no MLflow"):
        registry(tmp_path, lambda _: httpx.Response(200, text="<html>")).registered()


def test_the_last_one_served_is_found_without_the_registry(tmp_path: Path):
    first = registry(tmp_path, Mlflow())
    with pytest.raises(NoModel, match="holds no model"):
        first.last_served("champion")
    first.remember(first.fetch("champion"), "champion")
    found = registry(tmp_path, lambda _: httpx.Response(500)).last_served("champion")
    assert (found.version, found.source) == ("3", "cache")
    assert json.loads((tmp_path / "fraud" / "champion.json").read_text()) == {"version": "3"}
