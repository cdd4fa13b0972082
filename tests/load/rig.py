"""What the measurements stand on: a Redis, a Feast registry, a Kafka and the velocity job, in folders of their own."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaException, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from feature_repo.settings import ROOT, Settings
from feature_repo.store import apply
from monitoring.parts import QUIET, environment
from monitoring.processes import Platform, at_free_ports
from monitoring.supervision import Part, Running, free_ports, start, stop, tail
from stream_jobs.transports.kafka import connect, create_dead_letters, create_topic, publish
from stream_jobs.transports.kafka_client import consumer
from tests.kafka_broker import Broker, FromJars
from tests.load.payments import Payments, card_id

PARTITIONS = 4
CHUNK = 50_000
PATIENCE = 600.0
POLL = 0.005


@contextmanager
def platform() -> Iterator[Settings]:
    """A Redis that runs, a registry that was applied, and nothing in either."""
    with (
        tempfile.TemporaryDirectory(prefix="tollgate-bench-") as home,
        Platform(at_free_ports(Settings(home=Path(home)))) as running,
    ):
        running.start("redis")
        apply(running.settings)
        yield running.settings


@contextmanager
def kafka() -> Iterator[Broker]:
    """The broker that KAFKA_BOOTSTRAP_SERVERS names, else one from the jars that `tests/kafka/pom.xml` names."""
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield Broker(given, f"the broker at {given}")
        return
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-kafka-") as folder:
        broker = FromJars(Path(folder))
        try:
            yield broker
        finally:
            broker.close()


@dataclass
class Topic:
    """A topic of this measurement, keyed by card, and the settings of a job that reads it."""

    settings: Settings
    sent: list[int] = field(default_factory=lambda: [0] * PARTITIONS)

    @classmethod
    def new(cls, current: Settings, broker: Broker, name: str) -> Topic:
        """An empty topic; its name gets a stamp, for the broker may not be ours alone."""
        name = f"bench-{name}-{time.time_ns()}"
        own = {"transport": "kafka", "kafka_bootstrap": broker.bootstrap, "transactions_stream": name}
        groups = {"dead_letter_stream": f"{name}.dead", "consumer_group": f"{name}.job"}
        port = {"stream_metrics_port": free_ports(1)[0]}
        settings = Settings(**{**current.model_dump(include=current.model_fields_set), **own, **groups, **port})
        create_topic(broker.bootstrap, name, PARTITIONS)
        create_dead_letters(broker.bootstrap, settings.dead_letter_stream)
        return cls(settings)

    @property
    def name(self) -> str:
        """The topic's name."""
        return self.settings.transactions_stream

    def fill(self, events: Payments) -> None:
        """Send payments in order, each with the instant at which it was first had; returns when all are confirmed."""
        producer = connect(self.settings.kafka_bootstrap)
        for begin in range(0, len(events), CHUNK):
            end = min(begin + CHUNK, len(events))
            keys = [card_id(card).encode() for card in events.card[begin:end].tolist()]
            instants = events.ingested[begin:end].tolist()
            for place, _ in publish(producer, self.name, list(events.bodies(begin, end)), instants, keys):
                self.sent[int(place.rpartition("-")[2])] += 1


class Positions:
    """How far a consumer group has acknowledged a topic, as the broker says."""

    def __init__(self, topic: Topic, group: str) -> None:
        self._places = [TopicPartition(topic.name, number) for number in range(PARTITIONS)]
        self._client = consumer(topic.settings.kafka_bootstrap, group)

    def read(self) -> list[int]:
        """The position in each partition; -1 where the group has none, or nobody answers yet."""
        try:
            return [max(place.offset, -1) for place in self._client.committed(self._places, 5.0)]
        except KafkaException:
            return [-1] * PARTITIONS


class Job:
    """The velocity job, and beside it history's, each as processes of its own; they end with the `with` block."""

    def __init__(self, topic: Topic, processes: int = 1) -> None:
        self._topic, self._running = topic, list[Running]()
        self.online = Positions(topic, topic.settings.consumer_group)
        self.history = Positions(topic, f"{topic.settings.consumer_group}.history")
        addresses = ";".join(f"127.0.0.1:{port}" for port in free_ports(processes))
        current = topic.settings.model_copy(update={"history_apart": True})
        quiet = current.model_copy(update={"stream_metrics_port": None})
        self._start("history", quiet)
        for number in range(processes):
            cluster = ("-i", str(number), "-a", addresses) if processes > 1 else ()
            self._start("velocity", quiet if number else current, *cluster)

    def _start(self, module: str, current: Settings, *options: str) -> None:
        part = Part(
            name=f"{self._topic.name}-{module}-{len(self._running)}",
            command=(sys.executable, "-m", "bytewax.run", f"stream_jobs.{module}", *options),
            folder=ROOT,
            url="",
            ready=lambda: True,
            environment=QUIET | environment(current),
        )
        self._running.append(start(part, current.home / "logs"))

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        for running in self._running:
            stop(running)

    def until_opened(self) -> float:
        """When the job has opened every partition and the first record is on its way to it (`perf_counter`)."""
        while min(self.online.read() + self.history.read()) < 0:
            self._check()
        return time.perf_counter()

    def until_done(self, positions: Positions) -> list[tuple[float, int]]:
        """Wait until everything sent is acknowledged; when (`perf_counter`) how many records were."""
        seen: list[tuple[float, int]] = []
        while not seen or seen[-1][1] < sum(self._topic.sent):
            done = positions.read()
            seen.append((time.perf_counter(), sum(max(at, 0) for at in done)))
            self._check()
        return seen

    def metrics(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """What the job's own page of metrics says: samples by name and values of their labels."""
        url = f"http://127.0.0.1:{self._topic.settings.stream_metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as page:
            families = list(text_string_to_metric_families(page.read().decode()))
        return {(s.name, tuple(s.labels.values())): s.value for family in families for s in family.samples}

    def _check(self) -> None:
        """Wait a moment; raises with the end of its log if the job has ended."""
        for running in self._running:
            if not running.alive():
                raise RuntimeError(f"The velocity job has ended; its log ends with:\n{tail(running.log, 30)}")
        time.sleep(POLL)
