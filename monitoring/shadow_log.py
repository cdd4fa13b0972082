"""The challenger's shadow scores as they lie in a Redis Stream: written by the service, read by comparisons.

One entry holds the scores of up to 1,000 payments by one version, so that recording them costs next to nothing. The
stream forgets its oldest entries; what the champion said of the same payments is in the decision log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt
import redis

PAGE = 100
"""Entries read back in one round trip."""

_FLOAT64 = np.dtype("<f8")


@dataclass(frozen=True, slots=True)
class ShadowScore:
    """What a challenger's version would have said of a payment."""

    transaction_id: str
    model_version: str
    probability: float


def encode(
    version: str, transaction_ids: Sequence[str], probabilities: npt.NDArray[np.float64]
) -> dict[str, str | bytes]:
    """The scores of one version as the fields of a stream entry."""
    return {
        "model_version": version,
        "transaction_ids": msgspec.json.encode(transaction_ids),
        "probabilities": probabilities.astype(_FLOAT64).tobytes(),
    }


def decode(fields: dict[bytes, bytes]) -> list[ShadowScore]:
    """The inverse of `encode`, one score for each payment."""
    version = fields[b"model_version"].decode()
    transaction_ids = msgspec.json.decode(fields[b"transaction_ids"], type=list[str])
    probabilities = np.frombuffer(fields[b"probabilities"], _FLOAT64).tolist()
    return [ShadowScore(one, version, score) for one, score in zip(transaction_ids, probabilities, strict=True)]


def read_shadow(redis_url: str, stream: str) -> Iterator[ShadowScore]:
    """The scores still kept, oldest first; a payment sent twice may be there twice."""
    with redis.Redis.from_url(redis_url) as client:
        after = "-"
        while page := cast(list[Any], client.xrange(stream, min=after, count=PAGE)):
            for _, fields in page:
                yield from decode(fields)
            after = f"({page[-1][0].decode()}"
