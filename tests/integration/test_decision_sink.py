"""The sink: whatever happens to it, each decision of the log is in the table once, and the log keeps what is needed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from confluent_kafka import TopicPartition
from prometheus_client import REGISTRY

from feature_repo.settings import Settings
from monitoring.decision_chain import kept_anchor, verify
from monitoring.decision_log import read_decisions
from monitoring.decision_message import Message, key, pack
from monitoring.decision_table import connect, find
from monitoring.processes import Platform
from monitoring.supervision import free_ports
from stream_jobs import entries
from stream_jobs.decision_sources import RedisDecisions
from stream_jobs.decisions import Sink
from stream_jobs.kafka_decisions import KafkaDecisions
from stream_jobs.transports.kafka_client import consumer
from stream_jobs.transports.kafka_producer import connect as connect_kafka
from stream_jobs.transports.kafka_producer import deliver
from tests.integration.decisions import log, made, values
from tests.integration.logs import unique
from tests.kafka_broker import Broker
from tests.postgres_server import Postgres


@pytest.fixture
def current(redis_server: str, postgres_server: Postgres) -> Settings:
    return Settings(redis_url=redis_server, postgres_url=postgres_server.schema(), decisions_stream=unique("decisions"))


@pytest.fixture
def sink(current: Settings) -> Iterator[Sink]:
    made_here = opened(current)
    yield made_here
    made_here.close()


def opened(current: Settings) -> Sink:
    return Sink(current, RedisDecisions(current))


def carry(sink: Sink) -> int:
    """Carry all there is; how many decisions that were."""
    total = 0
    while count := sink.step(0.01):
        total += count
    return total


def table(current: Settings) -> list[str]:
    """The payments in the table, once its chain is verified up to the sink's anchor."""
    with connect(current.postgres_url) as connection:
        held, broken = verify(connection, kept_anchor(current))
        rows = connection.execute("SELECT transaction_id FROM decisions ORDER BY seq").fetchall()
    assert (held, broken) == (len(rows), None)
    return [identifier for (identifier,) in rows]


