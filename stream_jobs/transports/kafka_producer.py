"""The sending side of Kafka.

Invariant: a message that not every in-sync replica has confirmed raises `KafkaFailed`; it is never taken for sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stream_jobs.transports.kafka_client import CALL, MAX_BYTES, PATIENCE, PAUSE, KafkaFailed, options

Header = tuple[str, bytes]


def connect(bootstrap: str, **more: Any) -> Producer:
    """A producer whose messages are confirmed by every in-sync replica, once each, in the order sent per key.

    A key has the same partition as Kafka's Java clients give it. `more` are further options of librdkafka's.
    """
    safe = {"acks": "all", "enable.idempotence": True, "partitioner": "murmur2_random"}
    limits = {"delivery.timeout.ms": int(PATIENCE * 1_000), "message.max.bytes": MAX_BYTES}
    return Producer(options(bootstrap, **safe, **limits, **{"linger.ms": 5, "compression.type": "lz4"}, **more))


def publish(
    producer: Producer,
    topic: str,
    bodies: Sequence[bytes],
    ingested_at: Sequence[int | None],
    keys: Sequence[bytes],
) -> list[tuple[str, str]]:
    """Append messages, in order per key, and return each one's partition and id when all are confirmed.

    The key of a transaction is its `card_id`. Raises `KafkaFailed` if any is not confirmed; send all again then.
    """
    headers: list[list[Header]] = [[] if at is None else [("ingested_at", b"%d" % at)] for at in ingested_at]
    return deliver(producer, topic, zip(keys, bodies, headers, strict=True))


def deliver(
    producer: Producer, topic: str, messages: Iterable[tuple[bytes | None, bytes, list[Header]]]
) -> list[tuple[str, str]]:
    """Send messages `(key, body, headers)`; each one's partition and id. Raises `KafkaFailed` unless all arrived."""
    placed: dict[int, tuple[str, str]] = {}
    refused: list[KafkaError] = []

    def report(number: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            refused.append(error)
        else:
            placed[number] = (f"{topic}-{message.partition()}", str(message.offset()))

    sent = 0
    for key, body, headers in messages:
        try:
            _produce(producer, topic, body, key, headers, partial(report, sent))
        except KafkaException as raised:
            refused.append(raised.args[0])
        sent += 1
    producer.flush(PATIENCE + CALL)
    if len(placed) < sent:
        why = f"{refused[0].name()}, {refused[0].str()}" if refused else "no broker confirmed them in time"
        raise KafkaFailed(f"Topic '{topic}': {sent - len(placed)} of {sent} messages were not confirmed: {why}.")
    return [placed[number] for number in range(sent)]


def _produce(producer: Producer, topic: str, body: bytes, key: bytes | None, headers: Any, report: Any) -> None:
    while True:
        try:
            producer.produce(topic, body, key, headers=headers, on_delivery=report)
            return
        except BufferError:  # the queue to the broker is full
            producer.poll(PAUSE)
