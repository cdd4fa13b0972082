"""Kafka as a supervisor sees it: whether a broker answers, and whether the stream job reads.

The broker is not ours to start: it is given by `FRAUD_KAFKA_BOOTSTRAP`.
"""

from __future__ import annotations

import socket

from feature_repo.settings import Settings
from monitoring.kafka_security import InvalidKafkaSecurity, security
from monitoring.supervision import PartFailed

PROBE_TIMEOUT = 2.0


def require_broker(current: Settings) -> None:
    """Raise `PartFailed` if Kafka is to carry the streams and nothing listens at any of its addresses."""
    if current.transport != "kafka":
        return
    for address in current.kafka_bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_TIMEOUT):
                return
        except (OSError, ValueError):
            continue
    raise PartFailed(
        f"FRAUD_KAFKA_BOOTSTRAP is '{current.kafka_bootstrap}': no Kafka broker answers there. "
        "Start one, name another as host:port, or unset FRAUD_TRANSPORT."
    )


def has_read(current: Settings, since: float) -> bool:
    """Whether the group's position was set in every partition of the transactions after `since` (s since 1970).

    A source sets it when it begins, and states there when that was.
    """
    from confluent_kafka import Consumer, KafkaException, TopicPartition

    topic = current.transactions_stream
    at = {"bootstrap.servers": current.kafka_bootstrap, "group.id": current.consumer_group}
    try:
        client = Consumer(at | security(current))
    except InvalidKafkaSecurity as error:
        raise PartFailed(str(error)) from None
    try:
        numbers = client.list_topics(topic, PROBE_TIMEOUT).topics[topic].partitions
        answers = client.committed([TopicPartition(topic, number) for number in numbers], PROBE_TIMEOUT)
        return bool(answers) and all(_set_at(answer.metadata) > since for answer in answers)
    except KafkaException:
        return False
    finally:
        client.close()


def _set_at(stated: str | None) -> float:
    stated = stated or ""
    return int(stated) / 1e6 if stated.isdigit() else 0.0
