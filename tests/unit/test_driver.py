"""The load generator against small servers in this process: what it says of them must be what they did."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from tests.load.connections import NO_ANSWER, UnreadableAnswer
from tests.load.driver import Driver, Outcome
from tests.load.serving_load import Load, Offered
from tests.load.serving_population import Population
from tests.load.serving_requests import requests
from tests.load.serving_schedule import constant, pieces, poisson

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
Reply = Callable[[bytes], list[bytes] | None]
"""From a request's body to the pieces of the answer, sent one after the other; None closes the connection."""


@contextmanager
def serving(reply: Reply) -> Iterator[int]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline():
                length = 0
                while (line := self.rfile.readline()) not in (b"\r\n", b""):
                    name, _, value = line.partition(b":")
                    length = int(value) if name == b"content-length" else length
                pieces = reply(self.rfile.read(length))
                if pieces is None:
                    return
                for piece in pieces:
                    self.wfile.write(piece)
                    self.wfile.flush()

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def sent(port: int, count: int, due: list[float] | None = None, connections: int = 4, **given: float) -> Outcome:
    made = [b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n%d" % (len(str(n)), n) for n in range(count)]
    return Driver("127.0.0.1", port, connections).run(made, due, keep_bodies=True, **given)


def test_every_request_is_sent_once_and_its_answer_is_its_own() -> None:
    seen: list[int] = []

    def reply(body: bytes) -> list[bytes]:
        seen.append(int(body))
        return [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)]

    with serving(reply) as port:
        outcome = sent(port, 200, constant(2_000, 0.1).tolist())
    assert sorted(seen) == list(range(200))
    assert outcome.bodies == [b"%d" % number for number in range(200)]
    assert set(outcome.status.tolist()) == {200}
    assert (outcome.done >= outcome.due).all()


def test_an_answer_in_pieces_is_read_whole() -> None:
    with serving(lambda _: [OK[:9], OK[9:40], OK[40:-2], OK[-2:]]) as port:
        outcome = sent(port, 20)
    assert outcome.bodies == [b"hello"] * 20


def test_a_pause_of_the_service_counts_for_all_that_were_due_in_it() -> None:
    paused = threading.Event()

    def reply(_: bytes) -> list[bytes]:
        if not paused.is_set():
            paused.set()
            time.sleep(0.3)  # the pause itself
        return [OK]

    with serving(reply) as port:
        outcome = sent(port, 100, constant(500, 0.2).tolist(), connections=1)
    waited = outcome.done - outcome.due
    assert waited[0] >= 0.3
    assert waited[50] >= 0.3 - outcome.due[50]
    assert np.median(waited) > 0.1


def test_a_lost_connection_is_an_unanswered_request_and_is_made_anew() -> None:
    with serving(lambda body: None if body == b"3" else [OK]) as port:
        outcome = sent(port, 10, constant(100, 0.1).tolist(), connections=1)
    assert np.flatnonzero(outcome.status == NO_ANSWER).tolist() == [3]
    assert np.isnan(outcome.done[3])


def test_what_is_never_answered_ends_with_the_patience() -> None:
    held = threading.Event()
    try:
        with serving(lambda _: [OK] if held.wait(10) else None) as port:
            outcome = sent(port, 2, [0.0, 0.01], patience=0.1)
            held.set()
    finally:
        held.set()
    assert outcome.status.tolist() == [NO_ANSWER, NO_ANSWER]


def test_a_closed_loop_ends_after_its_seconds() -> None:
    with serving(lambda _: [OK]) as port:
        outcome = sent(port, 100_000, seconds=0.2)
    assert 0 < len(outcome.due) < 100_000
    assert set(outcome.status.tolist()) == {200}


def test_an_answer_without_a_length_is_named() -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    with serving(lambda _: [chunked]) as port, pytest.raises(UnreadableAnswer, match="content-length"):
        sent(port, 1)


def test_percentiles_count_what_was_not_answered() -> None:
    done = np.array([0.1, np.nan, np.nan, 3.1])
    offered = Offered(
        Load("h", 1, shape=((1.0, 4.0),)), np.arange(4.0), done, np.array([200, 0, 0, 503]), 0.0, 0.4, 8.0
    )
    figures = offered.figures()
    assert (figures["rps"], figures["offered_rps"], figures["errors"]) == (0.2, 1.0, 3)
    assert figures["statuses"] == {"none": 2, "200": 1, "503": 1}
    assert figures["max_ms"] == 7_000.0
    assert [line["errors"] for line in offered.timeline()] == [0, 1, 1, 1]


def test_a_schedule_has_its_rate_and_is_the_same_again() -> None:
    due = pieces(((100.0, 10.0), (1_000.0, 10.0)), seed=3)
    assert (np.diff(due) >= 0).all()
    assert 800 < (due < 10).sum() < 1_200
    assert 9_000 < (due >= 10).sum() < 11_000
    assert np.array_equal(due, pieces(((100.0, 10.0), (1_000.0, 10.0)), seed=3))
    assert len(constant(50, 2)) == 100
    assert poisson(10.0, 1.0, 1).max() < 1.0


def test_requests_name_their_length_and_no_two_one_payment() -> None:
    made = requests("single", constant(10, 1), Population(cards=5, merchants=3), host="h", seed=1)
    heads, bodies = zip(*(one.split(b"\r\n\r\n") for one in made), strict=True)
    assert all(head.endswith(b"content-length: %d" % len(body)) for head, body in zip(heads, bodies, strict=True))
    assert len({body.split(b'"')[3] for body in bodies}) == 10
