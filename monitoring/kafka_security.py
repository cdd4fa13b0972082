"""TLS and SASL towards Kafka's brokers, by the settings: what every client of ours tells librdkafka."""

from __future__ import annotations

from feature_repo.settings import Settings

MECHANISM = "SCRAM-SHA-512"
"""What MSK and Strimzi speak alike."""


class InvalidKafkaSecurity(ValueError):
    """Settings of TLS and SASL that contradict each other; the message names them and what to set."""


def security(current: Settings) -> dict[str, str]:
    """The options of TLS and SASL; none for plain text.

    Raises `InvalidKafkaSecurity` where the settings contradict each other, so that no password is sent in plain text.
    """
    named = {"FRAUD_KAFKA_USERNAME": current.kafka_username, "FRAUD_KAFKA_PASSWORD": current.kafka_password}
    for name, value in named.items():
        if (value is not None) != (current.kafka_security == "sasl_ssl"):
            found = "set" if value is not None else "not set"
            raise InvalidKafkaSecurity(
                f"{name} is {found} with FRAUD_KAFKA_SECURITY {current.kafka_security!r}; it belongs to 'sasl_ssl' "
                "alone, which needs it: set both, or neither."
            )
    if current.kafka_security == "plaintext":
        if current.kafka_ca is not None:
            raise InvalidKafkaSecurity(
                f"FRAUD_KAFKA_CA is {str(current.kafka_ca)!r} with FRAUD_KAFKA_SECURITY 'plaintext', which asks for no "
                "certificate: set 'ssl' or 'sasl_ssl', or unset it."
            )
        return {}
    options: dict[str, str] = {"security.protocol": current.kafka_security}
    if current.kafka_ca is not None:
        options["ssl.ca.location"] = str(current.kafka_ca)
    if current.kafka_username is not None and current.kafka_password is not None:
        options["sasl.mechanism"] = MECHANISM
        options |= {"sasl.username": current.kafka_username, "sasl.password": current.kafka_password}
    return options
