"""A Kafka broker of this machine: one node in KRaft mode, from the jars that `kafka/pom.xml` names (Java and Maven)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
from pathlib import Path

from feature_repo.settings import ROOT
from monitoring.supervision import Part, PartFailed

POM = Path(__file__).parent / "kafka" / "pom.xml"
CACHE = ROOT / ".tollgate" / "kafka"
HOST = "127.0.0.1"
JAVA = ("java", "-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
QUIET = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-Dlog4j2.level=error")
CLUSTER = "tollgate-local-0000000"
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


def classpath() -> str:
    """The jars of the broker as Maven has them; asked once for each content of the POM. Raises `PartFailed`."""
    answer = CACHE / f"classpath-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}.txt"
    if not answer.exists() or not all(Path(jar).exists() for jar in answer.read_text().split(os.pathsep)):
        for program in ("java", "mvn"):
            if shutil.which(program) is None:
                raise PartFailed(f"Part 'kafka': there is no '{program}' on PATH; install Java 17 or later and Maven.")
        CACHE.mkdir(parents=True, exist_ok=True)
        goal = ("dependency:build-classpath", f"-Dmdep.outputFile={answer.with_suffix('.new')}")
        _run("mvn", "-q", "-B", "-f", str(POM), *goal)
        os.replace(answer.with_suffix(".new"), answer)
    return answer.read_text().strip()


def initialise(folder: Path, port: int, controller: int, more: str = "", *formatted: str) -> None:
    """Make an empty broker in `folder`, for good at these two ports.

    `more` are options in the place of every broker's; `formatted` is told when its disk is made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = (PROPERTIES + more).format(port=port, controller=controller, data=(folder / "data").resolve())
    _properties(folder).write_text(written)
    tool = ("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(_properties(folder)), *formatted)
    _run(*JAVA, *QUIET, "-cp", classpath(), *tool)


def part(folder: Path, port: int) -> Part:
    """The broker in `folder`."""
    return Part(
        name="kafka",
        command=(*JAVA, *QUIET, "-cp", classpath(), "kafka.Kafka", str(_properties(folder))),
        folder=folder,
        url=f"{HOST}:{port}",
        ready=lambda: answers(port),
        address=(HOST, port),
    )


def answers(port: int) -> bool:
    """Whether a broker answers at this port of the machine."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    with contextlib.suppress(OSError, KafkaException), socket.create_connection((HOST, port), timeout=1):
        return bool(AdminClient({"bootstrap.servers": f"{HOST}:{port}"}).list_topics(timeout=2).brokers)
    return False


def _properties(folder: Path) -> Path:
    return folder / "server.properties"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)  # noqa: S603 - our own
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise PartFailed(f"Part 'kafka': {' '.join(command[-4:])} ended with code {done.returncode}: {said}")
