"""Versions made to be judged: a world in which the true probabilities are known, and graphs that know it well or badly.

Fraud follows two features and the amount by a logistic curve, so the graph with its weights is as good as any can be,
and calibrated. What is wrong with a planted version is one thing only.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd

from feature_repo.contract import METADATA_KEY, ONNX_FILE, ONNX_INPUT, ONNX_OUTPUT, ModelContract
from feature_repo.parity_sample import PARITY_FILE, ParitySample
from feature_repo.vector import FEATURE_SERVICE
from training.dataset import TrainingSet
from training.evidence import EVIDENCE_FILE, REFERENCE_FILE
from training.graphs import MLMODEL_FILE
from training.window import Window, of_data

BEGIN = datetime(2024, 3, 1, tzinfo=UTC)
DAYS = 14
TRAINED_UNTIL = BEGIN - timedelta(days=7)
LATER = BEGIN + timedelta(days=60)

BIAS, AMOUNT = -4.2, 0.004
WEIGHTS = (1.6, 1.0)
"""Of the first two columns that are not the amount."""

ROWS, CARDS = 6_000, 1_500


def known(columns: Sequence[str]) -> list[str]:
    """The two columns that fraud follows beside the amount."""
    return [name for name in columns if name != "amount"][:2]


def payments(columns: Sequence[str], seed: int, rows: int = ROWS) -> TrainingSet:
    """Payments of the world: a tenth of the vectors' two features are unknown, which counts as 0."""
    random = np.random.default_rng(seed)
    vectors = np.zeros((rows, len(columns)), np.float32)
    amount = random.gamma(1.5, 60.0, rows).astype(np.float32)
    features = random.normal(size=(rows, 2)).astype(np.float32)
    features[random.random((rows, 2)) < 0.1] = np.nan
    vectors[:, list(columns).index("amount")] = amount
    vectors[:, [list(columns).index(name) for name in known(columns)]] = features
    logit = BIAS + AMOUNT * amount + np.nan_to_num(features) @ np.array(WEIGHTS)
    frame = pd.DataFrame(
        {
            "transaction_id": [f"t{number}" for number in range(rows)],
            "card_id": [f"c{card}" for card in random.integers(CARDS, size=rows)],
            "merchant_id": "m",
            "timestamp": BEGIN + pd.to_timedelta(np.sort(random.random(rows)) * DAYS, unit="D"),
            "amount": amount.astype(float),
            "channel": random.choice(["pos", "online"], rows),
            "card_days": random.uniform(0, 400, rows),
            "is_fraud": (random.random(rows) < 1 / (1 + np.exp(-logit))).astype("int8"),
        }
    )
    return TrainingSet(frame, vectors, tuple(columns))


def window(columns: Sequence[str], seed: int = 1) -> Window:
    """A window of such payments, with every label known."""
    return of_data(payments(columns, seed), BEGIN, BEGIN + timedelta(days=DAYS), LATER)


