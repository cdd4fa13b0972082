"""The transport that the settings choose."""

from __future__ import annotations

from feature_repo.settings import Settings
from stream_jobs.transports.base import Transport
from stream_jobs.transports.kafka import Kafka
from stream_jobs.transports.redis_streams import RedisStreams


def transport(current: Settings, group: str, stream: str = "") -> Transport:
    """The transport of a stream (default: the transactions) for one consumer group; it connects to nothing yet."""
    stream, dead_letters = stream or current.transactions_stream, current.dead_letter_stream
    if current.transport == "kafka":
        return Kafka(current.kafka_bootstrap, stream, group, dead_letters)
    return RedisStreams(current.redis_url, stream, group, dead_letters)
