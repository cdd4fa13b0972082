"""The log with its stand-in over a Redis that is killed and comes back: nothing is lost, nothing is there twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client import REGISTRY

from bentos.decisions import Conflicts, DecisionLog, Entry, Mark, Outcome, RedisDecisionLog
from bentos.errors import Unavailable
from bentos.journal import Journal
from bentos.journaled import PAGE, JournaledLog
from feature_repo.settings import Settings
from monitoring.decision_log import LoggedDecision, read_decisions
from monitoring.processes import Platform, at_free_ports
from tests.integration.entries import entry

RECORDED, CONFLICT = Mark.RECORDED, Mark.CONFLICT
PATIENT = 20.0


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(at_free_ports(Settings(home=tmp_path_factory.mktemp("log"), log_timeout=0.5))) as running:
        running.start("redis")
        yield running


@pytest.fixture
def current(platform: Platform, tmp_path: Path) -> Settings:
    with redis.Redis.from_url(platform.settings.redis_url) as client:
        client.flushall()
    return platform.settings.model_copy(update={"home": tmp_path})


def kill(platform: Platform) -> None:
    """Redis ends without a word; its guard with it."""
    with redis.Redis.from_url(platform.settings.redis_url) as client:
        os.kill(client.info("server")["process_id"], signal.SIGKILL)
    platform.stop("redis")


def journaled(current: Settings, log: DecisionLog | None = None) -> JournaledLog:
    journal = Journal(current.home / "journal.db")
    return JournaledLog(log or RedisDecisionLog(current), journal, Conflicts(current))


def run(log: JournaledLog, work: Callable[[JournaledLog], Awaitable[Any]]) -> Any:
    async def opened() -> Any:
        try:
            return await work(log)
        finally:
            log.close()

    return asyncio.run(opened())


def on_record(current: Settings) -> list[str]:
    return [one.transaction_id for one in read_decisions(current.redis_url, current.decisions_stream)]


def in_journal(current: Settings) -> list[str]:
    journal = Journal(current.home / "journal.db")
    found = [one.transaction_id for _, one in journal.oldest(10_000)]
    journal.close()
    return found


def sample(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0.0


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENT):
        while not condition():
            await asyncio.sleep(0.01)


def drained(current: Settings) -> Callable[[], bool]:
    return lambda: sample("fraud_journal_in_use") == 0 and not in_journal(current)


def test_while_the_log_answers_the_journal_is_not_touched(current: Settings):
    assert run(journaled(current), lambda log: log.append([entry("t1")])) == [RECORDED]
    assert on_record(current) == ["t1"]
    assert not (current.home / "journal.db").exists()


def test_redis_killed_between_decisions_and_back_loses_nothing_and_repeats_nothing(
    platform: Platform, current: Settings
):
    journaled_before = sample("fraud_decisions_journaled_total")

    async def work(log: JournaledLog) -> None:
        assert await log.append([entry("before")]) == [RECORDED]
        kill(platform)
        assert await log.append([entry("a"), entry("b")]) == [RECORDED] * 2
        assert await log.alive()
        assert sample("fraud_journal_in_use") == 1
        for n in range(3):
            assert await log.append([entry(f"c{n}")]) == [RECORDED]
        platform.start("redis")
        await until(drained(current))
        assert await log.append([entry("after")]) == [RECORDED]

    run(journaled(current), work)
    assert on_record(current) == ["before", "a", "b", "c0", "c1", "c2", "after"]
    assert sample("fraud_decisions_journaled_total") == journaled_before + 5


def test_a_payment_decided_in_the_journal_is_known_while_it_is_there_and_afterwards(
    platform: Platform, current: Settings
):
    first, later = entry("t1"), entry("t1", answer=b"later")
    other = entry("t1", digest=b"another payment!")

    async def work(log: JournaledLog) -> None:
        kill(platform)
        assert await log.append([first]) == [RECORDED]
        assert await log.append([later, other]) == [first.answer, CONFLICT]
        found = await log.find("t1")
        assert found is not None
        assert found.answer == first.answer
        with pytest.raises(Unavailable):
            await log.find("not in the journal")
        platform.start("redis")
        await until(drained(current))
        assert await log.append([later, other]) == [first.answer, CONFLICT]
        found = await log.find("t1")
        assert found is not None
        assert found.answer == first.answer
        assert await log.find("not in the journal") is None

    run(journaled(current), work)
    assert on_record(current) == ["t1"]


def test_what_an_earlier_process_left_in_the_journal_is_carried_over_at_the_start(current: Settings):
    left = [entry(f"t{n}") for n in range(2 * PAGE + 7)]
    journal = Journal(current.home / "journal.db")
    journal.append(left)
    journal.close()

    async def work(log: JournaledLog) -> None:
        await log.start()
        assert await log.append([entry("t1", answer=b"again"), entry("new")]) == [entry("t1").answer, RECORDED]
        await until(drained(current))

    run(journaled(current), work)
    assert on_record(current) == [*(one.transaction_id for one in left), "new"]


def test_what_was_carried_over_before_a_crash_is_not_there_twice(current: Settings):
    both = [entry("t1"), entry("t2")]
    conflicts_before = sample("fraud_decision_conflicts_total")

    async def work(log: JournaledLog) -> None:
        await log.start()
        await until(drained(current))

    assert asyncio.run(recorded(current, both)) == [RECORDED] * 2
    journal = Journal(current.home / "journal.db")
    journal.append([*both, entry("t3")])
    journal.close()
    run(journaled(current), work)
    assert on_record(current) == ["t1", "t2", "t3"]
    assert sample("fraud_decision_conflicts_total") == conflicts_before


async def recorded(current: Settings, entries: Sequence[Entry]) -> list[Outcome]:
    log = RedisDecisionLog(current)
    try:
        return await log.append(entries)
    finally:
        log.close()


def test_a_payment_decided_otherwise_while_the_log_was_away_is_put_aside_and_told(
    platform: Platform, current: Settings, caplog: pytest.LogCaptureFixture
):
    conflicts_before = sample("fraud_decision_conflicts_total")

    async def work(log: JournaledLog) -> None:
        await log.append([entry("twice"), entry("other")])
        kill(platform)
        # The log cannot be asked, so both are decided a second time: that much is the price of an answer.
        again = [entry("twice", answer=b"second"), entry("other", digest=b"another payment!"), entry("new")]
        assert await log.append(again) == [RECORDED] * 3
        platform.start("redis")
        await until(drained(current))

    run(journaled(current), work)
    assert on_record(current) == ["twice", "other", "new"]
    aside = list(read_decisions(current.redis_url, f"{current.decisions_stream}.conflicts"))
    assert [one.answer for one in aside] == [b"second", entry("other").answer]
    assert sample("fraud_decision_conflicts_total") == conflicts_before + 2
    assert "'twice' was decided twice" in caplog.text


def test_redis_killed_again_and_again_under_decisions_loses_none(platform: Platform, current: Settings):
    answered: list[str] = []

    async def decide(log: JournaledLog, lane: int, ended: asyncio.Event) -> None:
        n = 0
        while not ended.is_set():
            batch = [entry(f"{lane}-{n}-{m}") for m in range(3)]
            assert await log.append(batch) == [RECORDED] * 3
            answered.extend(one.transaction_id for one in batch)
            n += 1
            await asyncio.sleep(0)

    async def work(log: JournaledLog) -> None:
        ended = asyncio.Event()
        lanes = [asyncio.create_task(decide(log, lane, ended)) for lane in range(3)]
        for _ in range(3):
            reached = len(answered) + 60
            await until(lambda reached=reached: len(answered) > reached)
            await asyncio.to_thread(kill, platform)
            reached = len(answered) + 60
            await until(lambda reached=reached: len(answered) > reached)
            await asyncio.to_thread(platform.start, "redis")
            await until(lambda: sample("fraud_journal_in_use") == 0)
        ended.set()
        await asyncio.gather(*lanes)
        await until(drained(current))

    run(journaled(current), work)
    kept = on_record(current)
    assert len(kept) == len(set(kept))
    assert set(kept) == set(answered)


def test_where_neither_takes_a_decision_it_is_refused(platform: Platform, current: Settings):
    (current.home / "journal.db").mkdir()

    async def work(log: JournaledLog) -> None:
        kill(platform)
        with pytest.raises(Unavailable, match="decision log"):
            await log.append([entry("t1")])
        (current.home / "journal.db").rmdir()
        assert await log.append([entry("t1")]) == [RECORDED]
        platform.start("redis")
        await until(drained(current))

    run(journaled(current), work)
    assert on_record(current) == ["t1"]


class Held:
    """A log that is away, and that answers when it is asked only once `let_go` is set."""

    def __init__(self) -> None:
        self.away, self.asked, self.let_go = True, asyncio.Event(), asyncio.Event()
        self.kept: list[str] = []

    async def append(self, entries: Sequence[Entry]) -> list[Outcome]:
        if self.away:
            raise Unavailable("decision_log", ConnectionError())
        self.kept += [one.transaction_id for one in entries]
        return [RECORDED] * len(entries)

    async def find(self, transaction_id: str) -> LoggedDecision | None:
        return None

    async def alive(self) -> bool:
        self.asked.set()
        await self.let_go.wait()
        return not self.away

    def close(self) -> None: ...


def test_a_decision_that_joins_the_journal_in_its_last_moment_is_carried_over_too(tmp_path: Path):
    current = Settings(home=tmp_path)

    async def work() -> None:
        server = Held()
        log = journaled(current, server)
        await log.append([entry("t1")])
        server.away = False
        await asyncio.wait_for(server.asked.wait(), PATIENT)
        await log.append([entry("t2")])
        server.let_go.set()
        await until(lambda: sample("fraud_journal_in_use") == 0)
        assert in_journal(current) == []
        assert server.kept == ["t1", "t2"]
        log.close()

    asyncio.run(work())
