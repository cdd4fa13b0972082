"""The platform's Kafka topics: made where they are missing, told where they exist. `python -m stream_jobs.topics`

A key's partition depends on the number of partitions, so a topic that holds messages never gets another number: a
card's events would lie in two places, and their order would be lost.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import TopicPartition

from feature_repo.settings import Settings, settings
from stream_jobs.transports.kafka_client import KafkaFailed, patiently
from stream_jobs.transports.kafka_topics import (
    APPENDED,
    DEAD_LETTERS,
    add_partitions,
    admin,
    create_topic,
    delete_topic,
    end_offsets,
    partitions_of,
    settings_of,
)

WEEK = {"retention.ms": str(7 * 24 * 3_600_000)}
"""A stream is read within seconds; history and the decision log keep what is to be kept."""


@dataclass(frozen=True)
class Topic:
    """A topic as the platform wants it."""

    name: str
    partitions: int
    options: Mapping[str, str]


def topics(current: Settings) -> list[Topic]:
    """What the platform needs: streams keyed by card, and one partition of dead letters."""
    keyed = (
        current.transactions_stream, current.decisions_stream, current.feature_updates_stream, current.predictions_topic
    )  # fmt: skip
    streams = [Topic(name, current.kafka_partitions, APPENDED | WEEK) for name in keyed]
    return [*streams, Topic(current.dead_letter_stream, 1, APPENDED | DEAD_LETTERS)]


def ensure(bootstrap: str, topic: Topic) -> str:
    """Have the topic there, and say what was done or found.

    Raises `KafkaFailed` if it has another number of partitions and cannot get this one: it holds or held messages, or
    the number is smaller. Other options of a topic that exists are told and left as they are.
    """
    there = partitions_of(bootstrap, topic.name)
    if there is None:
        create_topic(bootstrap, topic.name, topic.partitions, topic.options)
        return f"created with {_count(topic.partitions)}"
    if there != topic.partitions:
        _require_changeable(bootstrap, topic, there)
        add_partitions(bootstrap, topic.name, topic.partitions)
        return f"was empty; grown from {_count(there)} to {topic.partitions}"
    found = settings_of(bootstrap, topic.name)
    other = [
        f"{name}={found[name]} (we would set {value})" for name, value in topic.options.items() if found[name] != value
    ]
    return f"exists with {_count(there)}" + (f"; has {', '.join(other)}" if other else "")


def _require_changeable(bootstrap: str, topic: Topic, there: int) -> None:
    client, places = admin(bootstrap), [TopicPartition(topic.name, number) for number in range(there)]
    held = sum(patiently(f"Topic '{topic.name}'", lambda: end_offsets(client, places)))
    subject = f"Topic '{topic.name}' has {_count(there)}, not {topic.partitions}"
    if held:
        raise KafkaFailed(
            f"{subject}, and has held {held} messages: with another number a key would move to another partition. "
            f"Set FRAUD_KAFKA_PARTITIONS={there}, or take another topic, or drain this one and delete it."
        )
    if there > topic.partitions:
        raise KafkaFailed(f"{subject}: Kafka takes no partition away. Delete the topic, which is empty, and try again.")


def delete(bootstrap: str, topic: Topic) -> str:
    """Delete the topic with all it holds, and say whether it was there."""
    return "deleted" if delete_topic(bootstrap, topic.name) else "does not exist"


def _count(partitions: int) -> str:
    return f"{partitions} partition{'s' * (partitions != 1)}"


def main() -> None:
    """Create what is missing; exit code 1 where a topic is not as the platform needs it."""
    parser = argparse.ArgumentParser(prog="python -m stream_jobs.topics", description=__doc__)
    parser.add_argument("--bootstrap", help="brokers, host:port with commas between; default: FRAUD_KAFKA_BOOTSTRAP")
    parser.add_argument("--partitions", type=int, help="of the topics keyed by card; default: FRAUD_KAFKA_PARTITIONS")
    parser.add_argument("--delete", action="store_true", help="delete the topics instead, with all they hold")
    arguments = parser.parse_args()
    current = settings()
    given = {"kafka_bootstrap": arguments.bootstrap, "kafka_partitions": arguments.partitions}
    current = current.model_copy(update={name: value for name, value in given.items() if value is not None})
    treat, failed = delete if arguments.delete else ensure, False
    for topic in topics(current):
        try:
            print(f"{topic.name:24} {treat(current.kafka_bootstrap, topic)}", flush=True)
        except KafkaFailed as error:
            print(error, file=sys.stderr)
            failed = True
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
