"""The express counter against uvicorn's own protocol with the lane behind it: the same bytes for the same bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from bentos.answers import ModelCard
from bentos.batcher import Waiting, Waits
from bentos.errors import Refused, Unavailable
from bentos.express import REMEMBERED, Counter, Express
from bentos.intake import Item
from bentos.lane import Headers, Lane
from bentos.payments import Asked
from bentos.plain_head import read_head
from tests.unit.stand_ins import LIMITS, fields

HOST = b"host: bank\r\n"
JSON = b"content-type: application/json\r\n"


class Echo:
    """Decides in the loop's next turn, by the payment's own identifier; `held` until `let_go`."""

    limits = LIMITS

    def __init__(self, *, held: bool = False) -> None:
        self.held, self.waiting = held, list[Waits]()

    def card(self) -> ModelCard:
        raise NotImplementedError

    def offer(self, waiting: Waits) -> None:
        self.waiting.append(waiting)
        if not self.held:
            asyncio.get_running_loop().call_soon(self.let_go)

    def let_go(self) -> None:
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            name = one.asked.payment.transaction_id
            if name == "away":
                one.fail(Unavailable("decision_log", ConnectionError()))
            else:
                one.answer(b'{"decided":"%b"}' % name.encode())

    async def predict(self, asked: Asked, started: float) -> bytes:
        waiting = Waiting(asked, started, asyncio.get_running_loop())
        self.offer(waiting)
        return await waiting.done

    async def predict_batch(self, items: Sequence[Item], started: float) -> bytes:
        raise NotImplementedError


class Line(asyncio.Transport):
    """A connection that keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("10.0.0.9", 50_000), "sockname": ("10.0.0.1", 3_000)})
        self.written, self.closed, self.reading = b"", False, True

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Served:
    """One connection to a service, by the protocol given."""

    def __init__(self, protocol: type[HttpToolsProtocol], decider: Echo, keep_alive: float = 5.0) -> None:
        self.decider, self.line, self.by_asgi = decider, Line(), 0
        lane = Lane(_not_ours, lambda: decider, {}, _door)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            self.by_asgi += 1
            await lane(scope, receive, send)

        config = uvicorn.Config(app, log_config=None, server_header=False, lifespan="off")
        config.timeout_keep_alive = keep_alive  # type: ignore[assignment]
        state = ServerState()
        state.default_headers = [(b"date", b"today")]
        self.protocol = protocol(config, state, {})
        self.protocol.connection_made(self.line)

    async def send(self, *chunks: bytes) -> bytes:
        """What was written once all has been sent and the loop has come to rest."""
        for chunk in chunks:
            while not self.line.reading:
                await asyncio.sleep(0)
            if self.line.closed:
                break
            self.protocol.data_received(chunk)
        await settled()
        return self.line.written


async def settled() -> None:
    for _ in range(40):
        await asyncio.sleep(0)


async def _not_ours(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def _door(path: str, headers: Headers) -> None:
    if (b"x-api-key", b"wrong") in headers:
        raise Refused(401, "unauthorized", "Send an API key.", headers={"www-authenticate": "Bearer"})


@pytest.fixture(autouse=True)
def _leave_nothing() -> Iterator[None]:
    yield
    Express.counter = None
    Express._heads.clear()


def in_a_loop(work: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        await asyncio.wait_for(work(), 20)

    asyncio.run(within())


def express(*, held: bool = False, keep_alive: float = 5.0) -> Served:
    decider = Echo(held=held)
    Express.counter = Counter(lambda: decider, _door)
    return Served(Express, decider, keep_alive)


def body(name: str = "t1", **changes: Any) -> bytes:
    return json.dumps(fields() | {"transaction_id": name} | changes).encode()


def request(
    content: bytes | None = None, headers: bytes = HOST + JSON, line: bytes = b"POST /predict HTTP/1.1"
) -> bytes:
    content = body() if content is None else content
    return line + b"\r\n" + headers + b"content-length: %d\r\n\r\n" % len(content) + content


def chunked(content: bytes) -> bytes:
    lines = b"POST /predict HTTP/1.1\r\n" + HOST + JSON + b"transfer-encoding: chunked\r\n\r\n"
    return lines + b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)


PLAIN = {
    "a payment": request(),
    "names in capitals": request(headers=b"Host: bank\r\nContent-Type: application/json\r\n"),
    "with its character set": request(headers=HOST + b"content-type: application/json; charset=utf-8\r\n"),
    "without a content type": request(headers=HOST),
    "kept alive": request(headers=HOST + JSON + b"connection: keep-alive\r\n"),
    "space around a value": request(headers=b"host:  bank \r\n" + JSON),
    "no JSON": request(b"{"),
    "an empty body": request(b""),
    "a payment that breaks the schema": request(body(amount=-4)),
    "a log that is away": request(body("away")),
    "a wrong key": request(headers=HOST + JSON + b"x-api-key: wrong\r\n"),
    "a body too large": request(b" " * (LIMITS.max_body_bytes + 1)),
}
OTHER = {
    "a query": request(line=b"POST /predict?a=b HTTP/1.1"),
    "another method": request(line=b"PUT /predict HTTP/1.1"),
    "another path": request(line=b"POST /other HTTP/1.1"),
    "HTTP/1.0": request(line=b"POST /predict HTTP/1.0"),
    "another type": request(headers=HOST + b"content-type: text/plain\r\n"),
    "a type in capitals": request(headers=HOST + b"content-type: Application/JSON\r\n"),
    "the last request": request(headers=HOST + JSON + b"connection: close\r\n"),
    "compressed": request(headers=HOST + JSON + b"content-encoding: gzip\r\n"),
    "asks before it sends": request(headers=HOST + JSON + b"expect: 100-continue\r\n"),
    "asks for another protocol": request(headers=HOST + JSON + b"connection: upgrade\r\nupgrade: h2c\r\n"),
    "two lengths": request(headers=HOST + JSON + b"content-length: 3\r\n"),
    "two ways to tell its length": request(headers=HOST + JSON + b"transfer-encoding: chunked\r\n"),
    "a signed length": request().replace(b"content-length: ", b"content-length: +"),
    "a folded header": request(headers=HOST + JSON + b"x-a: b\r\n c\r\n"),
    "a header without a name": request(headers=HOST + JSON + b": b\r\n"),
    "a space in a name": request(headers=HOST + JSON + b"x a: b\r\n"),
    "a bare line feed": request(headers=HOST + JSON + b"x-a: b\nx-c: d\r\n"),
    "a null byte": request(headers=HOST + JSON + b"x-a: b\0\r\n"),
    "a value that is not ASCII": request(headers=HOST + JSON + "x-a: é\r\n".encode()),
    "in chunks": chunked(body()),
    "two at once": request() + request(body("t2")),
    "more than its length": request() + b"x",
    "no HTTP": b"POST /predict HTTP/1.1 or so\r\n\r\n",
}


@pytest.mark.parametrize("name", [*PLAIN, *OTHER])
def test_both_ways_write_the_same_bytes(name: str):
    sent = PLAIN.get(name) or OTHER[name]

    async def work() -> None:
        usual, quick = Served(HttpToolsProtocol, Echo()), express()
        expected = await usual.send(sent)
        assert await quick.send(sent) == expected
        assert expected
        assert quick.line.closed == usual.line.closed
        assert quick.by_asgi == (0 if name in PLAIN else usual.by_asgi)
        if not usual.line.closed and name not in ("asks for another protocol", "more than its length"):
            again = request(body("t9"))
            assert await quick.send(again) == await usual.send(again)

    in_a_loop(work)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*PLAIN, "another method", "in chunks", "a query"]), min_size=1, max_size=4), st.data())
