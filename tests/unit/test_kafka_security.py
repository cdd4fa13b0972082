"""TLS and SASL towards Kafka: what librdkafka is told, what librdkafka makes of it, and settings that contradict."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from feature_repo.settings import Settings
from monitoring.kafka_security import InvalidKafkaSecurity, security

ACCOUNT = {"kafka_username": "tollgate", "kafka_password": "a password"}


def test_plain_text_is_the_default_and_says_nothing():
    assert security(Settings()) == {}


def test_librdkafka_takes_what_it_is_told(tmp_path: Path):
    told = security(Settings(kafka_security="sasl_ssl", **ACCOUNT))
    assert told["sasl.mechanism"] == "SCRAM-SHA-512"
    AdminClient({"bootstrap.servers": "127.0.0.1:1", **told})
    assert security(Settings(kafka_security="ssl", kafka_ca=tmp_path / "ca.pem")) == {
        "security.protocol": "ssl",
        "ssl.ca.location": str(tmp_path / "ca.pem"),
    }


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"kafka_security": "sasl_ssl"}, "FRAUD_KAFKA_USERNAME is not set"),
        ({"kafka_security": "sasl_ssl", "kafka_username": "tollgate"}, "FRAUD_KAFKA_PASSWORD is not set"),
        (ACCOUNT, "FRAUD_KAFKA_USERNAME is set with FRAUD_KAFKA_SECURITY 'plaintext'"),
        ({"kafka_security": "ssl", "kafka_password": "a password"}, "FRAUD_KAFKA_PASSWORD is set"),
        ({"kafka_ca": Path("ca.pem")}, "asks for no certificate"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, str], named: str):
    with pytest.raises(InvalidKafkaSecurity, match=named):
        security(Settings(**given))


def test_no_password_is_shown():
    assert "a password" not in repr(Settings(kafka_security="sasl_ssl", **ACCOUNT))
