"""Kafka's topics: what is there, how far it reaches, and making what is not there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType

from stream_jobs.transports.kafka_client import (
    CALL,
    MAX_BYTES,
    PATIENCE,
    PAUSE,
    KafkaFailed,
    consumer,
    options,
    patiently,
)

APPENDED = {"message.timestamp.type": "LogAppendTime"}
"""Every topic's messages carry the broker's own time: it is when the log took them in."""

DEAD_LETTERS = {"retention.ms": "-1", "max.message.bytes": str(MAX_BYTES)}
"""For ever, with room for the largest message and its reason."""


def admin(bootstrap: str) -> AdminClient:
    """A client for topics and offsets."""
    return AdminClient(options(bootstrap))


def create_topic(bootstrap: str, topic: str, partitions: int, more: Mapping[str, str] | None = None) -> None:
    """Create a topic whose messages carry the broker's own time, and return when it can be used.

    `more` are options of the topic. One that exists is left as it is; raises `KafkaFailed` if it has another number of
    partitions.
    """
    client = admin(bootstrap)
    wanted = NewTopic(topic, partitions, config={**APPENDED, **(more or {})})
    future = client.create_topics([wanted], request_timeout=PATIENCE)[topic]
    try:
        future.result()
    except KafkaException as raised:
        if raised.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise KafkaFailed(f"Topic '{topic}' was not created at {bootstrap}: {raised.args[0].str()}.") from raised
    if (there := _settled(bootstrap, topic, 1)) != partitions:
        raise KafkaFailed(
            f"Topic '{topic}' has {there or 'no'} partitions; {partitions} were asked for. A key's partition depends "
            "on their number: take another name, or drain and delete the topic first."
        )


def create_dead_letters(bootstrap: str, topic: str) -> None:
    """Create a topic for dead letters: one partition, for ever, with room for the largest message and its reason."""
    create_topic(bootstrap, topic, 1, DEAD_LETTERS)


def add_partitions(bootstrap: str, topic: str, partitions: int) -> None:
    """Give a topic more partitions and return when they can be used. Whether keys may move is the caller's concern."""
    client = admin(bootstrap)
    future = client.create_partitions([NewPartitions(topic, partitions)], request_timeout=PATIENCE)[topic]
    try:
        future.result()
    except KafkaException as raised:
        raise KafkaFailed(f"Topic '{topic}' at {bootstrap} got no more partitions: {raised.args[0].str()}.") from raised
    _settled(bootstrap, topic, partitions)


def delete_topic(bootstrap: str, topic: str) -> bool:
    """Delete a topic with all it holds; whether it was there."""
    client = admin(bootstrap)
    future = client.delete_topics([topic], request_timeout=PATIENCE)[topic]
    try:
        future.result()
    except KafkaException as raised:
        if raised.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return False
        raise KafkaFailed(f"Topic '{topic}' at {bootstrap} was not deleted: {raised.args[0].str()}.") from raised
    return True


def _settled(bootstrap: str, topic: str, least: int) -> int | None:
    """Partitions of a topic as soon as there are so many, or when patience is gone."""
    deadline = time.monotonic() + PATIENCE
    while ((there := partitions_of(bootstrap, topic)) or 0) < least and time.monotonic() < deadline:
        time.sleep(PAUSE)
    return there


def partitions_of(bootstrap: str, topic: str) -> int | None:
    """How many partitions a topic has, or None if it does not exist. Never creates it."""
    looking = consumer(bootstrap, "tollgate.look")
    try:
        found = patiently(f"Topic '{topic}' at {bootstrap}", lambda: looking.list_topics(topic, CALL)).topics[topic]
        led = [part for part in found.partitions.values() if part.leader >= 0]
        return len(found.partitions) if found.error is None and len(led) == len(found.partitions) > 0 else None
    finally:
        looking.close()


def places_of(bootstrap: str, topic: str) -> list[TopicPartition]:
    """Every partition of a topic; raises `KafkaFailed` if it does not exist."""
    count = partitions_of(bootstrap, topic)
    if count is None:
        raise KafkaFailed(
            f"Topic '{topic}' does not exist at {bootstrap}; create it first: python -m stream_jobs.topics"
        )
    return [TopicPartition(topic, number) for number in range(count)]


def end_offsets(client: AdminClient, places: Sequence[TopicPartition]) -> list[int]:
    """Where each partition ends: one past its newest message. Raises `KafkaException`."""
    asked = client.list_offsets({place: OffsetSpec.latest() for place in places}, request_timeout=CALL)
    found = {(place.topic, place.partition): future.result().offset for place, future in asked.items()}
    return [found[place.topic, place.partition] for place in places]


def settings_of(bootstrap: str, topic: str) -> dict[str, str]:
    """Every option of a topic, as the broker has it."""
    client = admin(bootstrap)
    [future] = client.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    return {name: entry.value for name, entry in patiently(f"Topic '{topic}'", future.result).items()}
