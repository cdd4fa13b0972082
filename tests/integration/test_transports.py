"""What every transport promises, on real servers: nothing is lost, nothing comes back that was acknowledged."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from feature_repo.settings import ROOT, Settings
from monitoring.processes import Platform, at_free_ports
from stream_jobs.transports.base import Record
from tests.integration.logs import FileLog, KafkaLog, Log, RedisLog, reading

INSTANT = 1_700_000_000_123_456

POISON = [b"\xff\xfe\x00", b"{", b"null", b"[" * 50_000, b'{"amount": NaN}', b"\xf0\x9f\x92\xb3", b"x" * 900_000]


@pytest.fixture(params=["redis", "kafka", "files"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    if request.param == "redis":
        return RedisLog(request.getfixturevalue("redis_server"))
    if request.param == "kafka":
        return KafkaLog(request.getfixturevalue("kafka_broker"))
    return FileLog(tmp_path / "events.jsonl")


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


def bodies(records: list[Record]) -> list[bytes]:
    return [record.body for record in records]


def acknowledge(log: Log, records: list[Record]) -> None:
    """Acknowledge with an acknowledger of its own, as a job in another thread or process would."""
    by_partition: defaultdict[str, list[str]] = defaultdict(list)
    for record in records:
        by_partition[record.partition].append(record.id)
    with closing(log.transport().acknowledger()) as acknowledger:
        for partition, ids in by_partition.items():
            acknowledger.acknowledge(partition, ids)


def test_every_record_comes_once_and_in_order(log: Log) -> None:
    sent = numbered(5_000)
    log.publish(sent)
    with reading(log.transport()) as run:
        records = run.take(5_000)
        assert bodies(records) == sent
        assert len({(record.partition, record.id) for record in records}) == 5_000
        assert run.rest() == []


def test_a_crash_brings_back_what_was_not_acknowledged_and_nothing_else(log: Log) -> None:
    log.publish(numbered(100))
    with reading(log.transport()) as run:
        given = run.take(100)
        acknowledge(log, given[:60])
    with reading(log.transport()) as run:
        again = run.take(40)
        assert again == given[60:]
        assert run.rest() == []
        acknowledge(log, again)
    with reading(log.transport()) as run:
        assert run.rest() == []


def test_each_group_gets_everything(log: Log) -> None:
    log.publish(numbered(20))
    with reading(log.transport("first")) as run:
        given = run.take(20)
        with closing(log.transport("first").acknowledger()) as acknowledger:
            acknowledger.acknowledge(given[0].partition, [record.id for record in given])
    with reading(log.transport("second")) as run:
        assert bodies(run.take(20)) == numbered(20)


def test_acknowledging_twice_is_harmless(log: Log) -> None:
    log.publish(numbered(10))
    with reading(log.transport()) as run:
        given = run.take(10)
        with closing(log.transport().acknowledger()) as acknowledger:
            for record in [*given[:5], *given[:5], given[7], given[7], given[0]]:
                acknowledger.acknowledge(record.partition, [record.id])
        acknowledge(log, given[:3])
    with reading(log.transport()) as run:
        assert set(bodies(run.take(4))) >= {b"5", b"6", b"8", b"9"}


@pytest.mark.parametrize("seed", range(3))
def test_acknowledgements_in_any_order_lose_nothing_over_any_number_of_crashes(log: Log, seed: int) -> None:
    order = random.Random(seed)
    sent = numbered(300)
    log.publish(sent)
    done: set[bytes] = set()
    for _ in range(4):
        with reading(log.transport()) as run:
            again = run.take(len(sent) - len(done)) + run.rest(0.1)
            assert set(bodies(again)) >= set(sent) - done
            some = order.sample(again, len(again) // 2)
            with closing(log.transport().acknowledger()) as acknowledger:
                for at in range(0, len(some), 20):
                    acknowledger.acknowledge(again[0].partition, [record.id for record in some[at : at + 20]])
            done |= set(bodies(some))
    with reading(log.transport()) as run:
        again = run.take(len(sent) - len(done)) + run.rest(0.1)
        assert set(bodies(again)) >= set(sent) - done
        acknowledge(log, again)
    with reading(log.transport()) as run:
        assert run.rest() == []


def test_a_record_that_waits_holds_back_only_until_it_is_done(log: Log) -> None:
    log.publish(numbered(10))
    with reading(log.transport()) as run:
        given = run.take(10)
        with closing(log.transport().acknowledger()) as acknowledger:
            acknowledger.acknowledge(given[0].partition, [record.id for record in given[1:]])
            acknowledger.acknowledge(given[0].partition, [given[0].id])
    with reading(log.transport()) as run:
        assert run.rest() == []


def test_the_sender_says_when_an_event_was_had(log: Log) -> None:
    log.publish([b"1"], at=INSTANT)
    with reading(log.transport()) as run:
        [record] = run.take(1)
        assert (record.body, record.ingested_at) == (b"1", INSTANT)
        assert abs(record.appended_at / 1e6 - time.time()) < 60 or isinstance(log, FileLog)


@pytest.mark.parametrize("stated", [None, b"soon", b"-5", b"1e9", b"9" * 5_000, b"9" * 18, b""])
def test_without_a_readable_word_of_the_sender_the_time_of_appending_counts(log: Log, stated: bytes | None) -> None:
    before = time.time()
    log.publish([b"1"]) if stated is None else log.publish_stating(b"1", stated)
    with reading(log.transport()) as run:
        [record] = run.take(1)
        assert record.ingested_at == record.appended_at
        assert before - 1 <= record.appended_at / 1e6 <= time.time() + 1


def test_an_empty_log_is_waited_on_without_spinning(log: Log) -> None:
    with reading(log.transport()) as run:
        began, cpu = time.monotonic(), time.thread_time()
        assert run.rest(0.5) == []
        if isinstance(log, FileLog):
            assert run.parts == {}  # a file ends
            assert time.monotonic() - began < 0.5
            return
        assert run.calls <= 0.5 / 0.002 * len(run.names) + len(run.names)
        assert time.thread_time() - cpu < 0.25
        log.publish([b"at last"])
        assert bodies(run.take(1)) == [b"at last"]


def test_any_bytes_pass_through(log: Log) -> None:
    empty = [] if isinstance(log, FileLog) else [b""]  # an empty line is none
    log.publish(POISON + empty)
    with reading(log.transport()) as run:
        assert bodies(run.take(len(POISON + empty))) == POISON + empty


def test_the_buried_lie_where_a_person_reads_the_reason(log: Log) -> None:
    log.publish([b"bad \xe2\x82\xac", b"worse"])
    with reading(log.transport()) as run:
        given = run.take(2)
        reasons = ["invalid: amount is -4.00", "late: 1 day, Malmö"]
        with closing(log.transport().acknowledger()) as acknowledger:
            acknowledger.bury(list(zip(given, reasons, strict=True)))
    expected = [
        {"reason": reason, "stream": record.partition, "id": record.id, "body": record.body.decode()}
        for record, reason in zip(given, reasons, strict=True)
    ]
    assert sorted(log.dead(), key=lambda letter: letter["id"]) == expected


def test_the_largest_message_can_be_buried(log: Log) -> None:
    log.publish([b"x" * 999_000])
    with reading(log.transport()) as run, closing(log.transport().acknowledger()) as acknowledger:
        acknowledger.bury([(run.take(1)[0], "invalid: " + "y" * 50_000)])
    assert len(log.dead()) == 1


def test_no_more_than_the_bound_is_in_flight(log: Log) -> None:
    sent = numbered(500)
    log.publish(sent)
    with reading(log.transport(in_flight=100)) as run, closing(log.transport().acknowledger()) as acknowledger:
        given = run.rest()
        assert bodies(given) == sent[:100]
        for done in range(40, 500, 40):
            acknowledger.acknowledge(given[0].partition, [record.id for record in given[done - 40 : done]])
            given += run.take(40 if done <= 400 else 500 - len(given))
            assert run.rest(0.05) == []
            assert bodies(given) == sent[: min(done + 100, 500)]


def test_what_came_back_counts_as_in_flight(log: Log) -> None:
    sent = numbered(60)
    log.publish(sent)
    with reading(log.transport(in_flight=30)) as run:
        assert bodies(run.rest()) == sent[:30]
    # The bound is lower now than what is owed.
    with reading(log.transport(in_flight=20)) as run, closing(log.transport().acknowledger()) as acknowledger:
        given: list[Record] = []
        while len(given) < 60:
            more = run.take(1, 5)
            assert len(more) in range(1, 21)
            given += more
            acknowledger.acknowledge(more[0].partition, [record.id for record in more])
        assert bodies(given) == sent


def test_what_is_published_has_the_order_of_its_key_and_the_word_of_its_sender(log: Log) -> None:
    sent = numbered(300)
    with closing(log.transport().publisher()) as publisher:
        for begin in range(0, 300, 100):
            some = sent[begin : begin + 100]
            keys = [b"card-%d" % (number % 7) for number in range(begin, begin + 100)]
            publisher.publish(some, [INSTANT if number % 2 else None for number in range(100)], keys)
    with reading(log.transport()) as run:
        given = run.take(300)
        assert run.rest(0.1) == []
    assert sorted(bodies(given), key=int) == sent
    for card in range(7):
        assert (order := [int(record.body) for record in given if int(record.body) % 7 == card]) == sorted(order)
    for record in given:
        assert record.ingested_at == (INSTANT if int(record.body) % 2 else record.appended_at)


def test_a_group_has_caught_up_when_all_that_was_appended_is_acknowledged(log: Log) -> None:
    with closing(log.transport().backlog()) as ours, closing(log.transport("other").backlog()) as other:
        assert ours.lag() == 0
        log.publish(numbered(10))
        assert ours.lag() == 10  # although no source was ever started
        with reading(log.transport()) as run:
            given = run.take(10)
            assert ours.lag() == 10
            acknowledge(log, given[:4])
            assert ours.lag() == 6
            acknowledge(log, given[4:])
            assert ours.lag() == 0
            end = ours.end()
            log.publish(numbered(1))
            assert ours.lag() == 1
            assert ours.lag(end) == 0  # what came later is not waited for
            run.take(1)
            assert (ours.lag(), ours.lag(end)) == (1, 0)
        assert other.lag() == 11


def test_a_message_that_is_no_line_is_refused_by_a_file(tmp_path: Path) -> None:
    log = FileLog(tmp_path / "events.jsonl")
    with closing(log.transport().publisher()) as publisher:
        for body in (b"{\n}", b"", b" "):
            with pytest.raises(ValueError, match="cannot be a line"):
                publisher.publish([b"1", body], [None, None], [b"card"] * 2)
    assert log.path.read_bytes() == b""


@dataclass
class Breakable:
    """A log whose server can be ended and started again."""

    log: Log
    end: Callable[[], None]
    start: Callable[[], None]


@pytest.fixture(params=["redis killed", "kafka stopped", "kafka killed"])
def breakable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Breakable]:
    if request.param == "redis killed":
        with Platform(at_free_ports(Settings(home=tmp_path))) as platform:
            platform.start("redis")
            yield Breakable(RedisLog(platform.settings.redis_url), lambda: kill(platform), lambda: revive(platform))
        return
    broker = request.getfixturevalue("kafka_broker")
    if not broker.restarts:
        pytest.skip(f"Kafka is {broker.described}: it cannot be restarted")
    yield Breakable(KafkaLog(broker), broker.kill if "killed" in request.param else broker.stop, broker.start)


def kill(platform: Platform) -> None:
    for process in platform.running["redis"].processes()[1:]:
        process.kill()


def revive(platform: Platform) -> None:
    platform.stop("redis")
    platform.start("redis")


def test_a_server_that_restarts_in_the_middle_costs_nothing(breakable: Breakable) -> None:
    """Sent, given and acknowledged before, while and after the server is away."""
    log, sent = breakable.log, numbered(3_000)
    published: list[int] = []

    def send() -> None:
        for at in range(0, len(sent), 50):
            log.publish(sent[at : at + 50])
            published.append(at)
            time.sleep(0.005)

    def restart() -> int:
        while len(published) < 10:
            time.sleep(0.005)
        breakable.end()
        midway = len(published)
        time.sleep(0.5)
        breakable.start()
        return midway

    with (
        ThreadPoolExecutor(2) as others,
        reading(log.transport(in_flight=700)) as run,
        closing(log.transport().acknowledger()) as acknowledger,
    ):
        sending, restarted = others.submit(send), others.submit(restart)
        given: list[Record] = []
        while len(set(bodies(given))) < len(sent):
            more = run.take(1)
            assert more, f"nothing came after {len(given)} records; {sending}, {restarted}"
            given += more
            acknowledger.acknowledge(more[0].partition, [record.id for record in more])
        sending.result()
        assert restarted.result() < len(sent) / 50  # it was in the middle
        given += (rest := run.rest())
        acknowledger.acknowledge(given[0].partition, [record.id for record in rest])
    identities = [(record.partition, record.id) for record in given]
    assert len(set(identities)) == len(identities)  # nothing is given twice; a sender may have had to repeat
    first_heard = list(dict.fromkeys(bodies(given)))
    assert first_heard == sent
    if isinstance(log, KafkaLog):
        assert bodies(given) == sent  # nor does an idempotent producer repeat
    with reading(log.transport()) as run:
        assert run.rest() == []


JOB = """
import sys
import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
{transport}

