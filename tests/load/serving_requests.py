"""Payments as whole HTTP requests, made before the run: each with an identifier of its own and the instant it is due.

What is asked of a peer is the same payments in the form that it takes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from feature_repo.context import AT
from feature_repo.schema import CHANNELS, MERCHANT_CATEGORIES
from feature_repo.vector import FEATURE_SERVICE
from tests.load.payments import COUNTRIES, Payments, card_id, merchant_id
from tests.load.serving_population import Population
from tests.load.serving_schedule import Floats

_HEAD = "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n{key}content-length: "


def single(drawn: Payments, _: int) -> Iterator[bytes]:
    """One payment, as `POST /predict` takes it."""
    return drawn.bodies(0, len(drawn))


def batches(drawn: Payments, size: int) -> Iterator[bytes]:
    """`size` payments, as `POST /predict_batch` takes them."""
    for begin in range(0, len(drawn), size):
        yield b'{"transactions":[' + b",".join(drawn.bodies(begin, min(begin + size, len(drawn)))) + b"]}"


def feast(drawn: Payments, _: int) -> Iterator[bytes]:
    """The entity and the request's fields, as Feast's feature server takes them."""
    for row in entity_rows(drawn):
        entities = {name: [value] for name, value in row.items()}
        yield json.dumps({"feature_service": FEATURE_SERVICE, "entities": entities}).encode()


def entity_rows(drawn: Payments) -> Iterator[dict[str, Any]]:
    """What Feast is asked with: keys and the fields of the request source."""
    columns = (drawn.card, drawn.merchant, drawn.ts, drawn.amount, drawn.category, drawn.country, drawn.channel)
    for card, merchant, at, amount, category, country, channel in zip(*(c.tolist() for c in columns), strict=True):
        yield {
            "card_id": card_id(card),
            "merchant_id": merchant_id(merchant),
            AT: at,
            "amount": amount,
            "merchant_category": MERCHANT_CATEGORIES[category],
            "country": COUNTRIES[country],
            "channel": CHANNELS[channel],
        }


FORMS: dict[str, tuple[str, Callable[[Payments, int], Iterator[bytes]]]] = {
    "single": ("/predict", single),
    "batch": ("/predict_batch", batches),
    "feast": ("/get-online-features", feast),
}
"""For each form its path, and the bodies of payments."""


def requests(
    form: str, due: Floats, population: Population, *, host: str, seed: int, size: int = 1, api_key: str = ""
) -> list[bytes]:
    """A request for each instant `due` (seconds from now), of `size` payments where the form takes more than one."""
    path, bodies = FORMS[form]
    name = f"{form}-{time.time_ns():x}-{seed}-"
    instants = time.time_ns() // 1_000 + (np.repeat(due, size) * 1e6).astype(np.int64)
    key = f"authorization: Bearer {api_key}\r\n" if api_key else ""
    head = _HEAD.format(path=path, host=host, key=key).encode()
    drawn = population.payments(instants, seed, name)
    return [b"%b%d\r\n\r\n%b" % (head, len(body), body) for body in bodies(drawn, size)]