def test_requests_cut_anywhere_are_answered_in_their_order(names: list[str], data: st.DataObject):
    sent = b"".join((PLAIN | OTHER)[name] for name in names if name != "a body too large")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=4)))
    chunks = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True) if a < b]

    async def work() -> None:
        usual = Served(HttpToolsProtocol, Echo())
        assert await express().send(*chunks) == await usual.send(*chunks)

    in_a_loop(work)


def test_what_comes_before_the_answer_waits_for_it():
    async def work() -> None:
        served = express(held=True)
        served.protocol.data_received(request())
        served.protocol.data_received(request(body("t2"))[:40])
        assert not served.line.reading
        served.decider.let_go()
        await settled()
        assert served.line.reading
        served.decider.held = False
        written = await served.send(request(body("t2"))[40:])
        assert [part[-2:] for part in written.split(b'"}')[:-1]] == [b"t1", b"t2"]

    in_a_loop(work)


def test_a_client_that_has_gone_is_not_written_to():
    async def work() -> None:
        served = express(held=True)
        served.protocol.data_received(request())
        served.line.closed = True
        served.protocol.connection_lost(None)
        served.decider.let_go()
        await settled()
        assert served.line.written == b""
        assert served.protocol not in served.protocol.connections

    in_a_loop(work)


def test_a_server_that_ends_answers_first():
    async def work() -> None:
        served = express(held=True)
        served.protocol.data_received(request())
        served.protocol.shutdown()
        assert not served.line.closed
        served.decider.let_go()
        await settled()
        assert b"connection: close\r\n" in served.line.written
        assert served.line.closed
        idle = express()
        await idle.send(request())
        idle.protocol.shutdown()
        assert idle.line.closed

    in_a_loop(work)


def test_a_silent_connection_is_closed_and_a_waiting_one_is_not():
    async def work() -> None:
        served = express(keep_alive=0.05)
        await served.send(request())
        served.decider.held = True
        served.protocol.data_received(request())
        await asyncio.sleep(0.15)
        assert not served.line.closed
        served.decider.let_go()
        while not served.line.closed:
            await asyncio.sleep(0.01)
        assert served.line.written.count(b"decided") == 2

    in_a_loop(work)


def test_a_client_that_reads_no_answers_is_left_to_the_protocol_that_waits_for_it():
    async def work() -> None:
        served = express()
        await served.send(request())
        served.protocol.pause_writing()
        served.protocol.data_received(request())
        await settled()
        assert served.by_asgi == 1
        assert served.line.written.count(b"decided") == 1
        served.protocol.resume_writing()
        await settled()
        assert served.line.written.count(b"decided") == 2

    in_a_loop(work)


def test_only_so_many_heads_are_remembered():
    async def work() -> None:
        served = express()
        for number in range(REMEMBERED + 10):
            await served.send(request(headers=HOST + JSON + b"traceparent: %d\r\n" % number))
        assert served.by_asgi == 0
        assert len(Express._heads) <= REMEMBERED

    in_a_loop(work)


def test_a_head_s_names_are_in_lower_case_as_asgi_has_them():
    head = read_head(b"Host: bank\r\nX-Api-Key: k\r\nContent-Length: 12")
    assert head is not None
    assert head.headers == [(b"host", b"bank"), (b"x-api-key", b"k"), (b"content-length", b"12")]
    assert head.length == 12