class Keep(StatelessSinkPartition):
    def __init__(self):
        self.acknowledger = transport.acknowledger()
        self.kept = open(sys.argv[1], "ab", buffering=0)

    def write_batch(self, records):
        for record in records:
            self.kept.write(record.body + b"\\n")
            self.acknowledger.acknowledge(record.partition, [record.id])

class Sink(DynamicSink):
    def build(self, *_):
        return Keep()

flow = Dataflow("job")
op.output("keep", op.input("records", flow, transport.source()), Sink())
from bytewax.testing import run_main
run_main(flow)
"""


def test_a_job_that_is_killed_again_and_again_has_had_everything(log: Log, tmp_path: Path) -> None:
    sent = numbered(4_000)
    log.publish(sent)
    kept = tmp_path / "kept"
    kept.touch()
    for goal in (200, 1_000, 2_500, 4_000):
        job = subprocess.Popen([sys.executable, "-c", JOB.format(transport=log.spec()), str(kept)], cwd=ROOT)
        try:
            deadline = time.monotonic() + 60
            while len(set(kept.read_bytes().splitlines())) < goal:
                assert time.monotonic() < deadline
                time.sleep(0.005)
        finally:
            job.kill()
            job.wait()
    had = Counter(kept.read_bytes().splitlines())
    assert set(had) == set(sent)
    assert max(had.values()) <= 4  # once in each life of the job at the most


def test_a_group_set_back_gets_again_what_the_other_has_not_done(log: Log) -> None:
    log.publish(numbered(100))
    for group, done in (("history", 40), ("job", 90)):
        with reading(log.transport(group)) as run:
            given = run.take(100)
        with closing(log.transport(group).acknowledger()) as acknowledger:
            acknowledger.acknowledge(given[0].partition, [record.id for record in given[:done]])
    back = log.transport("job").rewind
    back(log.transport("history").group)
    with reading(log.transport("job")) as run:
        assert bodies(run.take(60)) == numbered(60, 40)
        assert run.rest() == []


def test_a_group_is_never_set_forward(log: Log) -> None:
    log.publish(numbered(50))
    log.transport("job").rewind(log.transport("history").group)  # neither has ever read
    for group, done in (("history", 30), ("job", 10)):
        with reading(log.transport(group)) as run:
            given = run.take(50)
        with closing(log.transport(group).acknowledger()) as acknowledger:
            acknowledger.acknowledge(given[0].partition, [record.id for record in given[:done]])
    log.transport("job").rewind(log.transport("history").group)
    with reading(log.transport("job")) as run:
        assert sorted(bodies(run.take(40)), key=int) == numbered(40, 10)
        assert run.rest() == []


def test_a_group_is_set_back_to_the_beginning_when_the_other_never_read(log: Log) -> None:
    log.publish(numbered(20))
    with reading(log.transport("job")) as run:
        acknowledge(log, run.take(20))
    log.transport("job").rewind(log.transport("history").group)
    with reading(log.transport("job")) as run:
        assert bodies(run.take(20)) == numbered(20)
