"""Real programs under supervision: they start, answer, and leave nothing behind, however their starter ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import redis

from feature_repo.settings import Settings
from monitoring import parts, platform_record, processes
from monitoring.parts import environment
from monitoring.processes import Platform, at_free_ports, down, status, up
from monitoring.supervision import Part, PartFailed, Running, free_ports, start, stop, wait
from tests.integration.logs import KafkaLog, reading
from tests.kafka_broker import Broker

# A program that ignores SIGTERM and whose grandchild, in a session of its own, does too.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(300)
    os._exit(0)
time.sleep(300)
"""


@pytest.fixture
def current(tmp_path: Path) -> Settings:
    return at_free_ports(Settings(home=tmp_path / "home"))


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def ended(started: list[psutil.Process]) -> bool:
    return not [each for each in started if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def ping(current: Settings) -> bool:
    with redis.Redis.from_url(current.redis_url) as client:
        return bool(client.ping())


def program(tmp_path: Path, code: str, *arguments: str, ready: Callable[[], bool], **kept: float) -> Part:
    return Part("program", (sys.executable, "-c", code, *arguments), tmp_path, "nowhere", ready, **kept)


@pytest.fixture
def stubborn(tmp_path: Path) -> Iterator[tuple[Running, list[psutil.Process]]]:
    """The stubborn program, running, and its processes: guard, program, grandchild."""
    written = tmp_path / "grandchild"
    part = program(tmp_path, STUBBORN, str(written), ready=lambda: written.exists() and bool(written.read_text()))
    running = start(Part(**vars(part) | {"grace": 0.3}), tmp_path)
    try:
        wait(part, running)
        grandchild = int(written.read_text())
        assert eventually(lambda: psutil.Process(grandchild).ppid() == running.pid), "the guard adopts the grandchild"
        found = running.processes()
        assert len(found) == 3
        yield running, found
    finally:
        stop(running)
    assert ended(found)


def test_redis_and_mlflow_answer_and_leave_nothing_behind(current: Settings):
    with Platform(current) as platform:
        platform.start("redis", "mlflow")
        found = [each for running in platform.running.values() for each in running.processes()]
        with urllib.request.urlopen(f"{current.mlflow_url}/api/2.0/mlflow/experiments/get?experiment_id=0") as answer:
            experiment = json.load(answer)["experiment"]
        assert experiment["artifact_location"].startswith("mlflow-artifacts:")
        assert ping(current)
        assert len(found) >= 4
    assert ended(found)
    assert not platform.running
    assert (current.home / "mlflow" / "mlflow.db").exists()


def test_redis_keeps_what_it_was_told(current: Settings):
    with Platform(current) as platform, redis.Redis.from_url(current.redis_url) as client:
        platform.start("redis")
        client.set("card", "seen")
        platform.stop("redis")
        platform.start("redis")
        assert client.get("card") == b"seen"


def test_an_exception_in_the_block_stops_the_parts(current: Settings):
    found = []

    def fail_half_way() -> None:
        with Platform(current) as platform:
            platform.start("redis")
            found.extend(platform.running["redis"].processes())
            raise LookupError

    with pytest.raises(LookupError):
        fail_half_way()
    assert found
    assert ended(found)


def test_an_early_death_is_reported_with_the_end_of_its_log(tmp_path: Path):
    part = program(tmp_path, "print('the disk is full'); raise SystemExit(3)", ready=lambda: False)
    running = start(part, tmp_path)
    with pytest.raises(PartFailed, match=r"'program' ended with code 3 .*\n  the disk is full"):
        wait(part, running)
    stop(running)


def test_a_part_that_is_never_ready_is_reported(tmp_path: Path):
    part = program(
        tmp_path, "import time; print('warming up', flush=True); time.sleep(60)", ready=lambda: False, deadline=1.0
    )
    running = start(part, tmp_path)
    with pytest.raises(PartFailed, match=r"not ready after 1 s .*\n  warming up"):
        wait(part, running)
    found = running.processes()
    stop(running)
    assert ended(found)


def test_a_port_in_use_is_named_with_the_way_out(current: Settings):
    with Platform(current) as first, Platform(current) as second:
        first.start("redis")
        with pytest.raises(PartFailed, match=r"'redis': port \d+ of 127.0.0.1 .*FRAUD_REDIS_URL"):
            second.start("redis")
        assert ping(current), "the one that was there is left alone"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"redis_url": "redis://redis.example:6379/0"}, "FRAUD_REDIS_URL"),
        ({"redis_url": "redis://:secret@127.0.0.1:6379/0"}, "FRAUD_REDIS_URL"),
        ({"mlflow_url": "http://mlflow.example:5000"}, "FRAUD_MLFLOW_URL"),
    ],
)
def test_a_server_elsewhere_is_not_started_here(current: Settings, changed: dict[str, str], named: str):
    platform = Platform(current.model_copy(update=changed))
    with pytest.raises(PartFailed, match=named):
        platform.start("redis" if "redis_url" in changed else "mlflow")


def test_an_unknown_part_is_refused(current: Settings):
    with pytest.raises(PartFailed, match="'kafka' does not exist; there are redis, mlflow"):
        Platform(current).start("kafka")


def test_stopping_ends_what_ignores_the_request_and_hides_in_another_session(stubborn):
    running, found = stubborn
    stop(running)
    assert ended(found)
    stop(running)


def test_a_killed_guard_takes_its_program_along(tmp_path: Path):
    part = program(tmp_path, "import time; time.sleep(300)", ready=lambda: True)
    running = start(part, tmp_path)
    assert eventually(lambda: len(running.processes()) == 2)
    found = running.processes()
    os.kill(running.pid, signal.SIGKILL)
    assert eventually(lambda: ended(found))
    stop(running)


