"""The express counter: uvicorn's HTTP protocol, in which a plain `POST /predict` is read and answered without ASGI.

A request's scope, task, events and parser callbacks cost more than its decision. What is plain is defined narrowly, and
everything else goes to uvicorn's own parser, byte for byte as it came, so that no request is understood in two ways.
The answers are those of the lane: the same status, headers and body.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from bentos.gate import Decider
from bentos.intake import read_transaction
from bentos.lane import JSON, Door, Parent, refused, too_large
from bentos.payments import Asked
from bentos.plain_head import Head, read_head

PATH = "/predict"
BEGIN = b"POST /predict HTTP/1.1\r\n"
END = b"\r\n\r\n"

LONGEST_HEAD = 2_048
REMEMBERED = 1_024
"""Heads of at most `LONGEST_HEAD` bytes that are not read anew: a client sends the same ones again and again."""


class Counter(NamedTuple):
    """Who decides, who is let in, and where traces are on, which one a request belongs to."""

    decider: Callable[[], Decider]
    door: Door
    parent: Parent | None = None


class Served:
    """A payment that waits for its answer on a connection of its own; see `bentos.batcher.Waiting`."""

    __slots__ = ("_connection", "asked", "started")

    def __init__(self, connection: Express, asked: Asked, started: float) -> None:
        self._connection, self.asked, self.started = connection, asked, started

    def answer(self, body: bytes) -> None:
        """Give the answer, unless the client has gone meanwhile."""
        self._connection.write(200, {}, body)

    def fail(self, error: Exception) -> None:
        """Give the error in its place."""
        self._connection.refuse(error)


class Express(HttpToolsProtocol):
    """One connection. Express requests and uvicorn's take turns; never are two under way."""

    counter: ClassVar[Counter | None] = None
    """Set when the service has begun; until then everything is uvicorn's."""

    _heads: ClassVar[dict[bytes, Head | None]] = {}
    _prefix: ClassVar[tuple[Any, bytes]] = (None, b"")

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._under_way = False
        self._half_read = False
        self._closing = False
        self._later = b""
        self._quiet_since = 0.0

    def data_received(self, data: bytes) -> None:
        """Serve a plain payment that has come whole; give uvicorn everything else."""
        if self._under_way:
            self._later += data
            self.flow.pause_reading()
            return
        if self.counter is not None and data.startswith(BEGIN) and self._idle():
            end = data.find(END, len(BEGIN) - 2)
            head = self._head(data[len(BEGIN) : end]) if end > 0 else None
            if head is not None and len(data) == end + len(END) + head.length:
                self._serve(self.counter, head, data[end + len(END) :])
                return
        super().data_received(data)

    def _idle(self) -> bool:
        """Whether uvicorn's parser is between two requests, the last one answered, and the client reads its answers."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered and not (self._half_read or self.pipeline or self.flow.write_paused)

    @classmethod
    def _head(cls, lines: bytes) -> Head | None:
        try:
            return cls._heads[lines]
        except KeyError:
            head = read_head(lines)
            if len(lines) <= LONGEST_HEAD:
                if len(cls._heads) >= REMEMBERED:
                    cls._heads.clear()
                cls._heads[lines] = head
            return head

    def _serve(self, counter: Counter, head: Head, body: bytes) -> None:
        self._under_way = True
        started = time.perf_counter()
        try:
            decider = counter.decider()
            counter.door(PATH, head.headers)
            if head.length > decider.limits.max_body_bytes:
                raise too_large(decider.limits.max_body_bytes)
            asked = read_transaction(body)
            if counter.parent is not None:
                asked = asked._replace(parent=counter.parent(head.headers))
            decider.offer(Served(self, asked, started))
        except Exception as error:
            self.refuse(error)

    def refuse(self, error: Exception) -> None:
        """Answer with the refusal that the error amounts to."""
        given = refused(error)
        self.write(given.status, given.headers, given.body())

    def write(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Answer the request under way; what came meanwhile is taken up in the loop's next turn."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        further = b"".join(b"%b: %b\r\n" % (k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items())
        if self._closing:
            further += b"connection: close\r\n"
        begin = self._ok() if status == 200 else self._status(status)
        self.transport.write(b"%b%d\r\n%b\r\n%b" % (begin, len(body), further, body))
        if self._later:
            self.loop.call_soon(self._take_up)
        else:
            self._end()

    def _end(self) -> None:
        self._under_way = False
        if self._closing:
            self.transport.close()
        else:
            self._quiet()

    def _take_up(self) -> None:
        data, self._later = self._later, b""
        self._end()
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self.data_received(data)

    def _ok(self) -> bytes:
        """The beginning of a 200 up to its length; uvicorn makes its own headers anew each second."""
        made_of, begin = Express._prefix
        if made_of is not self.server_state.default_headers:
            begin = self._status(200)
            Express._prefix = (self.server_state.default_headers, begin)
        return begin

    def _status(self, status: int) -> bytes:
        own = b"".join(b"%b: %b\r\n" % header for header in self.server_state.default_headers)
        return b"%b%bcontent-type: %b\r\ncontent-length: " % (STATUS_LINE[status], own, JSON.encode())

    def _quiet(self) -> None:
        """Begin to count the seconds of silence; the timer looks when it fires instead of being set for each answer."""
        self._quiet_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_after(self.timeout_keep_alive)

    def _look_after(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been silent for the keep-alive time; look again later at another one."""
        left = self._quiet_since + self.timeout_keep_alive - self.loop.time()
        if self._under_way:
            self._look_after(self.timeout_keep_alive)
        elif left > 0:
            self._look_after(left)
        else:
            super().timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking after the connection; a payment under way is decided all the same."""
        self._later = b""
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close, or once the request under way is answered."""
        if self._under_way:
            self._closing = True
        else:
            super().shutdown()

    def on_message_begin(self) -> None:
        """uvicorn's parser has begun a request."""
        self._half_read = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """uvicorn's parser has a whole request. After an upgrade it reads no further ones."""
        super().on_message_complete()
        self._half_read = bool(self.parser.should_upgrade())


def install() -> None:
    """Make this the protocol of the uvicorn servers that this process starts from now on."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{Express.__name__}"