@dataclass(frozen=True)
class Made:
    """What a version is made of; each field that is not the default is something wrong with it, or less good."""

    columns: tuple[str, ...]
    weights: tuple[float, float] = WEIGHTS
    amount: float = AMOUNT
    bias: float = BIAS
    flatter: float = 1.0
    """The log-odds are divided by it: the order stays, the probabilities are untrue."""
    work: int = 0
    """Matrix products of 256 x 256 that lead to nothing."""
    imputes: bool = True
    blind_below: float = 0.0
    """Payments of smaller amounts are all the same to it."""
    review_share: float = 0.009
    trained_until: datetime = TRAINED_UNTIL
    feature_service: str = FEATURE_SERVICE
    leaks: bool = False
    """In training the first known column had the label in it."""
    moved: float = 0.0
    """How far the columns lay elsewhere in training."""
    chosen_by: float = 0.85

    def files(self) -> dict[str, bytes]:
        """The version's files, by name."""
        graph = self.graph().SerializeToString()
        trained = payments(self.columns, seed=2)
        sample = self._sample(graph, trained)
        scores = _scores(graph, np.nan_to_num(trained.vectors))
        review, decline = np.quantile(scores, [1 - 1.25 * self.review_share, 1 - 0.25 * self.review_share])
        contract = ModelContract(
            feature_service=self.feature_service,
            columns=self.columns,
            review_from=float(review),
            decline_from=float(decline),
            algorithm="logistic",
            trained_until=self.trained_until.isoformat(),
        )
        return {
            MLMODEL_FILE: json.dumps({"metadata": {METADATA_KEY: contract.model_dump(mode="json")}}).encode(),
            ONNX_FILE: graph,
            PARITY_FILE: sample.dumps(),
            REFERENCE_FILE: self._reference(trained),
            EVIDENCE_FILE: json.dumps({"earlier_fold": {"auc_roc": self.chosen_by}}).encode(),
        }

    def folder(self, path: Path, **changed: bytes | None) -> Path:
        """The files in a folder; `changed` replaces some, null leaves one out."""
        path.mkdir(parents=True)
        for name, content in (self.files() | changed).items():
            if content is not None:
                (path / name).write_bytes(content)
        return path

    def graph(self) -> Any:
        """The ONNX graph."""
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        weights = np.zeros((len(self.columns), 1), np.float32)
        weights[list(self.columns).index("amount")] = self.amount
        for name, weight in zip(known(self.columns), self.weights, strict=True):
            weights[list(self.columns).index(name)] = weight
        constants = {
            "weights": weights / np.float32(self.flatter),
            "bias": np.float32([self.bias / self.flatter]),
            "amount": np.array([list(self.columns).index("amount")], np.int64),
            "limit": np.float32([self.blind_below]),
            "usual": np.float32([1.2]),
            "zero": np.float32([0.0]),
            "one": np.float32([1.0]),
        }
        nodes = [
            helper.make_node("IsNaN", [ONNX_INPUT], ["unknown"]),
            helper.make_node("Where", ["unknown", "zero", ONNX_INPUT], ["imputed"]),
            helper.make_node("MatMul", ["imputed" if self.imputes else ONNX_INPUT, "weights"], ["product"]),
            helper.make_node("Gather", [ONNX_INPUT, "amount"], ["small"], axis=1),
            helper.make_node("Less", ["small", "limit"], ["unseen"]),
            helper.make_node("Where", ["unseen", "usual", "product"], ["seen"]),
            helper.make_node("Add", ["seen", "bias"], ["logit"]),
            *self._work(helper, constants),
            helper.make_node("Sigmoid", ["worked" if self.work else "logit"], ["fraud"]),
            helper.make_node("Sub", ["one", "fraud"], ["genuine"]),
            helper.make_node("Concat", ["genuine", "fraud"], [ONNX_OUTPUT], axis=1),
        ]
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width])
            for name, width in ((ONNX_INPUT, len(self.columns)), (ONNX_OUTPUT, 2))
        ]
        initial = [numpy_helper.from_array(value, name) for name, value in constants.items()]
        body = helper.make_graph(nodes, "logistic", ends[:1], ends[1:], initial)
        made = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)])
        made.ir_version = 8
        onnx.checker.check_model(made)
        return made

    def _work(self, helper: Any, constants: dict[str, Any]) -> list[Any]:
        """Products that cost time and add nothing: the last is multiplied by 0."""
        if not self.work:
            return []
        constants["spread"] = np.full((1, 256), 1e-3, np.float32)
        constants["turn"] = np.eye(256, dtype=np.float32)
        constants["gather"] = np.zeros((256, 1), np.float32)
        nodes = [
            helper.make_node("Sigmoid", ["logit"], ["bounded"]),
            helper.make_node("MatMul", ["bounded", "spread"], ["w0"]),
        ]
        for step in range(self.work):
            nodes.append(helper.make_node("MatMul", [f"w{step}", "turn"], [f"w{step + 1}"]))
        nodes.append(helper.make_node("MatMul", [f"w{self.work}", "gather"], ["nothing"]))
        return [*nodes, helper.make_node("Add", ["logit", "nothing"], ["worked"])]

    def _sample(self, graph: bytes, trained: TrainingSet) -> ParitySample:
        vectors = np.nan_to_num(trained.vectors[:25])
        return ParitySample(self.columns, vectors, _scores(graph, vectors))

    def _reference(self, trained: TrainingSet) -> bytes:
        frame = pd.DataFrame(trained.vectors + np.float32(self.moved), columns=list(self.columns))
        frame["is_fraud"] = trained.rows["is_fraud"].to_numpy()
        if self.leaks:
            noise = np.random.default_rng(3).normal(size=len(frame))
            frame[known(self.columns)[0]] = (frame["is_fraud"] * 4 + noise).astype(np.float32)
        out = io.BytesIO()
        frame.to_parquet(out)
        return out.getvalue()


def _scores(graph: bytes, vectors: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([ONNX_OUTPUT], {ONNX_INPUT: vectors})[0][:, 1], np.float64)
