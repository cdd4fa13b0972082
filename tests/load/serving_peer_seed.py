"""Peer: FastAPI, redis-py and onnxruntime, as the seed projects have it; features lie ready in one hash per entity.

`fill` puts the hashes there. What a payment says of itself is reckoned in the request, everything else is read.
"""

from __future__ import annotations

import math
import os
from datetime import datetime
from typing import Any

import numpy as np
import onnxruntime as ort
import redis
from fastapi import FastAPI
from pydantic import BaseModel

PER_TRIP = 500


class Payment(BaseModel):
    """A payment as it arrives."""

    transaction_id: str
    timestamp: datetime
    card_id: str
    merchant_id: str
    amount: float
    merchant_category: str | None = None
    country: str | None = None
    channel: str | None = None
    currency: str | None = None


class Told(BaseModel):
    """The answer."""

    transaction_id: str
    fraud_probability: float
    decision: str


def fill(redis_url: str, columns: tuple[str, ...], rows: Any, cards: list[str], merchants: list[str]) -> None:
    """Hashes of ready-made features for every card and merchant; the values are those of some vectors, in turn."""
    client = redis.Redis.from_url(redis_url)
    for kind, names in (("card", cards), ("merchant", merchants)):
        places = [place for place, column in enumerate(columns) if column.startswith(f"{kind}_")]
        hashes = [{columns[p]: float(row[p]) for p in places if not math.isnan(row[p])} for row in rows]
        for begin in range(0, len(names), PER_TRIP):
            pipeline = client.pipeline(transaction=False)
            for number, name in enumerate(names[begin : begin + PER_TRIP], begin):
                pipeline.hset(f"{kind}:{name}", mapping=hashes[number % len(hashes)])
            pipeline.execute()
    client.close()


def own(payment: Payment) -> dict[str, float]:
    """What the payment says of itself."""
    at = payment.timestamp
    size = {"amount": payment.amount, "amount_log": math.log1p(payment.amount)}
    return {**size, "hour": at.hour, "is_night": float(at.hour <= 6), "is_weekend": float(at.weekday() >= 5)}


def create() -> FastAPI:
    """The application; `uvicorn --factory` calls it in each worker."""
    app = FastAPI()
    columns = os.environ["PEER_COLUMNS"].split(",")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # its default spins a thread for each core in each worker: far slower here
    session = ort.InferenceSession(os.environ["PEER_MODEL"], options)
    client: Any = redis.Redis.from_url(os.environ["PEER_REDIS"], decode_responses=True)

    @app.post("/predict")
    async def predict(payment: Payment) -> Told:
        stored = client.hgetall(f"card:{payment.card_id}")
        stored |= client.hgetall(f"merchant:{payment.merchant_id}")
        stored |= own(payment)
        vector = np.array([[float(stored.get(name, "nan")) for name in columns]], np.float32)
        score = float(session.run(None, {"features": vector})[-1][0, 1])
        decision = "decline" if score >= 0.9 else "review" if score >= 0.5 else "approve"
        entry = {"transaction_id": payment.transaction_id, "score": score, "decision": decision}
        client.xadd("peer-decisions", entry, maxlen=100_000, approximate=True)
        return Told(transaction_id=payment.transaction_id, fraud_probability=score, decision=decision)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app
