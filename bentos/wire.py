"""Redis on the event loop: packed commands go out, replies come back in order, many batches under way at once.

redis-py's asyncio client costs more for a command than Redis does; here a batch of commands is one write, hiredis reads
the replies, and one future tells a batch of them. A batch that nobody waits for any more is still read to its end, so
that the replies of the next are its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
from redis.connection import parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import ResponseError as RedisResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from feature_repo.redis_wire import command

STUCK_AFTER = 1.0
"""Seconds without a reply that is owed after which a connection is given up and made anew."""

RECONNECT_EVERY = 0.05
"""Seconds between attempts to connect."""


class Wire:
    """One connection to one Redis, made on first use and made again when it is lost; for one event loop.

    `exchange` raises `redis.exceptions.ConnectionError`, `TimeoutError` or the error that Redis answers.
    """

    def __init__(self, url: str, connect_timeout: float) -> None:
        self._address = parse_url(url)
        self._connect_timeout = connect_timeout
        self._live: _Connection | None = None
        self._making: asyncio.Task[_Connection] | None = None
        self._failed_at = float("-inf")

    async def exchange(self, commands: Sequence[bytes], timeout: float) -> list[Any]:
        """Send commands and give their replies in order; an error among them is raised, the first one."""
        if not commands:
            return []
        live = self._live
        if live is None or live.lost is not None:
            live = await self._connected(timeout)
        return await live.exchange(commands, timeout)

    async def ask(self, *parts: bytes, timeout: float) -> Any:
        """The reply to one command; raises as `exchange` does."""
        (reply,) = await self.exchange([command(*parts)], timeout)
        return reply

    def close(self) -> None:
        """Give the connection up; what is owed fails."""
        if self._making is not None:
            self._making.cancel()
        if self._live is not None:
            self._live.give_up(RedisConnectionError("Closed."))

    async def _connected(self, timeout: float) -> _Connection:
        """The connection, made by one task for all who wait. For a moment after a failure there is no new attempt."""
        loop = asyncio.get_running_loop()
        if self._making is None or self._making.done():
            if loop.time() - self._failed_at < RECONNECT_EVERY:
                raise RedisConnectionError(f"Redis at {self._name} was out of reach a moment ago.")
            self._making = loop.create_task(self._connect())
            self._making.add_done_callback(_looked_at)
        try:
            return await asyncio.wait_for(asyncio.shield(self._making), min(timeout, self._connect_timeout))
        except TimeoutError:
            raise RedisTimeoutError(f"Redis at {self._name} does not take the connection.") from None

    @property
    def _name(self) -> str:
        return str(self._address.get("path") or f"{self._address.get('host')}:{self._address.get('port', 6379)}")

    async def _connect(self) -> _Connection:
        loop, given = asyncio.get_running_loop(), self._address
        try:
            async with asyncio.timeout(self._connect_timeout):
                if "path" in given:
                    _, live = await loop.create_unix_connection(_Connection, given["path"])
                else:
                    tls = ssl.create_default_context() if "SSL" in str(given.get("connection_class")) else None
                    at = given.get("host", "localhost"), given.get("port", 6379)
                    _, live = await loop.create_connection(_Connection, *at, ssl=tls)
            opening = []
            if given.get("password"):
                user = [given["username"].encode()] if given.get("username") else []
                opening.append(command(b"AUTH", *user, given["password"].encode()))
            if given.get("db"):
                opening.append(command(b"SELECT", str(given["db"]).encode()))
            if opening:
                try:
                    await live.exchange(opening, self._connect_timeout)
                except BaseException as error:
                    live.give_up(RedisConnectionError(f"Refused: {error or type(error).__name__}."))
                    raise
        except (OSError, TimeoutError, RedisError) as error:
            self._failed_at = loop.time()
            raise RedisConnectionError(
                f"Redis at {self._name} is out of reach: {error or type(error).__name__}."
            ) from None
        self._live = live
        return live


def _looked_at(task: asyncio.Task[Any]) -> None:
    """Those who waited have had the error; where none is left nobody misses it."""
    if not task.cancelled():
        task.exception()


class _Owed:
    """A batch of commands that Redis has not answered to the end."""

    __slots__ = ("count", "done", "replies", "since")

    def __init__(self, count: int, done: asyncio.Future[list[Any]], since: float) -> None:
        self.count, self.done, self.since = count, done, since
        self.replies: list[Any] = []


class _Connection(asyncio.Protocol):
    """A connection that is open until `lost` says why it no longer is."""

    def __init__(self) -> None:
        self.lost: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=RedisResponseError, protocolError=RedisConnectionError)
        self._owed: deque[_Owed] = deque()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.give_up(RedisConnectionError(f"Redis closed the connection: {error or 'end of stream'}."))

    async def exchange(self, commands: Sequence[bytes], timeout: float) -> list[Any]:
        """See `Wire.exchange`."""
        if self.lost is not None:
            raise self.lost
        done: asyncio.Future[list[Any]] = self._loop.create_future()
        began = self._loop.time()
        self._owed.append(_Owed(len(commands), done, began))
        self._transport.write(b"".join(commands))
        timer = self._loop.call_later(timeout, self._late, done, began + timeout)
        try:
            return await done
        finally:
            timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Hand out what has come."""
        self._reader.feed(data)
        try:
            while self._owed:
                owed = self._owed[0]
                while len(owed.replies) < owed.count:
                    reply = self._reader.gets()
                    if reply is False:
                        return
                    owed.replies.append(reply)
                self._owed.popleft()
                if not owed.done.done():
                    _settle(owed)
        except RedisConnectionError as error:
            self.give_up(error)

    def give_up(self, why: Exception) -> None:
        """Close; whoever waits is told why."""
        if self.lost is None:
            self.lost = why
            if self._transport is not None:
                self._transport.abort()
        while self._owed:
            owed = self._owed.popleft()
            if not owed.done.done():
                owed.done.set_exception(why)

    def _late(self, done: asyncio.Future[list[Any]], due: float) -> None:
        """The time is up, unless it was the loop that was busy: then the replies may lie in the socket already."""
        if done.done():
            return
        if self._loop.time() - due > 0.002:
            self._loop.call_later(0.002, self._late, done, self._loop.time() + 1e9)
            return
        done.set_exception(RedisTimeoutError("Redis did not answer in time."))
        if self._owed and self._loop.time() - self._owed[0].since > STUCK_AFTER:
            self.give_up(RedisConnectionError("Redis has not answered for a while."))


def _settle(owed: _Owed) -> None:
    for reply in owed.replies:
        if isinstance(reply, Exception):
            owed.done.set_exception(reply)
            return
    owed.done.set_result(owed.replies)


async def alive(wire: Wire, timeout: float) -> bool:
    """Whether Redis answers."""
    with contextlib.suppress(RedisError):
        return bool(await wire.ask(b"PING", timeout=timeout) == b"PONG")
    return False
