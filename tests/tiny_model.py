"""A model small enough to write by hand: a logistic curve over the amount, null as 0, in the platform's own form."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import onnxruntime

from feature_repo.contract import METADATA_KEY, ONNX_FILE, ONNX_INPUT, ONNX_OUTPUT, ModelContract
from feature_repo.parity_sample import PARITY_FILE, ParitySample
from feature_repo.vector import FEATURE_SERVICE

REVIEW_FROM, DECLINE_FROM = 0.5, 0.9


def contract(columns: Sequence[str], feature_service: str = FEATURE_SERVICE) -> ModelContract:
    """The contract of the tiny model over these columns."""
    return ModelContract(
        feature_service=feature_service,
        columns=tuple(columns),
        review_from=REVIEW_FROM,
        decline_from=DECLINE_FROM,
        algorithm="logistic over the amount",
        trained_until="2026-01-01T00:00:00Z",
    )


def graph(columns: Sequence[str], bias: float = -2.0) -> Any:
    """The ONNX graph: sigmoid(amount / 100 + bias), so that 200 is the middle at the default bias."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.array([[0.01 if name == "amount" else 0.0] for name in columns], np.float32)
    constants = {"weights": weights, "bias": np.float32([bias]), "zero": np.float32([0.0]), "one": np.float32([1.0])}
    nodes = [
        helper.make_node("IsNaN", [ONNX_INPUT], ["unknown"]),
        helper.make_node("Where", ["unknown", "zero", ONNX_INPUT], ["known"]),
        helper.make_node("MatMul", ["known", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["fraud"]),
        helper.make_node("Sub", ["one", "fraud"], ["genuine"]),
        helper.make_node("Concat", ["genuine", "fraud"], [ONNX_OUTPUT], axis=1),
    ]
    inputs = [helper.make_tensor_value_info(ONNX_INPUT, TensorProto.FLOAT, [None, len(columns)])]
    outputs = [helper.make_tensor_value_info(ONNX_OUTPUT, TensorProto.FLOAT, [None, 2])]
    initial = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_model(
        helper.make_graph(nodes, "tiny", inputs, outputs, initial), opset_imports=[helper.make_opsetid("", 17)]
    )
    made.ir_version = 8
    onnx.checker.check_model(made)
    return made


def sample(made: Any, columns: Sequence[str]) -> ParitySample:
    """Vectors with the scores that the graph gives for them, as training stores them beside it."""
    amounts = np.array([0.0, 1.0, 200.0, 450.0, 1e4, np.nan], np.float32)
    vectors = np.full((len(amounts), len(columns)), np.nan, np.float32)
    vectors[:, [name == "amount" for name in columns]] = amounts[:, None]
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    (given,) = session.run([ONNX_OUTPUT], {ONNX_INPUT: vectors})
    return ParitySample(tuple(columns), vectors, given[:, 1].astype(np.float64))


def register(mlflow_url: str, name: str, promised: ModelContract, bias: float = -2.0, alias: str = "champion") -> str:
    """Register the tiny model with this contract and point an alias at it; returns its version."""
    import mlflow
    from mlflow.tracking import MlflowClient

    mlflow.set_tracking_uri(mlflow_url)
    made = graph(promised.columns, bias)
    with mlflow.start_run():
        logged = mlflow.onnx.log_model(
            made,
            name="model",
            registered_model_name=name,
            metadata={METADATA_KEY: promised.model_dump(mode="json")},
            save_as_external_data=False,
        )
    version = str(logged.registered_model_version)
    client = MlflowClient(mlflow_url)
    with tempfile.TemporaryDirectory() as folder:
        evidence = Path(folder) / PARITY_FILE
        evidence.write_bytes(sample(made, promised.columns).dumps())
        client.log_model_artifact(logged.model_id, str(evidence))
    client.set_registered_model_alias(name, alias, version)
    return version


def files(promised: ModelContract, bias: float = -2.0) -> dict[str, bytes]:
    """A version's files as the service fetches them, by name; change one to break it."""
    made = graph(promised.columns, bias)
    return {
        "MLmodel": json.dumps({"metadata": {METADATA_KEY: promised.model_dump(mode="json")}}).encode(),
        ONNX_FILE: made.SerializeToString(),
        PARITY_FILE: sample(made, promised.columns).dumps(),
    }


def publish(mlflow_url: str, name: str, given: dict[str, bytes], alias: str | None = "champion") -> str:
    """Register files as they are, sound or broken, in a fraction of `register`'s time; returns the version."""
    run = _source_run(mlflow_url, name)
    source = f"{run['artifact_uri']}/{uuid4().hex}"
    folder = source.removeprefix("mlflow-artifacts:")
    with httpx.Client(base_url=f"{mlflow_url}/api/2.0", timeout=30) as client:
        for file, content in given.items():
            client.put(f"/mlflow-artifacts/artifacts{folder}/{file}", content=content).raise_for_status()
        asked = {"name": name, "source": source, "run_id": run["run_id"]}
        made = client.post("/mlflow/model-versions/create", json=asked).raise_for_status().json()
        version = str(made["model_version"]["version"])
        if alias is not None:
            asked = {"name": name, "alias": alias, "version": version}
            client.post("/mlflow/registered-models/alias", json=asked).raise_for_status()
    return version


@cache
def _source_run(mlflow_url: str, name: str) -> dict[str, str]:
    """The run below which the versions of a registered model lie, which is made with it."""
    with httpx.Client(base_url=f"{mlflow_url}/api/2.0", timeout=30) as client:
        client.post("/mlflow/registered-models/create", json={"name": name})  # 400 where it exists already
        found: dict[str, str] = (
            client.post("/mlflow/runs/create", json={"experiment_id": "0"}).raise_for_status().json()["run"]["info"]
        )
    return found


def point(mlflow_url: str, name: str, alias: str, version: str) -> None:
    """Point an alias at a version."""
    asked = {"name": name, "alias": alias, "version": version}
    httpx.post(f"{mlflow_url}/api/2.0/mlflow/registered-models/alias", json=asked, timeout=30).raise_for_status()
