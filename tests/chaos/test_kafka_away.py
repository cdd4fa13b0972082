"""Kafka away under load while it is the decision log: answers go on from the journal, and all reach the topic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from feature_repo.settings import Settings
from monitoring.decision_log import LoggedDecision
from stream_jobs.kafka_decisions import KafkaDecisions
from tests.chaos.conftest import NIGHTLY
from tests.chaos.load import Load, sent_again, until
from tests.chaos.stage import Stage, on_stage, same_bytes, settings_of
from tests.chaos.verdict import judge
from tests.integration.logs import unique
from tests.kafka_broker import Broker

AWAY = 60.0 if NIGHTLY else 8.0
PARTITIONS = 3


@pytest.fixture
def over_kafka(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str, kafka_broker: Broker) -> Iterator[Stage]:
    """A service whose decision log is a topic of its own."""
    stream = unique("decisions")
    kafka_broker.topic(stream, PARTITIONS)
    of_kafka = {"decision_log": "kafka", "kafka_bootstrap": kafka_broker.bootstrap, "decisions_stream": stream}
    home, name = tmp_path_factory.mktemp("chaos-kafka"), unique("chaos")
    current = settings_of(home, mlflow_server, model_name=name, **of_kafka)
    with on_stage(current) as made:
        yield made


def in_topic(current: Settings) -> list[LoggedDecision]:
    """Every message of the topic."""
    source = KafkaDecisions(current.model_copy(update={"decisions_group": unique("verdict")}))
    found: list[LoggedDecision] = []
    try:
        until(lambda: found.extend(source.take(0.5)) or source.lag() == 0)
    finally:
        source.close()
    return found


def in_use(stage: Stage) -> bool:
    return not stage.journal_is_empty()


def test_a_broker_that_is_away_for_a_while_misses_no_answer(
    over_kafka: Stage, kafka_broker: Broker, tell: Callable[[str], None]
) -> None:
    if not kafka_broker.restarts:
        pytest.fail(f"Kafka is {kafka_broker.described}; this test must be able to stop and start it.")
    with Load(over_kafka.settings) as load:
        load.more()
        kafka_broker.kill()  # type: ignore[attr-defined]
        try:
            load.run_until(lambda: in_use(over_kafka))
            away = time.monotonic()
            load.run_until(lambda: time.monotonic() > away + AWAY)
            assert over_kafka.get("/readyz").status_code == 200
            meanwhile = load.since(away, time.monotonic() - 1.0)[::23]
            assert same_bytes(meanwhile, sent_again(over_kafka.settings, meanwhile))
        finally:
            kafka_broker.start()  # type: ignore[attr-defined]
        load.run_until(over_kafka.journal_is_empty)
        load.more()
    over_kafka.drained()
    assert {one.status for one in load.replies} == {200}
    assert same_bytes(meanwhile, sent_again(over_kafka.settings, meanwhile))
    record = in_topic(over_kafka.settings)
    verdict = judge(load.replies, record, over_kafka.biases, at_least_once=True)
    again = len(record) - verdict.answered
    tell(verdict.line(f"Kafka away for {AWAY:g} s ({again} redelivered with equal bytes)", 2 * len(meanwhile)))
    assert verdict.faults == {}
    assert len(meanwhile) > 20