def awaited(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def test_decisions_are_carried_in_order_as_they_were_logged(current: Settings, sink: Sink) -> None:
    entry = log(current, [made(number) for number in range(50)])
    assert carry(sink) == 50
    assert table(current) == [f"t-{number}" for number in range(50)]
    with connect(current.postgres_url) as connection:
        found = find(connection, ["t-7"])["t-7"]
    assert (found.entry, found.answer, found.request) == (entry[7], made(7).answer, made(7).request)
    assert sink._source.lag() == 0


def test_a_batch_that_was_not_acknowledged_comes_again_and_changes_nothing(
    current: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(current, [made(number) for number in range(30)])
    dying = opened(current)
    monkeypatch.setattr(dying._source, "done", lambda anchor: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dying.step(0.01)
    dying.close()
    log(current, [made(number) for number in range(30, 40)])
    heir = opened(current)
    assert heir._source.lag() == 40
    assert carry(heir) == 40
    assert heir._source.lag() == 0
    assert table(current) == [f"t-{number}" for number in range(40)]
    heir.close()


def test_a_batch_outlives_a_postgres_that_goes_away(current: Settings, sink: Sink) -> None:
    log(current, [made(0)])
    carry(sink)
    log(current, [made(1)])
    with connect(current.postgres_url) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [sink._connected().info.backend_pid])
    with pytest.raises(Exception, match=r"terminating|closed"):
        sink.step(0.01)
    sink.recover()
    assert carry(sink) == 1
    assert table(current) == ["t-0", "t-1"]


def test_decisions_wait_in_the_log_while_postgres_is_away(current: Settings) -> None:
    [nobody] = free_ports(1)
    log(current, [made(0), made(1)])
    waiting = opened(current.model_copy(update={"postgres_url": f"postgresql://tollgate@127.0.0.1:{nobody}/tollgate"}))
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError):
            waiting.step(0.01)
        waiting.recover()
    assert waiting._source.lag() == 2
    waiting.close()
    heir = opened(current)
    assert (carry(heir), heir._source.lag()) == (2, 0)
    heir.close()
    assert table(current) == ["t-0", "t-1"]


def test_a_log_that_lost_its_group_is_read_again_from_the_front(current: Settings, sink: Sink) -> None:
    log(current, [made(0)])
    carry(sink)
    with redis.Redis.from_url(current.redis_url) as client:
        client.xgroup_destroy(current.decisions_stream, current.decisions_group)
    with pytest.raises(redis.ResponseError, match="NOGROUP"):
        sink.step(0.01)
    sink.recover()
    assert carry(sink) == 1
    assert table(current) == ["t-0"]


def test_the_log_is_trimmed_only_behind_the_table_and_the_window(current: Settings, sink: Sink) -> None:
    with redis.Redis.from_url(current.redis_url) as client:
        assert current.max_age is not None
        old = int((datetime.now(UTC) - current.max_age - timedelta(hours=1)).timestamp() * 1_000)
        fields = [
            dict(zip((b"request", b"vector", b"answer", b"service"), values(made(n)), strict=True)) for n in range(900)
        ]
        for number in range(800):
            client.xadd(current.decisions_stream, fields[number], id=f"{old}-{number}")
        log(current, [made(800)])
        source: Any = sink._source
        assert sink.step(0.01) == 801
        later = datetime.now(UTC)
        for identifier in range(10):
            client.xadd(current.decisions_stream, fields[801 + identifier])
        source.tidy(later)
        left = [one.transaction_id for one in read_decisions(current.redis_url, current.decisions_stream)]
        assert len(left) <= 111  # whole nodes of the stream go, so some may stay
        assert left[-11:] == [f"t-{number}" for number in range(800, 811)]
        assert source.lag() == 10
        # Far in the future all is old, but ten are not carried.
        assert source.tidy(later + timedelta(days=400)) <= len(left) - 10
        left = [one.transaction_id for one in read_decisions(current.redis_url, current.decisions_stream)]
        assert left[-10:] == [f"t-{number}" for number in range(801, 811)]
        assert source.lag() == 10
    assert carry(sink) == 10
    assert len(table(current)) == 811


def test_nothing_is_trimmed_where_payments_of_any_age_are_taken(current: Settings) -> None:
    endless = opened(current.model_copy(update={"max_age": None}))
    log(current, [made(0)])
    carry(endless)
    assert endless._source.tidy(datetime.now(UTC) + timedelta(days=4_000)) == 0
    endless.close()


def test_what_became_of_the_decisions_is_counted(current: Settings, sink: Sink) -> None:
    def counted(outcome: str) -> float:
        return REGISTRY.get_sample_value("fraud_decisions_carried_total", {"outcome": outcome}) or 0.0

    before = [counted(outcome) for outcome in ("added", "repeated", "conflict")]
    log(current, [made(1), made(1), made(1, decision="review"), made(2)])
    carry(sink)
    after = [counted(outcome) for outcome in ("added", "repeated", "conflict")]
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 1, 1]


def test_what_the_journal_held_of_a_payment_decided_elsewhere_is_put_aside(current: Settings) -> None:
    journal = current.model_copy(update={"decisions_stream": f"{current.decisions_stream}.conflicts"})
    log(journal, [made(1, decision="review")])  # ahead of the decision that stands
    first = opened(current)
    carry(first)
    first.close()
    log(current, [made(1)])
    second = opened(current)
    carry(second)
    second.close()
    with connect(current.postgres_url) as connection:
        [aside] = connection.execute("SELECT transaction_id, answer FROM decision_conflicts").fetchall()
        assert find(connection, ["t-1"])["t-1"].answer == made(1).answer
    assert aside == ("t-1", made(1, decision="review").answer)


