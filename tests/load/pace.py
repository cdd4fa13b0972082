"""A producer that keeps a pace: so many payments a second, each made at the instant at which it is sent."""

from __future__ import annotations

import time

from stream_jobs.transports.kafka import connect
from tests.load.payments import card_id, payments

TICK = 0.005


def produce(bootstrap: str, topic: str, rate: float, seconds: float, cards: int) -> dict[str, float]:
    """Send for `seconds`; how many went out, and the rate that came of it."""
    producer = connect(bootstrap)
    drawn = payments(int(rate * seconds), cards, seed=2)
    # A payment's instant is when it leaves: what is drawn of it is all but that.
    tails = [body.split(b',"card_id"', 1)[1] for body in drawn.bodies(0, len(drawn))]
    keys = [card_id(card).encode() for card in drawn.card.tolist()]
    began, sent = time.time(), 0
    while sent < len(tails):
        due = min(int((time.time() - began) * rate), len(tails))
        for number in range(sent, due):
            producer.produce(topic, payment(f"paced-{number}", tails[number]), keys[number])
        sent = max(sent, due)
        producer.poll(0)
        time.sleep(TICK)
    took = time.time() - began
    producer.flush(60)
    return {"events": len(tails), "events_per_s": len(tails) / took}


def payment(name: str, tail: bytes) -> bytes:
    """A payment made now; `tail` is its body from the card on."""
    at = time.time_ns() // 1_000
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at // 1_000_000))
    return f'{{"transaction_id":"{name}","timestamp":"{stamp}.{at % 1_000_000:06d}Z","card_id"'.encode() + tail
