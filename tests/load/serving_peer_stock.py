"""Peer: the service as BentoML's and Feast's own pages have it, settings left as they come, two workers.

`get_online_features` of the whole feature service and one ONNX run for each request; nothing goes on record.
"""

from __future__ import annotations

import os
from typing import Any

import bentoml
import onnxruntime as ort
from pydantic import BaseModel

from feature_repo.context import AT
from feature_repo.schema import Transaction
from feature_repo.store import feature_store
from feature_repo.vector import FEATURE_SERVICE, columns, to_vector
from feature_repo.window_state import to_us


class Told(BaseModel):
    """The answer."""

    transaction_id: str
    fraud_probability: float
    is_fraud: bool


@bentoml.service(workers=2)
class StockService:
    """The model behind BentoML's API, its features from Feast's."""

    def __init__(self) -> None:
        self.store: Any = feature_store()
        self.features = self.store.get_feature_service(FEATURE_SERVICE)
        self.columns = columns(self.features)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1  # its default spins a thread for each core in each worker: far slower here
        self.session = ort.InferenceSession(os.environ["PEER_MODEL"], options)

    @bentoml.api
    async def predict(self, transaction: Transaction, /) -> Told:
        """Score one payment."""
        row = {**transaction.model_dump(include={"card_id", "merchant_id", "amount"}), AT: to_us(transaction.timestamp)}
        row |= transaction.model_dump(include={"merchant_category", "country", "channel"})
        found = self.store.get_online_features(features=self.features, entity_rows=[row]).to_dict()
        probabilities = self.session.run(None, {"features": to_vector(found, self.columns)})[-1]
        score = float(probabilities[0, 1])
        return Told(transaction_id=transaction.transaction_id, fraud_probability=score, is_fraud=score >= 0.5)
