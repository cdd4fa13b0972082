"""What every client of Kafka shares: patience with a broker that is away, and errors a person can act on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from feature_repo.settings import settings
from monitoring.kafka_security import security

PATIENCE = 60.0
"""Seconds for which an absent broker is waited for."""

CALL = 5.0
"""Seconds one call to a broker may take."""

PAUSE = 0.1

MAX_BYTES = 2_097_152
"""Largest message sent, and kept among dead letters: twice Kafka's own limit, so that any record can be buried."""

PASSING = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._WAIT_COORD,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_CONTROLLER,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
    }
)
"""Errors of a broker that is away or not yet back, which librdkafka keeps trying to get over."""

T = TypeVar("T")


class KafkaFailed(RuntimeError):
    """Kafka refused, lost or did not answer something; the message says what, why and what to do."""


def passing(error: KafkaError) -> bool:
    """Whether an error is that of a broker which may come back."""
    return not error.fatal() and (error.code() in PASSING or error.retriable())


def patiently(subject: str, call: Callable[[], T]) -> T:
    """The result of a call, repeated while the broker is away. Raises `KafkaFailed` when patience or hope is gone."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except KafkaException as raised:
            error: KafkaError = raised.args[0]
            if not passing(error):
                raise KafkaFailed(f"{subject}: {error.name()}, {error.str()}.") from raised
            if time.monotonic() > deadline:
                raise KafkaFailed(
                    f"{subject}: no broker has answered for {PATIENCE:g} s ({error.name()}). "
                    "Start it, or set FRAUD_KAFKA_BOOTSTRAP to its address."
                ) from raised
        time.sleep(PAUSE)


def options(bootstrap: str, **more: Any) -> dict[str, Any]:
    """The configuration every client has: librdkafka's own log lines go to Python's `stream_jobs.kafka`.

    TLS and SASL are those of the process's own settings. Raises `InvalidKafkaSecurity` where these contradict.
    """
    common = {"bootstrap.servers": bootstrap, "logger": logging.getLogger("stream_jobs.kafka")}
    return common | security(settings()) | {"reconnect.backoff.max.ms": 2_000} | more


def consumer(bootstrap: str, group: str) -> Consumer:
    """A consumer that reads and commits only what it is told to; where there is nothing left to read it fails."""
    manual = {"group.id": group, "enable.auto.commit": False, "enable.auto.offset.store": False}
    strict = {"auto.offset.reset": "error", "allow.auto.create.topics": False, "max.poll.interval.ms": 86_400_000}
    prefetch = {"queued.max.messages.kbytes": 16_384, "fetch.queue.backoff.ms": 10, "fetch.wait.max.ms": 100}
    return Consumer(options(bootstrap, **manual, **strict, **prefetch))


def committed(client: Consumer, place: TopicPartition, timeout: float = CALL) -> int | None:
    """The group's position in a partition, or None if it never had one. Raises `KafkaException`."""
    return positions(client, [place], timeout)[0]


def positions(client: Consumer, places: Sequence[TopicPartition], timeout: float = CALL) -> list[int | None]:
    """The group's position in each partition, or None where it never had one. Raises `KafkaException`."""
    answers = client.committed([TopicPartition(place.topic, place.partition) for place in places], timeout)
    for answer in answers:
        if answer.error is not None:
            raise KafkaException(answer.error)
    return [answer.offset if answer.offset >= 0 else None for answer in answers]


def commit(client: Consumer, places: list[TopicPartition]) -> None:
    """Set the group's positions and return when the broker has them. Raises `KafkaException`.

    A position's metadata is when it was set, µs since 1970 UTC: a supervisor sees by it that the group is read for.
    """
    now = str(time.time_ns() // 1_000)
    stamped = [TopicPartition(place.topic, place.partition, place.offset, now) for place in places]
    for answer in client.commit(offsets=stamped, asynchronous=False) or ():
        if answer.error is not None:
            raise KafkaException(answer.error)
