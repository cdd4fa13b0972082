"""The decision log in Kafka: what was answered is in the topic, whatever died when, and a payment has one answer."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from hashlib import blake2b
from typing import Any

import pytest
import redis

from bentos.decisions import Entry, Mark
from bentos.errors import Unavailable
from bentos.kafka_log import KafkaDecisionLog
from feature_repo.settings import ROOT, Settings
from monitoring.decision_claim import KafkaClaim, read_claim
from monitoring.decision_log import claim_key
from monitoring.decision_table import connect, find
from monitoring.parts import environment
from monitoring.supervision import free_ports
from stream_jobs.decisions import Sink
from stream_jobs.kafka_decisions import KafkaDecisions
from tests.integration.decisions import log as log_in_redis
from tests.integration.decisions import made
from tests.integration.logs import unique
from tests.integration.test_decision_sink import awaited, table_of
from tests.kafka_broker import Broker, FromJars
from tests.postgres_server import Postgres

PARTITIONS = 3


@pytest.fixture
def current(redis_server: str, postgres_server: Postgres, kafka_broker: Broker) -> Settings:
    stream = unique("decisions")
    kafka_broker.topic(stream, PARTITIONS)
    return Settings(
        redis_url=redis_server,
        postgres_url=postgres_server.schema(),
        decisions_stream=stream,
        decision_log="kafka",
        kafka_bootstrap=kafka_broker.bootstrap,
        log_timeout=5.0,
    )


def entry(number: int, **fields: Any) -> Entry:
    one = made(number, **fields)
    digest = blake2b(one.request, digest_size=16).digest()
    expires = int(time.time() * 1_000) + 600_000
    service = one.feature_service.encode()
    return Entry(one.transaction_id, digest, expires, one.request, one.vector.tobytes(), one.answer, service)


def using(current: Settings, work: Callable[[KafkaDecisionLog], Coroutine[Any, Any, Any]]) -> Any:
    """What `work` gives with a log of its own, as in a process of its own."""

    async def run() -> Any:
        log = KafkaDecisionLog(current)
        try:
            found = await work(log)
            await asyncio.gather(*log._confirming)
            return found
        finally:
            log.close()

    return asyncio.run(run())


def append(current: Settings, *entries: Entry) -> Any:
    return using(current, lambda log: log.append(entries))


def claim_of(current: Settings, number: int) -> KafkaClaim:
    with redis.Redis.from_url(current.redis_url) as client:
        found: Any = client.get(claim_key(current.decisions_stream, f"t-{number}"))
    said = read_claim(found)
    assert isinstance(said, KafkaClaim)
    return said


def messages(current: Settings) -> int:
    source = KafkaDecisions(current.model_copy(update={"decisions_group": unique("look")}))
    try:
        return source.lag()
    finally:
        source.close()


def carried(current: Settings, count: int) -> list[str]:
    """The payments in the table once the sink has carried so many."""
    sink = Sink(current, KafkaDecisions(current))
    try:
        awaited(lambda: sink.step(0.2) or len(table_of(current)) >= count)
        awaited(lambda: sink.step(0.2) == 0 and sink._source.lag() == 0)
    finally:
        sink.close()
    return table_of(current)


def test_a_decision_is_recorded_once_and_told_again(current: Settings) -> None:
    batch = [entry(number) for number in range(50)]
    assert append(current, *batch) == [Mark.RECORDED] * 50
    later = entry(3, latency_ms=99.0)  # decided again, by another process
    other = entry(4, transaction_id="t-3")
    assert append(current, later, other, entry(50)) == [made(3).answer, Mark.CONFLICT, Mark.RECORDED]
    assert messages(current) == 51
    assert claim_of(current, 3).confirmed
    assert len(carried(current, 51)) == 51
    with connect(current.postgres_url) as table:
        assert find(table, ["t-3"])["t-3"].vector.tobytes() == made(3).vector.tobytes()


def test_the_same_payment_twice_in_a_batch_is_one_decision(current: Settings) -> None:
    outcomes = append(current, entry(1), entry(1, latency_ms=7.0), entry(2, transaction_id="t-1"))
    assert outcomes == [Mark.RECORDED, made(1).answer, Mark.CONFLICT]
    assert messages(current) == 1


def test_a_service_that_died_between_claim_and_topic_leaves_what_the_next_one_sends(current: Settings) -> None:
    async def die(log: KafkaDecisionLog) -> None:
        async def nothing(unsent: Any) -> None: ...

        log._send = nothing  # type: ignore[method-assign]
        await log.append([entry(1)])

    using(current, die)
    assert messages(current) == 0
    assert append(current, entry(1, latency_ms=42.0)) == [made(1).answer]
    assert carried(current, 1) == ["t-1"]


def test_a_service_that_died_before_it_marked_the_claim_leaves_one_row(current: Settings) -> None:
    async def die(log: KafkaDecisionLog) -> None:
        async def nothing(sent: Any) -> None: ...

        log._confirm = nothing  # type: ignore[method-assign]
        assert await log.append([entry(1)]) == [Mark.RECORDED]

    using(current, die)
    assert not claim_of(current, 1).confirmed
    assert append(current, entry(1, latency_ms=42.0)) == [made(1).answer]
    assert claim_of(current, 1).confirmed
    assert messages(current) == 2
    assert carried(current, 1) == ["t-1"]


def test_a_claim_expires_with_its_payment_also_once_it_is_marked(current: Settings) -> None:
    append(current, entry(1), entry(2)._replace(expires_ms=0))
    with redis.Redis.from_url(current.redis_url) as client:
        left = [client.ttl(claim_key(current.decisions_stream, f"t-{number}")) for number in (1, 2)]
    assert 500 < left[0] <= 600
    assert left[1] == -1
    assert claim_of(current, 1).confirmed


def test_a_decision_is_found_whichever_log_took_it(current: Settings) -> None:
    log_in_redis(current, [made(7)])
    append(current, entry(1))
    found = using(current, lambda log: asyncio.gather(*(log.find(f"t-{number}") for number in (1, 7, 9))))
    assert [one and one.answer for one in found] == [made(1).answer, made(7).answer, None]
    again = entry(7)._replace(digest=bytes(16))
    assert append(current, again) == [made(7).answer]


def test_without_a_broker_the_log_is_soon_unavailable(current: Settings) -> None:
    [nobody] = free_ports(1)
    away = current.model_copy(update={"kafka_bootstrap": f"127.0.0.1:{nobody}", "log_timeout": 0.25})

    async def ask(log: KafkaDecisionLog) -> tuple[float, bool]:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="decision log does not answer"):
            await log.append([entry(1)])
        return time.monotonic() - began, await log.alive()

    took, alive = using(away, ask)
    assert (took < 1.0, alive) == (True, False)
    # What the journal then carries over is the same entry: it is recorded, and its own answer stands.
    assert append(current, entry(1)) == [made(1).answer]
    assert carried(current, 1) == ["t-1"]


def test_without_redis_the_log_is_unavailable(current: Settings) -> None:
    [nobody] = free_ports(1)
    with pytest.raises(Unavailable):
        append(current.model_copy(update={"redis_url": f"redis://127.0.0.1:{nobody}/0"}), entry(1))


def test_a_broker_that_comes_back_takes_decisions_again(current: Settings, kafka_broker: Broker) -> None:
    if not isinstance(kafka_broker, FromJars):
        pytest.skip(f"Kafka is {kafka_broker.described}")

    async def live_through_it(log: KafkaDecisionLog) -> None:
        assert await log.append([entry(1)]) == [Mark.RECORDED]
        kafka_broker.kill()
        try:
            log._sender._timeout = 0.5
            with pytest.raises(Unavailable):
                await log.append([entry(2)])
        finally:
            kafka_broker.start()
        log._sender._timeout = 5.0
        deadline = time.monotonic() + 60
        while not await log.alive():
            assert time.monotonic() < deadline
        assert await log.append([entry(2), entry(3)]) == [made(2).answer, Mark.RECORDED]

    using(current, live_through_it)
    assert sorted(carried(current, 3)) == ["t-1", "t-2", "t-3"]


APPENDING = """
import asyncio, sys
from feature_repo.settings import settings
from bentos.kafka_log import KafkaDecisionLog
from tests.integration.test_kafka_log import entry

async def run():
    log = KafkaDecisionLog(settings())
    number = int(sys.argv[1])
    while True:
        batch = [entry(number + k) for k in range(20)]
        await log.append(batch)
        for one in batch:
            print(one.transaction_id, flush=True)
        number += 20

asyncio.run(run())
"""


def test_no_kill_loses_a_decision_that_was_answered(current: Settings) -> None:
    answered: list[str] = []
    for kill in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", APPENDING, str(kill * 1_000_000)],
            cwd=ROOT,
            env=os.environ | environment(current),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        answered += [process.stdout.readline().strip() for _ in range(1_500)]
        process.kill()
        answered += process.stdout.read().split("\n")[:-1]
        process.wait()
        process.stdout.close()
    found = set(carried(current, len(answered)))
    assert len(answered) >= 4_500
    assert set(answered) <= found
    with connect(current.postgres_url) as table:
        [(conflicts,)] = table.execute("SELECT count(*) FROM decision_conflicts").fetchall()
        logged = find(table, answered[-1:])[answered[-1]]
    assert conflicts == 0
    assert json.loads(logged.answer)["transaction_id"] == answered[-1]
