"""`python -m stream_jobs.topics` as a person runs it, against a real broker."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from feature_repo.settings import ROOT, Settings
from monitoring.parts import environment
from stream_jobs.transports import kafka
from stream_jobs.transports.kafka_topics import create_topic, partitions_of, settings_of
from tests.integration.logs import unique
from tests.kafka_broker import Broker


@pytest.fixture
def current(kafka_broker: Broker) -> Settings:
    if not kafka_broker.real:
        pytest.skip(f"Kafka is {kafka_broker.described}")
    names = ("transactions_stream", "decisions_stream", "feature_updates_stream", "dead_letter_stream")
    streams = {name: unique(name.removesuffix("_stream")) for name in names}
    streams["predictions_topic"] = unique("predictions")
    return Settings(kafka_bootstrap=kafka_broker.bootstrap, kafka_partitions=3, **streams)


def command(current: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stream_jobs.topics", *arguments],
        cwd=ROOT,
        env=os.environ | environment(current),
        capture_output=True,
        text=True,
        timeout=180,
    )


def lines(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())


def test_what_is_missing_is_made_once_and_told_again(current: Settings) -> None:
    keyed = (
        current.transactions_stream, current.decisions_stream, current.feature_updates_stream, current.predictions_topic
    )  # fmt: skip
    done = command(current)
    assert done.returncode == 0, done.stderr
    made = dict.fromkeys(keyed, "created with 3 partitions")
    assert lines(done) == made | {current.dead_letter_stream: "created with 1 partition"}
    options = settings_of(current.kafka_bootstrap, current.transactions_stream)
    assert (options["message.timestamp.type"], options["retention.ms"]) == ("LogAppendTime", "604800000")
    assert settings_of(current.kafka_bootstrap, current.dead_letter_stream)["retention.ms"] == "-1"

    again = command(current)
    assert again.returncode == 0, again.stderr
    there = dict.fromkeys(keyed, "exists with 3 partitions")
    assert lines(again) == there | {current.dead_letter_stream: "exists with 1 partition"}


def test_a_topic_that_held_messages_keeps_its_partitions_and_the_others_are_made(current: Settings) -> None:
    create_topic(current.kafka_bootstrap, current.transactions_stream, 3)
    kafka.publish(kafka.connect(current.kafka_bootstrap), current.transactions_stream, [b"1"], [None], [b"card"])
    done = command(current, "--partitions", "5")
    assert done.returncode == 1
    assert (
        f"Topic '{current.transactions_stream}' has 3 partitions, not 5, and has held 1 messages: with another number "
        "a key would move to another partition. Set FRAUD_KAFKA_PARTITIONS=3, or take another topic, or drain this one "
        "and delete it."
    ) in done.stderr
    assert "Traceback" not in done.stderr
    assert partitions_of(current.kafka_bootstrap, current.transactions_stream) == 3
    assert partitions_of(current.kafka_bootstrap, current.decisions_stream) == 5


def test_an_empty_topic_may_grow_but_not_shrink(current: Settings) -> None:
    create_topic(current.kafka_bootstrap, current.transactions_stream, 2)
    create_topic(current.kafka_bootstrap, current.decisions_stream, 4)
    done = command(current)
    assert done.returncode == 1
    assert lines(done)[current.transactions_stream].startswith("was empty; grown from 2 partitions to 3")
    assert "has 4 partitions, not 3: Kafka takes no partition away. Delete the topic" in done.stderr
    assert partitions_of(current.kafka_bootstrap, current.transactions_stream) == 3


def test_options_that_differ_are_told_and_left(current: Settings) -> None:
    create_topic(current.kafka_bootstrap, current.transactions_stream, 3, {"retention.ms": "5000"})
    done = command(current)
    assert done.returncode == 0
    told = "exists with 3 partitions; has retention.ms=5000 (we would set 604800000)"
    assert lines(done)[current.transactions_stream] == told
    assert settings_of(current.kafka_bootstrap, current.transactions_stream)["retention.ms"] == "5000"
