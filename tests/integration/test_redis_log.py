"""The decision log in a real Redis: a decision and the claim to its payment stand or fall together, once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from bentos.decisions import Conflicts, Entry, Mark, Outcome, RedisDecisionLog
from bentos.errors import Unavailable
from feature_repo.settings import Settings
from monitoring.decision_log import claim_key, read_decisions
from monitoring.supervision import free_ports
from tests.integration.entries import entry

RECORDED, CONFLICT = Mark.RECORDED, Mark.CONFLICT


@pytest.fixture
def current(redis_server: str, tmp_path: Path) -> Settings:
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    # A busy machine may be slow; the tests that are about time set their own limit.
    return Settings(home=tmp_path, redis_url=redis_server, log_timeout=10)


def run(current: Settings, work: Callable[[RedisDecisionLog], Coroutine[Any, Any, Any]]) -> Any:
    async def opened() -> Any:
        log = RedisDecisionLog(current)
        try:
            return await work(log)
        finally:
            log.close()

    return asyncio.run(opened())


def append(current: Settings, *entries: Entry) -> list[Outcome]:
    return run(current, lambda log: log.append(entries))


def on_record(current: Settings) -> list[str]:
    return [one.transaction_id for one in read_decisions(current.redis_url, current.decisions_stream)]


def test_decisions_go_on_record_in_their_order_bit_for_bit(current: Settings):
    entries = [entry(f"t{n}", vector=bytes(range(4 * n, 4 * n + 8))) for n in range(5)]
    entries[2] = entries[2]._replace(trace=b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert append(current, *entries) == [RECORDED] * 5
    read = list(read_decisions(current.redis_url, current.decisions_stream))
    assert [(r.request, r.vector.tobytes(), r.answer, r.feature_service.encode(), r.trace) for r in read] == [
        tuple(one[3:]) for one in entries
    ]


def test_a_payment_sent_again_gets_its_first_answer_and_no_second_entry(current: Settings):
    first = entry("t1")
    assert append(current, first) == [RECORDED]
    assert append(current, entry("t1", answer=b"another"), entry("t2")) == [first.answer, RECORDED]
    assert append(current, first) == [first.answer]
    assert on_record(current) == ["t1", "t2"]


def test_another_payment_under_the_same_identifier_is_a_conflict_and_not_on_record(current: Settings):
    assert append(current, entry("t1")) == [RECORDED]
    assert append(current, entry("t1", digest=b"another payment!")) == [CONFLICT]
    assert on_record(current) == ["t1"]


def test_twice_in_one_batch_is_once_on_record(current: Settings):
    first = entry("t1")
    batch = [first, entry("t1", answer=b"later"), entry("t1", digest=b"another payment!"), entry("t2")]
    assert append(current, *batch) == [RECORDED, first.answer, CONFLICT, RECORDED]
    assert on_record(current) == ["t1", "t2"]


def test_one_payment_at_many_workers_at_once_is_decided_once(current: Settings):
    async def race() -> list[Outcome]:
        logs = [RedisDecisionLog(current) for _ in range(8)]
        try:
            batches = [[entry("t1", answer=b'{"worker":%d}' % n)] for n in range(8)]
            found = await asyncio.gather(*(log.append(batch) for log, batch in zip(logs, batches, strict=True)))
            return [outcome for batch in found for outcome in batch]
        finally:
            for log in logs:
                log.close()

    outcomes = asyncio.run(race())
    assert outcomes.count(RECORDED) == 1
    winner = b'{"worker":%d}' % outcomes.index(RECORDED)
    assert [one for one in outcomes if one is not RECORDED] == [winner] * 7


def test_identifiers_and_content_of_any_bytes_are_kept(current: Settings):
    odd = entry("zähler }{: \u2028 '\"", request=b"\r\n$5\r\n\x00\xff", vector=b"\r\n*1\r\n", answer=b"\x00" * 10_000)
    assert append(current, odd) == [RECORDED]
    assert append(current, odd) == [odd.answer]


def test_a_claim_ends_when_its_payment_is_too_old_to_be_sent_again(current: Settings):
    now = time.time_ns() // 1_000_000
    append(
        current, entry("days", expires_ms=now + 86_400_000), entry("ever", expires_ms=0), entry("gone", expires_ms=1)
    )
    with redis.Redis.from_url(current.redis_url) as client:
        key = claim_key(current.decisions_stream, "days")
        assert 86_000_000 < client.pttl(key) <= 86_400_000
        assert client.pttl(claim_key(current.decisions_stream, "ever")) == -1
        assert not client.exists(claim_key(current.decisions_stream, "gone"))
    assert on_record(current) == ["days", "ever", "gone"], "the entry outlives its claim"


def test_a_script_that_redis_forgot_is_sent_again(current: Settings):
    async def work(log: RedisDecisionLog) -> list[Outcome]:
        found = await log.append([entry("t1")])
        with redis.Redis.from_url(current.redis_url) as client:
            client.script_flush()
        return found + await log.append([entry("t2")]) + await log.append([entry("t1"), entry("t3")])

    assert run(current, work) == [RECORDED, RECORDED, entry("t1").answer, RECORDED]
    assert on_record(current) == ["t1", "t2", "t3"]


def test_a_repeat_whose_entry_was_trimmed_away_is_told_apart_and_not_decided_again(current: Settings):
    append(current, entry("t1"))
    with redis.Redis.from_url(current.redis_url) as client:
        client.xtrim(current.decisions_stream, maxlen=0)
    assert append(current, entry("t1")) == [b""]
    assert on_record(current) == []


def test_a_decision_is_found_by_its_payment(current: Settings):
    made = entry("t1", vector=b"\x00\x00\x80\x3f")

    async def work(log: RedisDecisionLog) -> None:
        await log.append([entry("t0"), made])
        found = await log.find("t1")
        assert found is not None
        assert (found.transaction_id, found.request, found.answer) == ("t1", made.request, made.answer)
        assert found.vector.tolist() == [1.0]
        assert await log.find("never") is None

    run(current, work)


def test_a_log_that_does_not_answer_in_time_is_unavailable_and_back_later(current: Settings):
    hasty = current.model_copy(update={"log_timeout": 0.05})

    async def work(log: RedisDecisionLog) -> None:
        with redis.Redis.from_url(current.redis_url) as client:
            client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
            try:
                with pytest.raises(Unavailable, match="decision log does not answer"):
                    await log.append([entry("t1")])
            finally:
                client.execute_command("CLIENT", "UNPAUSE")
        async with asyncio.timeout(10):
            while not await log.alive():
                await asyncio.sleep(0.01)
        # Whether the late one was recorded is known only now; either way it is there once.
        assert (await log.append([entry("t1")]))[0] in (RECORDED, entry("t1").answer)

    run(hasty, work)
    assert on_record(current) == ["t1"]


def test_without_a_server_everything_is_unavailable(current: Settings):
    nowhere = current.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_ports(1)[0]}"})

    async def work(log: RedisDecisionLog) -> None:
        calls: Sequence[Callable[[], Any]] = (lambda: log.append([entry("t1")]), lambda: log.find("t1"))
        for call in calls:
            with pytest.raises(Unavailable, match="decision log"):
                await call()
        assert not await log.alive()

    run(nowhere, work)


def test_a_redis_that_refuses_to_write_is_unavailable_and_nothing_is_half_on_record(current: Settings):
    with redis.Redis.from_url(current.redis_url) as client:
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(Unavailable):
                append(current, entry("t1"), entry("t2"))
        finally:
            client.config_set("maxmemory", 0)
    assert on_record(current) == []
    assert append(current, entry("t1"), entry("t2")) == [RECORDED] * 2


def test_a_decision_that_came_too_late_is_put_aside_whole(current: Settings):
    made = entry("t1")
    Conflicts(current)(made)
    (kept,) = read_decisions(current.redis_url, f"{current.decisions_stream}.conflicts")
    assert (kept.transaction_id, kept.request, kept.answer) == ("t1", made.request, made.answer)
    assert on_record(current) == []
