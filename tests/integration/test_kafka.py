"""What only Kafka promises: partitions by card, offsets with gaps, errors that say what to do."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
from confluent_kafka import KafkaError, Producer, TopicPartition

from feature_repo.settings import Settings
from stream_jobs.transports import kafka, kafka_client, kafka_source
from stream_jobs.transports.configured import transport
from stream_jobs.transports.kafka import KafkaFailed
from stream_jobs.transports.kafka_client import commit, consumer
from stream_jobs.transports.kafka_committer import Committer
from stream_jobs.transports.redis_streams import RedisStreams
from tests.integration.logs import KafkaLog, reading, unique
from tests.kafka_broker import Broker


@pytest.fixture
def log(kafka_broker: Broker) -> KafkaLog:
    return KafkaLog(kafka_broker, partitions=4)


@pytest.fixture
def real_broker(kafka_broker: Broker) -> Broker:
    if not kafka_broker.real:
        pytest.skip(f"Kafka is {kafka_broker.described}")
    return kafka_broker


def test_a_card_has_one_partition_and_its_order(log: KafkaLog) -> None:
    keys = [b"card-%d" % (number % 50) for number in range(2_000)]
    sent = [b"%d" % number for number in range(2_000)]
    log.publish(sent, keys=keys)
    with reading(log.transport()) as run:
        records = run.take(2_000)
    partition = {record.body: record.partition for record in records}
    by_card = {(key, partition[body]) for key, body in zip(keys, sent, strict=True)}
    assert len(by_card) == 50
    assert len({place for _, place in by_card}) == 4
    for name in run.names:
        numbers = [int(record.body) for record in records if record.partition == name]
        assert numbers == sorted(numbers)


def test_a_java_client_would_choose_the_same_partition(log: KafkaLog) -> None:
    # murmur2 of Kafka's own test, UtilsTest.testMurmur2: "21" -> -973932308.
    log.publish([b"1"], keys=[b"21"])
    with reading(log.transport()) as run:
        [record] = run.take(1)
    assert record.partition == f"{log.name}-{(-973932308 & 0x7FFFFFFF) % 4}"


def test_publish_returns_where_each_message_lies(log: KafkaLog) -> None:
    placed = kafka.publish(log.producer, log.name, [b"1", b"2", b"3"], [None] * 3, [b"a", b"b", b"a"])
    with reading(log.transport()) as run:
        given = {record.body: (record.partition, record.id) for record in run.take(3)}
    assert placed == [given[b"1"], given[b"2"], given[b"3"]]


def test_offsets_that_hold_no_record_do_not_hold_up_the_position(log: KafkaLog, real_broker: Broker) -> None:
    producer = Producer({"bootstrap.servers": log.broker.bootstrap, "transactional.id": unique("writer")})
    producer.init_transactions(20)
    for number in range(4):  # each transaction ends with a marker that takes an offset
        producer.begin_transaction()
        producer.produce(log.name, b"%d" % number, b"card")
        producer.flush(20)
        producer.commit_transaction(20) if number != 1 else producer.abort_transaction(20)
    with reading(log.transport(in_flight=2)) as run, closing(log.transport().acknowledger()) as acknowledger:
        given = []
        while len(given) < 3:
            more = run.take(1)
            given += more
            acknowledger.acknowledge(more[0].partition, [record.id for record in more])
    assert [(record.body, record.id) for record in given] == [(b"0", "0"), (b"2", "1-4"), (b"3", "5-6")]
    with reading(log.transport()) as run:
        assert run.rest() == []


def test_a_missing_topic_is_named(kafka_broker: Broker) -> None:
    nowhere = kafka.Kafka(kafka_broker.bootstrap, "no-such-topic", "job", "dead")
    with pytest.raises(KafkaFailed, match=r"Topic 'no-such-topic' does not exist at .*create it"):
        nowhere.source().list_parts()


def test_a_topic_is_made_once_and_keeps_its_number_of_partitions(real_broker: Broker) -> None:
    name = unique("made")
    kafka.create_topic(real_broker.bootstrap, name, 3)
    kafka.create_topic(real_broker.bootstrap, name, 3)
    with pytest.raises(KafkaFailed, match=rf"Topic '{name}' has 3 partitions; 5 were asked for"):
        kafka.create_topic(real_broker.bootstrap, name, 5)


def test_a_dead_letter_may_be_larger_than_a_message(log: KafkaLog, real_broker: Broker) -> None:
    dead = unique("dead")
    kafka.create_dead_letters(log.broker.bootstrap, dead)
    log.publish([b"x" * 1_040_000])
    with reading(log.transport()) as run:
        given = run.take(1)
    place = kafka.Kafka(log.broker.bootstrap, log.name, "job", dead)
    with closing(place.acknowledger()) as acknowledger:
        acknowledger.bury([(given[0], "invalid: " + "y" * 100_000)])


def test_a_message_that_is_refused_is_reported(log: KafkaLog) -> None:
    with pytest.raises(KafkaFailed, match=rf"Topic '{log.name}': 1 of 3 messages were not confirmed: MSG_SIZE_TOO_"):
        log.publish([b"1", b"x" * 3_000_000, b"2"])
    with reading(log.transport()) as run:
        assert [record.body for record in run.take(2)] == [b"1", b"2"]


def test_a_broker_that_never_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_client, "PATIENCE", 0.3)
    monkeypatch.setattr(kafka_client, "CALL", 0.2)
    with pytest.raises(KafkaFailed, match=r"127.0.0.1:1: no broker has answered for 0.3 s .*FRAUD_KAFKA_BOOTSTRAP"):
        kafka.Kafka("127.0.0.1:1", "transactions", "job", "dead").source().list_parts()


def test_a_position_beyond_the_end_is_refused(log: KafkaLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_source, "SETTLE", 0.2)
    client = consumer(log.broker.bootstrap, log.transport().group)
    commit(client, [TopicPartition(log.name, 0, 900)])
    client.close()
    with pytest.raises(KafkaFailed, match=r"stands at 900, but the partition ends at 0: .*FRAUD_CONSUMER_GROUP"):
        log.transport().source().build_part("records", f"{log.name}-0", None)


def test_nothing_can_be_acknowledged_that_was_never_given(log: KafkaLog) -> None:
    with pytest.raises(KafkaFailed, match="has no position"):
        log.transport().acknowledger().acknowledge(f"{log.name}-0", ["0"])


def test_a_commit_that_fails_is_raised_at_the_next_one(log: KafkaLog) -> None:
    client = consumer(log.broker.bootstrap, unique("group"))
    committer = Committer(client, "a group")
    committer.reach(TopicPartition("no-such-topic", 0, 5))
    with pytest.raises(KafkaFailed, match="Commit of a group: UNKNOWN_TOPIC_OR_PART"):
        committer.close()
    with pytest.raises(KafkaFailed, match="Commit of a group"):
        committer.reach(TopicPartition(log.name, 0, 0))


def test_only_a_broker_that_may_come_back_is_waited_for() -> None:
    assert kafka_client.passing(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert not kafka_client.passing(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert not kafka_client.passing(KafkaError(KafkaError._AUTO_OFFSET_RESET))


def test_the_settings_choose_the_transport() -> None:
    chosen: Any = transport(Settings(transport="kafka", kafka_bootstrap="broker:9"), "velocity")
    assert chosen == kafka.Kafka("broker:9", "transactions", "velocity", "transactions.dead")
    assert isinstance(transport(Settings(), "velocity"), RedisStreams)
