"""A broker that speaks TLS alone and asks for a name and a password, as Amazon's does, and the clients of the jobs."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from feature_repo.settings import settings
from stream_jobs.transports import kafka_client, kafka_producer, kafka_topics
from stream_jobs.transports.kafka_client import KafkaFailed, consumer
from tests.certificates import Authority
from tests.kafka_broker import FromJars

NAME, PASSWORD = "tollgate", "a-password-of-a-test"
OPTIONS = """
listeners=CLIENTS://127.0.0.1:{{port}},INSIDE://127.0.0.1:0,CONTROLLER://127.0.0.1:{{controller}}
advertised.listeners=CLIENTS://127.0.0.1:{{port}},INSIDE://127.0.0.1:0
listener.security.protocol.map=CLIENTS:SASL_SSL,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=INSIDE
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.clients.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={store}
"""


class Guarded(FromJars):
    """Waits until it answers the account alone."""

    def answers(self) -> bool:
        with contextlib.suppress(OSError, KafkaFailed), socket.create_connection(("127.0.0.1", self._port), timeout=1):
            return kafka_topics.partitions_of(self.bootstrap, "no-such-topic") is None
        return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guarded")


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Callable[[str], None]]:
    """The process's own settings, with a password."""

    def take(password: str) -> None:
        for name, value in {
            "SECURITY": "sasl_ssl",
            "CA": str(folder / "authority.pem"),
            "USERNAME": NAME,
            "PASSWORD": password,
        }.items():
            monkeypatch.setenv(f"FRAUD_KAFKA_{name}", value)
        settings.cache_clear()

    yield take
    settings.cache_clear()


@pytest.fixture
def broker(folder: Path, account: Callable[[str], None]) -> Iterator[Guarded]:
    if not (shutil.which("java") and shutil.which("mvn")):
        pytest.fail(
            "A broker with TLS needs Java and Maven: install both (apt-get install default-jre-headless maven)."
        )
    certificate, key = Authority(folder).issue("broker")
    store = folder / "broker-store.pem"
    store.write_text(key.read_text() + certificate.read_text())
    account(PASSWORD)
    made = Guarded(
        folder,
        OPTIONS.format(store=store),
        "--add-scram",
        f"SCRAM-SHA-512=[name={NAME},password={PASSWORD}]",
    )
    yield made
    made.close()


def test_the_jobs_clients_write_and_read_over_tls_with_their_password_and_not_without(
    broker: Guarded, account: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
):
    kafka_topics.create_topic(broker.bootstrap, "guarded", 1)
    sent = kafka_producer.publish(kafka_producer.connect(broker.bootstrap), "guarded", [b"{}"], [None], [b"card"])
    assert sent == [("guarded-0", "0")]
    reading = consumer(broker.bootstrap, "reader")
    [place] = kafka_topics.places_of(broker.bootstrap, "guarded")
    place.offset = 0
    reading.assign([place])
    message = reading.poll(30)
    assert message is not None
    assert (message.error(), message.value()) == (None, b"{}")
    reading.close()
    for module in (kafka_client, kafka_topics):
        monkeypatch.setattr(module, "PATIENCE", 3.0)
    account("another password")
    with pytest.raises(KafkaFailed):
        kafka_topics.partitions_of(broker.bootstrap, "guarded")
