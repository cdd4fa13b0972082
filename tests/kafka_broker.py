"""A real Kafka broker for the tests: one node in KRaft mode, as `monitoring.kafka_local` starts it.

`KAFKA_BOOTSTRAP_SERVERS` names a running one instead. Only where there is neither that nor Java with Maven the tests
run on librdkafka's in-process broker, and the summary of the run says so.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from monitoring import kafka_local
from monitoring.supervision import Running, free_ports, kill, start, stop, wait
from stream_jobs.transports.kafka import create_topic
from stream_jobs.transports.kafka_topics import partitions_of

_said = pytest.StashKey[str]()


class Broker:
    """A broker that a test reaches at `bootstrap`; `described` says which kind it is."""

    real = True
    """Whether it does all that Kafka does."""

    restarts = False
    """Whether a test may stop it and start it again."""

    def __init__(self, bootstrap: str, described: str) -> None:
        self.bootstrap, self.described = bootstrap, described

    def topic(self, name: str, partitions: int = 1) -> int:
        """Create a topic; how many partitions it has got (the in-process broker gives each the same number)."""
        create_topic(self.bootstrap, name, partitions)
        return partitions

    def close(self) -> None:
        """End what was started for the tests."""


class InProcess(Broker):
    """librdkafka's broker: lives in a client of this process and forgets everything with it."""

    real = False

    def __init__(self) -> None:
        self._client = Producer({"bootstrap.servers": "in-process", "test.mock.num.brokers": 1})
        [node] = self._client.list_topics(timeout=10).brokers.values()
        reason = "there is neither Java with Maven nor KAFKA_BOOTSTRAP_SERVERS"
        super().__init__(f"{node.host}:{node.port}", f"librdkafka's in-process broker, for {reason}: not a real one")

    def topic(self, name: str, partitions: int = 1) -> int:
        self._client.list_topics(name, timeout=10)
        return partitions_of(self.bootstrap, name) or 0


class FromJars(Broker):
    """Apache Kafka in a Java process, always at the same port and with the same data."""

    restarts = True

    def __init__(self, folder: Path, more: str = "", *formatted: str) -> None:
        """`more` are options in the place of every broker's; `formatted` is told when its disk is made."""
        self._folder = folder
        self._port, controller = free_ports(2)
        kafka_local.initialise(folder, self._port, controller, more, *formatted)
        self._running: Running | None = None
        began = time.monotonic()
        super().__init__(f"127.0.0.1:{self._port}", "")
        self.start()
        version = next(part for part in kafka_local.classpath().split(os.pathsep) if "kafka_2.13" in part)
        self.described = f"Apache {Path(version).stem}, ready after {time.monotonic() - began:.1f} s"

    def start(self) -> None:
        """Start the broker and return when it answers."""
        part = replace(kafka_local.part(self._folder, self._port), ready=self.answers)
        self._running = start(part, self._folder / "logs")
        wait(part, self._running)

    def answers(self) -> bool:
        """Whether it answers a client."""
        return kafka_local.answers(self._port)

    def stop(self) -> None:
        """Shut the broker down as an operator would. Stopping twice is allowed."""
        if self._running is not None:
            stop(self._running)
        self._running = None

    def kill(self) -> None:
        """End the broker as a power cut would end its process."""
        assert self._running is not None
        kill(self._running)
        self._running = None

    def close(self) -> None:
        self.stop()


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Broker]:
    """A broker for the whole session; a test makes topics of its own, and starts again what it stopped."""
    broker: Broker
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        broker = Broker(given, f"the broker at {given}, given by KAFKA_BOOTSTRAP_SERVERS")
    elif shutil.which("java") and shutil.which("mvn"):
        broker = FromJars(tmp_path_factory.mktemp("kafka"))
    else:
        broker = InProcess()
    pytestconfig.stash[_said] = broker.described
    yield broker
    broker.close()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which Kafka the tests have met."""
    if _said in config.stash:
        terminalreporter.write_line(f"Kafka was {config.stash[_said]}.")
