"""The asyncio wire against a real Redis: replies stay with their commands whatever happens to the connection."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bentos.wire import RECONNECT_EVERY, STUCK_AFTER, Wire, alive
from feature_repo.redis_wire import command
from monitoring.parts import redis_server as redis_program
from monitoring.supervision import Part, free_ports, start, stop, wait

PATIENT = 10.0


def run(url: str, work: Callable[[Wire], Coroutine[Any, Any, Any]], connect_timeout: float = PATIENT) -> Any:
    """Do something with a wire in an event loop of its own."""

    async def opened() -> Any:
        wire = Wire(url, connect_timeout)
        try:
            return await work(wire)
        finally:
            wire.close()

    return asyncio.run(opened())


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENT):
        while not condition():
            await asyncio.sleep(0.005)


async def healed(wire: Wire) -> None:
    """Return when Redis answers again."""
    async with asyncio.timeout(PATIENT):
        while not await alive(wire, PATIENT):
            await asyncio.sleep(RECONNECT_EVERY)


def echo(text: bytes) -> bytes:
    return command(b"ECHO", text)


def count(number: int) -> bytes:
    """A command that is answered with its number, and that a pause of writing holds up."""
    return command(b"INCRBY", b"counted-%d" % number, b"%d" % number)


def pause(client: redis.Redis) -> None:
    """Until `resume`. Of a pause of everything Redis 6 cannot be called back."""
    client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")


def resume(client: redis.Redis) -> None:
    client.execute_command("CLIENT", "UNPAUSE")


@pytest.fixture
def admin(redis_server: str) -> Iterator[redis.Redis]:
    """An ordinary client; whatever it paused goes on afterwards."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
        yield client
        resume(client)


def others(client: redis.Redis) -> list[str]:
    """The identifiers of all connections but the client's own."""
    own = str(client.client_id())
    return [one["id"] for one in client.client_list() if one["id"] != own]


def test_replies_of_many_exchanges_at_once_keep_apart(redis_server: str):
    async def work(wire: Wire) -> list[list[bytes]]:
        asked = [[b"%d-%d" % (n, m) for m in range(n % 7 + 1)] for n in range(500)]
        told = await asyncio.gather(*(wire.exchange([echo(one) for one in batch], PATIENT) for batch in asked))
        assert told == asked
        return told

    assert len(run(redis_server, work)) == 500


def test_all_exchanges_share_one_connection(redis_server: str, admin: redis.Redis):
    before = len(others(admin))

    async def work(wire: Wire) -> None:
        await asyncio.gather(*(wire.exchange([echo(b"x")], PATIENT) for _ in range(50)))
        assert len(others(admin)) == before + 1

    run(redis_server, work)


def test_a_large_reply_that_comes_in_pieces_is_read_whole(redis_server: str):
    big = bytes(range(256)) * 20_000

    async def work(wire: Wire) -> None:
        first, second = wire.exchange([echo(big), echo(b"a")], PATIENT), wire.exchange([echo(b"b")], PATIENT)
        assert await asyncio.gather(first, second) == [[big, b"a"], [b"b"]]

    run(redis_server, work)


def test_nothing_asked_is_nothing_answered_and_needs_no_redis():
    assert run(f"redis://127.0.0.1:{free_ports(1)[0]}", lambda wire: wire.exchange([], PATIENT)) == []


def test_an_error_reply_is_raised_and_is_nobody_elses(redis_server: str):
    async def work(wire: Wire) -> list[Any]:
        bad = wire.exchange([echo(b"a"), command(b"LPUSH", b"only-key"), echo(b"b")], PATIENT)
        return await asyncio.gather(wire.exchange([echo(b"1")], PATIENT), bad, wire.exchange([echo(b"2")], PATIENT),
                                    return_exceptions=True)  # fmt: skip

    first, error, last = run(redis_server, work)
    assert (first, last) == ([b"1"], [b"2"])
    assert isinstance(error, ResponseError)
    assert "wrong number of arguments" in str(error)


def test_after_a_time_out_later_replies_are_still_the_right_ones(redis_server: str, admin: redis.Redis):
    async def work(wire: Wire) -> None:
        assert await wire.exchange([echo(b"before")], PATIENT) == [b"before"]
        connection = set(others(admin))
        pause(admin)
        late = await asyncio.gather(*(wire.exchange([count(n)], 0.02) for n in range(5)), return_exceptions=True)
        assert [type(one) for one in late] == [RedisTimeoutError] * 5
        # Asked while the late replies are still owed.
        waiting = asyncio.gather(*(wire.exchange([count(10 + n)], PATIENT) for n in range(5)))
        await asyncio.sleep(0)
        resume(admin)
        assert await waiting == [[10 + n] for n in range(5)]
        assert set(others(admin)) == connection, "a late reply is no reason for a new connection"

    run(redis_server, work)


def test_an_exchange_that_nobody_waits_for_any_more_takes_nobodys_reply(redis_server: str, admin: redis.Redis):
    async def work(wire: Wire) -> None:
        await wire.exchange([echo(b"before")], PATIENT)
        pause(admin)
        gone = asyncio.create_task(wire.exchange([count(7)], PATIENT))
        stays = asyncio.create_task(wire.exchange([count(8)], PATIENT))
        await asyncio.sleep(0)
        gone.cancel()
        resume(admin)
        assert await stays == [8]

    run(redis_server, work)


