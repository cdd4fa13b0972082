"""A real Kafka broker for the tests: one node in KRaft mode, from the jars that `tests/kafka/pom.xml` names.

`KAFKA_BOOTSTRAP_SERVERS` names a running one instead. Only where there is neither that nor Java with Maven the tests
run on librdkafka's in-process broker, and the summary of the run says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Producer

from feature_repo.settings import ROOT
from monitoring.supervision import Part, Running, free_ports, start, stop, wait
from stream_jobs.transports.kafka import create_topic
from stream_jobs.transports.kafka_topics import partitions_of

POM = Path(__file__).parent / "kafka" / "pom.xml"
CACHE = ROOT / ".tollgate" / "kafka"
JAVA = ("java", "-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
QUIET = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-Dlog4j2.level=error")
PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=300
broker.session.timeout.ms=1500
"""

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

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._classpath = classpath()
        self._port, controller = free_ports(2)
        self._properties = folder / "server.properties"
        self._properties.write_text(
            PROPERTIES.format(port=self._port, controller=controller, data=(folder / "data").resolve())
        )
        self._java("kafka.tools.StorageTool", "format", "-t", "tollgate-tests-0000000", "-c", str(self._properties))
        self._running: Running | None = None
        began = time.monotonic()
        super().__init__(f"127.0.0.1:{self._port}", "")
        self.start()
        version = next(part for part in self._classpath.split(os.pathsep) if "kafka_2.13" in part)
        self.described = f"Apache {Path(version).stem}, ready after {time.monotonic() - began:.1f} s"

    def start(self) -> None:
        """Start the broker and return when it answers."""
        part = Part(
            name="kafka",
            command=(*JAVA, *QUIET, "-cp", self._classpath, "kafka.Kafka", str(self._properties)),
            folder=self._folder,
            url=self.bootstrap,
            ready=self._answers,
            address=("127.0.0.1", self._port),
        )
        self._running = start(part, self._folder / "logs")
        wait(part, self._running)

    def stop(self) -> None:
        """Shut the broker down as an operator would. Stopping twice is allowed."""
        if self._running is not None:
            stop(self._running)
        self._running = None

    def kill(self) -> None:
        """End the broker as a power cut would end its process."""
        assert self._running is not None
        _, *programs = self._running.processes()
        for program in programs:
            program.kill()
        psutil.wait_procs(programs, timeout=10)
        self.stop()

    def close(self) -> None:
        self.stop()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
            return partitions_of(self.bootstrap, "no-such-topic") is None
        return False

    def _java(self, *arguments: str) -> None:
        command = [*JAVA, *QUIET, "-cp", self._classpath, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{arguments[0]} ended with code {done.returncode}: {done.stderr or done.stdout}"


def classpath() -> str:
    """The jars of the broker as Maven has them; asked once for each content of the POM."""
    answer = CACHE / f"classpath-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}.txt"
    if not answer.exists() or not all(Path(jar).exists() for jar in answer.read_text().split(os.pathsep)):
        CACHE.mkdir(parents=True, exist_ok=True)
        goal = ("dependency:build-classpath", f"-Dmdep.outputFile={answer.with_suffix('.new')}")
        done = subprocess.run(["mvn", "-q", "-B", "-f", str(POM), *goal], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"Maven could not bring Kafka's jars:\n{done.stdout}\n{done.stderr}"
        os.replace(answer.with_suffix(".new"), answer)
    return answer.read_text().strip()


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