def test_no_kill_loses_a_decision_or_makes_two_of_one(current: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    total = 40_000
    with Platform(current) as platform:
        logged = 0
        for kill in range(4):
            log(current, [made(number) for number in range(logged, logged + total // 4)])
            logged += total // 4
            platform.start("decisions")
            running = platform.running["decisions"]
            awaited(lambda done=kill: carried(current) > done * total // 4 + 1_000)
            _, *programs = running.processes()
            for program in programs:
                program.kill()
            awaited(lambda at=running: not at.alive())
            platform.stop("decisions")
        platform.start("decisions")
        awaited(lambda: carried(current) == total)
        awaited(lambda: opened(current)._source.lag() == 0)
    assert sorted(table(current), key=lambda name: int(name[2:])) == [f"t-{number}" for number in range(total)]


def carried(current: Settings) -> int:
    with connect(current.postgres_url) as connection:
        if connection.execute("SELECT to_regclass('decisions')").fetchone() == (None,):
            return 0
        found = connection.execute("SELECT coalesce(max(seq), 0) FROM decisions").fetchone()
        return 0 if found is None else int(found[0])


@pytest.fixture
def over_kafka(current: Settings, kafka_broker: Broker) -> Settings:
    names = {"decisions_stream": unique("decisions"), "predictions_topic": unique("predictions")}
    for name in names.values():
        kafka_broker.topic(name, 3)
    return current.model_copy(
        update=names | {"kafka_bootstrap": kafka_broker.bootstrap, "transport": "kafka", "decision_log": "kafka"}
    )


def send(current: Settings, numbers: range) -> None:
    """Append decisions to the topic as the service does."""
    decisions = [made(number) for number in numbers]
    bodies = [pack(Message(one.request, one.vector.tobytes(), one.answer, one.feature_service)) for one in decisions]
    keys = [key(one.request) for one in decisions]
    deliver(
        connect_kafka(current.kafka_bootstrap),
        current.decisions_stream,
        zip(keys, bodies, [[]] * len(keys), strict=True),
    )


def told(current: Settings, count: int) -> list[dict[str, Any]]:
    """The predictions, by card in their order, once there are so many."""
    client = consumer(current.kafka_bootstrap, "test")
    client.assign([TopicPartition(current.predictions_topic, number, 0) for number in range(3)])
    found: list[Any] = []
    try:
        awaited(lambda: found.extend(client.consume(1_000, 0.1)) or len(found) >= count)
    finally:
        client.close()
    for message in found:
        assert message.key().decode() == json.loads(message.value())["card_id"]
    return [json.loads(message.value()) for message in found]


def test_over_kafka_decisions_are_told_before_they_leave_the_log(
    over_kafka: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(over_kafka, range(20))
    sink = Sink(over_kafka, KafkaDecisions(over_kafka))
    monkeypatch.setattr(sink._source, "done", lambda anchor: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        awaited(lambda: sink.step(0.2))
    sink.close()
    heir = Sink(over_kafka, KafkaDecisions(over_kafka))
    assert heir._source.lag() == 20
    awaited(lambda: heir.step(0.2) or len(table_of(over_kafka)) == 20)
    awaited(lambda: heir.step(0.2) == 0 and heir._source.lag() == 0)
    assert sorted(table_of(over_kafka)) == sorted(f"t-{number}" for number in range(20))
    messages = told(over_kafka, 20)
    assert {one["transaction_id"] for one in messages} == {f"t-{number}" for number in range(20)}
    [seventh, *_] = [one for one in messages if one["transaction_id"] == "t-7"]
    assert seventh["timestamp"] == json.loads(made(7).answer)["timestamp"]
    assert (seventh["merchant_id"], seventh["amount"]) == ("merchant-2", 17.5)
    assert seventh["paid_at"] == "2026-03-04T12:00:07+00:00"
    heir.close()


def test_the_part_makes_the_topics_and_is_ready_once_it_reads(over_kafka: Settings, tmp_path: Path) -> None:
    names = {name: unique(name) for name in ("transactions_stream", "feature_updates_stream", "dead_letter_stream")}
    current = Settings(
        **over_kafka.model_dump(exclude={*names, "home", "kafka_partitions"}),
        **names,
        home=tmp_path,
        kafka_partitions=3,
    )
    send(current, range(5))
    with Platform(current) as platform:
        platform.start("decisions")
        awaited(lambda: carried(current) == 5)
    assert len(table_of(current)) == 5


def table_of(current: Settings) -> list[str]:
    with connect(current.postgres_url) as connection:
        held, broken = verify(connection)
        rows = connection.execute("SELECT transaction_id FROM decisions").fetchall()
    assert (held, broken) == (len(rows), None)
    return [identifier for (identifier,) in rows]


def test_a_batch_is_no_larger_than_the_script_takes() -> None:
    assert entries.BATCH <= 7_000  # Lua's unpack