def test_a_connection_without_a_word_for_long_is_made_anew(redis_server: str, admin: redis.Redis):
    async def work(wire: Wire) -> None:
        await wire.exchange([echo(b"before")], PATIENT)
        first = set(others(admin))
        pause(admin)
        began = time.monotonic()
        while time.monotonic() - began < STUCK_AFTER + 0.1:
            with pytest.raises(RedisError):
                await wire.exchange([count(1)], 0.05)
        resume(admin)
        await healed(wire)
        await until(lambda: not first & set(others(admin)))

    run(redis_server, work)


def test_a_killed_connection_fails_what_it_owed_and_is_made_anew(redis_server: str, admin: redis.Redis):
    async def work(wire: Wire) -> None:
        await wire.exchange([echo(b"before")], PATIENT)
        (connection,) = set(others(admin)) - known
        owed = [asyncio.create_task(wire.exchange([command(b"BLPOP", b"never", b"0")], PATIENT)) for _ in range(3)]
        await until(lambda: admin.info("clients")["blocked_clients"] == 1)
        admin.execute_command("CLIENT", "KILL", "ID", connection)
        lost = await asyncio.gather(*owed, return_exceptions=True)
        assert [type(one) for one in lost] == [RedisConnectionError] * 3
        assert await wire.exchange([echo(b"after")], PATIENT) == [b"after"]

    known = set(others(admin))
    run(redis_server, work)


def test_nothing_hangs_where_there_is_no_redis():
    url = f"redis://127.0.0.1:{free_ports(1)[0]}/0"

    async def work(wire: Wire) -> None:
        told = await asyncio.gather(*(wire.exchange([echo(b"x")], PATIENT) for _ in range(20)), return_exceptions=True)
        assert {type(one) for one in told} == {RedisConnectionError}
        began = time.monotonic()
        with pytest.raises(RedisConnectionError, match=r"127\.0\.0\.1:\d+ (was|is) out of reach"):
            await wire.exchange([echo(b"x")], PATIENT)
        assert time.monotonic() - began < PATIENT / 2
        assert not await alive(wire, PATIENT)

    run(url, work)


def test_nothing_hangs_where_a_server_takes_the_connection_and_says_nothing():
    async def silent() -> None:
        ended = asyncio.Event()

        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()
            await writer.wait_closed()
            ended.set()

        server = await asyncio.start_server(hold, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        wire = Wire(f"redis://:secret@127.0.0.1:{port}/3", 0.1)  # what opens the connection waits too
        with pytest.raises(RedisError):
            await wire.exchange([echo(b"x")], PATIENT)
        await asyncio.wait_for(ended.wait(), PATIENT)
        server.close()

    asyncio.run(silent())


def test_what_is_no_redis_is_an_error_and_given_up():
    async def babble() -> None:
        ended = asyncio.Event()

        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            ended.set()

        server = await asyncio.start_server(speak, "127.0.0.1", 0)
        wire = Wire(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", PATIENT)
        with pytest.raises(RedisConnectionError):
            await wire.exchange([echo(b"x")], PATIENT)
        await asyncio.wait_for(ended.wait(), PATIENT)
        server.close()

    asyncio.run(babble())


@pytest.fixture(scope="module")
def locked_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of a Redis that asks for the password `open:sesame`."""
    folder, (port,) = tmp_path_factory.mktemp("locked"), free_ports(1)

    def ready() -> bool:
        with redis.Redis(port=port, password="open:sesame") as client, contextlib.suppress(redis.RedisError):
            return bool(client.ping())
        return False

    said = ("--port", str(port), "--save", "", "--requirepass", "open:sesame", "--dir", str(folder))
    part = Part("locked", (redis_program(), "--bind", "127.0.0.1", *said), Path(folder), "", ready)
    running = start(part, folder)
    try:
        wait(part, running)
        yield f"127.0.0.1:{port}"
    finally:
        stop(running)


def test_password_user_and_database_of_the_address_are_used(locked_redis: str):
    set_it, get_it = command(b"SET", b"where", b"five"), command(b"GET", b"where")
    assert run(f"redis://:open%3Asesame@{locked_redis}/5", lambda w: w.exchange([set_it], PATIENT)) == [b"OK"]
    assert run(f"redis://default:open%3Asesame@{locked_redis}/5", lambda w: w.exchange([get_it], PATIENT)) == [b"five"]
    assert run(f"redis://:open%3Asesame@{locked_redis}/0", lambda w: w.exchange([get_it], PATIENT)) == [None]


def test_a_wrong_password_is_an_error_and_leaves_no_connection_behind(locked_redis: str):
    with redis.Redis.from_url(f"redis://:open%3Asesame@{locked_redis}") as client:
        before = set(others(client))

        async def work(wire: Wire) -> None:
            with pytest.raises(RedisConnectionError, match="out of reach"):
                await wire.exchange([echo(b"x")], PATIENT)
            await until(lambda: set(others(client)) <= before)

        run(f"redis://:guess@{locked_redis}", work)
