"""What every client of Kafka shares: patience with a broker that is away, errors a person can act on, and topics."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

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
    """The configuration every client has: librdkafka's own log lines go to Python's `stream_jobs.kafka`."""
    common = {"bootstrap.servers": bootstrap, "logger": logging.getLogger("stream_jobs.kafka")}
    return common | {"reconnect.backoff.max.ms": 2_000} | more


def consumer(bootstrap: str, group: str) -> Consumer:
    """A consumer that reads and commits only what it is told to; where there is nothing left to read it fails."""
    manual = {"group.id": group, "enable.auto.commit": False, "enable.auto.offset.store": False}
    strict = {"auto.offset.reset": "error", "allow.auto.create.topics": False, "max.poll.interval.ms": 86_400_000}
    prefetch = {"queued.max.messages.kbytes": 16_384, "fetch.queue.backoff.ms": 10, "fetch.wait.max.ms": 100}
    return Consumer(options(bootstrap, **manual, **strict, **prefetch))


def committed(client: Consumer, place: TopicPartition, timeout: float = CALL) -> int | None:
    """The group's position in a partition, or None if it never had one. Raises `KafkaException`."""
    [answer] = client.committed([TopicPartition(place.topic, place.partition)], timeout)
    if answer.error is not None:
        raise KafkaException(answer.error)
    return answer.offset if answer.offset >= 0 else None


def commit(client: Consumer, places: list[TopicPartition]) -> None:
    """Set the group's positions and return when the broker has them. Raises `KafkaException`."""
    for answer in client.commit(offsets=places, asynchronous=False) or ():
        if answer.error is not None:
            raise KafkaException(answer.error)


def create_topic(bootstrap: str, topic: str, partitions: int, more: Mapping[str, str] | None = None) -> None:
    """Create a topic whose messages carry the broker's own time, and return when it can be used.

    `more` are options of the topic. One that exists is left as it is; raises `KafkaFailed` if it has another number of
    partitions.
    """
    admin = AdminClient(options(bootstrap))
    wanted = {"message.timestamp.type": "LogAppendTime", **(more or {})}
    future = admin.create_topics([NewTopic(topic, partitions, config=wanted)], request_timeout=PATIENCE)[topic]
    try:
        future.result()
    except KafkaException as raised:
        if raised.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise KafkaFailed(f"Topic '{topic}' was not created at {bootstrap}: {raised.args[0].str()}.") from raised
    deadline = time.monotonic() + PATIENCE
    while (there := partitions_of(bootstrap, topic)) is None and time.monotonic() < deadline:
        time.sleep(PAUSE)
    if there != partitions:
        raise KafkaFailed(
            f"Topic '{topic}' has {there or 'no'} partitions; {partitions} were asked for. A key's partition depends "
            "on their number: take another name, or drain and delete the topic first."
        )


def create_dead_letters(bootstrap: str, topic: str) -> None:
    """Create a topic for dead letters: one partition, for ever, with room for the largest message and its reason."""
    create_topic(bootstrap, topic, 1, {"retention.ms": "-1", "max.message.bytes": str(MAX_BYTES)})


def partitions_of(bootstrap: str, topic: str) -> int | None:
    """How many partitions a topic has, or None if it does not exist. Never creates it."""
    looking = consumer(bootstrap, "tollgate.look")
    try:
        found = patiently(f"Topic '{topic}' at {bootstrap}", lambda: looking.list_topics(topic, CALL)).topics[topic]
        led = [part for part in found.partitions.values() if part.leader >= 0]
        return len(found.partitions) if found.error is None and len(led) == len(found.partitions) > 0 else None
    finally:
        looking.close()