def test_the_stream_job_is_ready_when_it_has_read_and_not_by_an_earlier_one(current: Settings):
    job = parts.stream(current)
    with Platform(current) as platform, redis.Redis.from_url(current.redis_url) as client:
        assert not job.ready(), "no server yet"
        platform.start("redis")
        client.xgroup_create(current.transactions_stream, current.consumer_group, id="0", mkstream=True)
        assert not job.ready(), "a group alone is no reader"
        client.xreadgroup(current.consumer_group, "worker", {current.transactions_stream: "0"})
        assert job.ready()
        assert eventually(lambda: not parts.stream(current).ready()), "the next job has not read yet"


def test_over_kafka_the_stream_job_is_ready_when_each_partition_was_begun_anew(current: Settings, kafka_broker: Broker):
    log = KafkaLog(kafka_broker, partitions=2)
    streams = {"transactions_stream": log.name, "consumer_group": log.transport().group}
    kafka = {"transport": "kafka", "kafka_bootstrap": kafka_broker.bootstrap}
    over_kafka = current.model_copy(update=kafka | streams)
    first = parts.stream(over_kafka)
    assert not first.ready(), "nobody reads"
    with reading(log.transport()) as run:
        assert first.ready()
        log.publish([b"1"])
        [record] = run.take(1)
        with closing(log.transport().acknowledger()) as acknowledger:
            acknowledger.acknowledge(record.partition, [record.id])
        assert first.ready(), "it has moved on"
    second = parts.stream(over_kafka)
    assert not second.ready(), "an earlier job has read"
    with reading(log.transport()):
        assert second.ready()


def test_a_part_whose_preparation_fails_is_not_started(tmp_path: Path):
    ran = tmp_path / "ran"
    part = program(tmp_path, "import sys; open(sys.argv[1], 'w')", str(ran), ready=ran.exists)
    fails = (sys.executable, "-c", "raise SystemExit('Topic has 3 partitions, not 8')")
    with pytest.raises(PartFailed, match="'program' cannot start: Topic has 3 partitions, not 8"):
        start(replace(part, preparation=fails), tmp_path)
    running = start(replace(part, preparation=(sys.executable, "-c", "")), tmp_path)
    wait(part, running)
    stop(running)


STARTER = """
import sys, time
from pathlib import Path
from feature_repo.settings import Settings
from monitoring.processes import Platform, ending_on_sigterm
with ending_on_sigterm(), Platform(Settings()) as platform:
    platform.start("redis")
    print(*[each.pid for each in platform.running["redis"].processes()], flush=True)
    time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_the_parts_end_with_their_starter(current: Settings, number: signal.Signals):
    with subprocess.Popen(
        [sys.executable, "-c", STARTER],
        env=os.environ | environment(current),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as starter:
        assert starter.stdout is not None
        found = [psutil.Process(int(pid)) for pid in starter.stdout.readline().split()]
        assert len(found) == 2
        starter.send_signal(number)
        starter.wait(timeout=20)
    assert eventually(lambda: ended(found))


def command_line(current: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "monitoring.processes", *arguments],
        env=os.environ | environment(current),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_up_stays_up_until_down(current: Settings):
    try:
        assert command_line(current, "status").returncode == 1
        started = command_line(current, "up", "redis")
        assert started.returncode == 0, started.stderr
        assert current.redis_url in started.stdout
        assert ping(current)
        assert command_line(current, "status").returncode == 0

        again = command_line(current, "up", "redis")
        assert again.returncode == 1
        assert "'redis' is already up" in again.stderr
        assert "make down" in again.stderr
        assert ping(current)

        found = status(current)["redis"].processes()
        assert len(found) == 2
    finally:
        stopped = command_line(current, "down")
    assert stopped.stdout == "Stopped redis.\n"
    assert ended(found)
    assert command_line(current, "down").stdout == "Nothing was running.\n"


def test_up_replaces_a_part_that_died(current: Settings):
    try:
        assert command_line(current, "up", "redis").returncode == 0
        found = status(current)["redis"].processes()
        for each in found:
            each.kill()
        assert eventually(lambda: ended(found))
        assert "not running" in command_line(current, "status").stdout
        assert command_line(current, "up", "redis").returncode == 0
        assert ping(current)
    finally:
        down(current)


def test_up_leaves_nothing_when_one_part_fails(current: Settings, monkeypatch: pytest.MonkeyPatch):
    def broken(_: Settings) -> Part:
        return program(current.home, "raise SystemExit('no table of experiments')", ready=lambda: False)

    monkeypatch.setitem(processes.PARTS, "mlflow", broken)
    with pytest.raises(PartFailed, match="no table of experiments"):
        up(current, ["redis", "mlflow"])
    assert not status(current)
    with pytest.raises(redis.ConnectionError):
        ping(current)


def test_down_leaves_a_process_alone_that_merely_got_the_number(current: Settings):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as other:
        recorded = Running("redis", other.pid, ["guard"], current.redis_url, current.home / "redis.log", 1.0)
        current.home.mkdir()
        platform_record.write(current, {"redis": recorded})
        assert not status(current)["redis"].alive()
        assert down(current) == []
        assert other.poll() is None
        other.communicate(b"\n", timeout=10)
    assert other.returncode == 0


def test_another_process_reads_the_same_settings(current: Settings, monkeypatch: pytest.MonkeyPatch):
    given = current.model_copy(update={"max_batch": 7, "home": Path("relative")})
    for name, value in environment(given).items():
        monkeypatch.setenv(name, value)
    assert Settings() == given.model_copy(update={"home": Path.cwd() / "relative"})


def test_free_ports_differ():
    assert len(set(free_ports(20))) == 20
