"""Keep-alive HTTP/1.1 connections to one address: non-blocking, one request under way on each.

Invariant: a request is answered, or its connection is lost and made anew; which of both is told by `status`.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence

NO_ANSWER = 0
"""Status of a request whose connection was lost, or that was not answered in time."""

HEAD_END = b"\r\n\r\n"
RECEIVE = 1 << 18
RETRY = 0.02
"""Seconds between two tries to connect anew."""

KNOWN_HEADS = 4_096


class UnreadableAnswer(ValueError):
    """The peer's answer is none that this reader takes: it needs a status line and a content-length."""


APART = 0.003
"""Seconds between two connections at the start: processes that share a listening socket take what they find, so those
made at once would all be one worker's."""


class Connections:
    """`idle` names those that are free; `status` and `done` (`perf_counter`, NaN before) stand for each request."""

    def __init__(self, host: str, port: int, count: int) -> None:
        self._address = (host, port)
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._partial: dict[int, bytes] = {}
        self._heads: dict[bytes, tuple[int, int]] = {}
        self._retry_at = 0.0
        self.lost = 0
        self.flying: dict[int, int] = {}
        self.idle: list[int] = []
        self.carry((), keep_bodies=False)
        for _ in range(count):
            self._connect()
            time.sleep(APART)

    def carry(self, requests: Sequence[bytes], *, keep_bodies: bool) -> None:
        """These are the requests from now on."""
        self._requests, count = requests, len(requests)
        self.status, self.done = [NO_ANSWER] * count, [float("nan")] * count
        self.bodies = [b""] * count if keep_bodies else None

    def send(self, number: int, which: int) -> None:
        """Send a request over an idle connection."""
        request = self._requests[which]
        self.flying[number] = which
        try:
            sent = self._sockets[number].send(request)
        except ConnectionError:
            self._lose(number)
            return
        if sent != len(request):
            raise ValueError(f"A request of {len(request):,} bytes is more than a socket takes at once ({sent:,}).")

    def receive(self, wait: float) -> None:
        """Take what has come; first wait until something does, or for `wait` seconds."""
        if wait > 0:  # epoll's own clock has milliseconds, which would be the latency of an idle service
            select.select([self._poll], (), (), wait)
        clock, flying, heads, done = time.perf_counter, self.flying, self._heads, self.done
        for number, _ in self._poll.poll(0):
            try:
                data = self._sockets[number].recv(RECEIVE)
            except ConnectionError:
                data = b""
            if not data:
                self._lose(number)
                continue
            if number in self._partial:
                data = self._partial.pop(number) + data
            end = data.find(HEAD_END)
            head = data[:end]
            status, length = heads.get(head) or self._head(head, end)
            if end < 0 or len(data) < end + 4 + length:
                self._partial[number] = data
                continue
            which = flying.pop(number)
            done[which] = clock()
            self.status[which] = status
            if self.bodies is not None:
                self.bodies[which] = data[end + 4 :]
            self.idle.append(number)
        if self.lost and clock() >= self._retry_at:
            self._reconnect()

    def close(self) -> None:
        """Close what is open; may be called twice."""
        for each in self._sockets.values():
            each.close()
        self._sockets.clear()
        self._poll.close()

    def _head(self, head: bytes, end: int) -> tuple[int, int]:
        """Status and length of the body; kept, for the same head comes again for a second."""
        if end < 0:
            return NO_ANSWER, 0
        lines = head.lower().split(b"\r\n")
        lengths = [line[15:] for line in lines if line.startswith(b"content-length:")]
        if not lines[0].startswith(b"http/1.1 ") or not lengths:
            raise UnreadableAnswer(f"An answer began with {head[:200]!r}; it needs HTTP/1.1 and a content-length.")
        if len(self._heads) > KNOWN_HEADS:
            self._heads.clear()
        self._heads[head] = found = int(lines[0][9:12]), int(lengths[0])
        return found

    def _lose(self, number: int) -> None:
        """A connection has ended: what it carried stays unanswered."""
        self._poll.unregister(number)
        self._sockets.pop(number).close()
        self._partial.pop(number, None)
        if self.flying.pop(number, None) is None and number in self.idle:
            self.idle.remove(number)
        self.lost += 1
        self._retry_at = min(self._retry_at, time.perf_counter())

    def _reconnect(self) -> None:
        try:
            while self.lost:
                self._connect()
                self.lost -= 1
        except OSError:
            self._retry_at = time.perf_counter() + RETRY

    def _connect(self) -> None:
        opened = socket.create_connection(self._address, timeout=1.0)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setblocking(False)
        self._sockets[opened.fileno()] = opened
        self._poll.register(opened.fileno(), select.EPOLLIN)
        self.idle.append(opened.fileno())
