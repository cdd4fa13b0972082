"""A model small enough to write by hand: a logistic curve over the amount, null as 0, in the platform's own form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from feature_repo.contract import METADATA_KEY, ONNX_INPUT, ONNX_OUTPUT, ModelContract
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


def register(mlflow_url: str, name: str, promised: ModelContract, bias: float = -2.0) -> str:
    """Register the tiny model with this contract and point the alias `champion` at it; returns its version."""
    import mlflow
    from mlflow.tracking import MlflowClient

    mlflow.set_tracking_uri(mlflow_url)
    with mlflow.start_run():
        logged = mlflow.onnx.log_model(
            graph(promised.columns, bias),
            name="model",
            registered_model_name=name,
            metadata={METADATA_KEY: promised.model_dump(mode="json")},
            save_as_external_data=False,
        )
    version = str(logged.registered_model_version)
    MlflowClient(mlflow_url).set_registered_model_alias(name, "champion", version)
    return version
