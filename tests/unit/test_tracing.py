"""What is traced, how a trace goes from one part to the next, and how a span is written for a collector."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from monitoring.decision_log import FIELDS, decode, encode
from monitoring.decision_message import Message, logged, pack
from monitoring.otlp import document
from monitoring.tracing import Traces, traceparent
from stream_jobs.decisions import _headers

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
VALUES = encode(b"{}", np.zeros(2, np.float32), b'{"a":1}', "fraud_v2")


@pytest.fixture
def traces() -> Iterator[Traces]:
    made = Traces("test", "http://127.0.0.1:9", 0.0)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("parent", "share", "wanted"),
    [
        (PARENT, 0.0, True),
        (PARENT[:-2] + b"00", 1.0, False),
        (PARENT[:-2] + b"03", 0.0, True),
        (b"", 0.0, False),
        (b"", 1.0, True),
        (b"00-short-01", 1.0, True),
        (PARENT + b"-more", 0.0, False),
    ],
)
def test_a_sender_decides_what_is_traced_and_where_none_does_a_share_is(
    traces: Traces, parent: bytes, share: float, wanted: bool
):
    traces._share = share
    assert traces.wanted(parent) is wanted


def test_a_span_is_below_the_one_it_was_told_of_and_names_itself_to_the_next(traces: Traces):
    first = traces.begin("a", "server", 1_000, PARENT)
    second = traces.begin("b", "consumer", 2_000, traceparent(first), {"n": 3, "ok": True, "x": 0.5, "s": "text"})
    second.end(3_000)
    first.end(4_000)
    told: Any = document([first, second])  # type: ignore[list-item]
    [of] = told["resourceSpans"]
    assert {"key": "service.name", "value": {"stringValue": "tollgate-test"}} in of["resource"]["attributes"]
    one, other = of["scopeSpans"][0]["spans"]
    assert one["traceId"] == other["traceId"] == "0af7651916cd43dd8448eb211c80319c"
    assert (one["parentSpanId"], other["parentSpanId"]) == ("b7ad6b7169203331", one["spanId"])
    assert (one["kind"], other["kind"]) == (2, 5)
    assert (other["startTimeUnixNano"], other["endTimeUnixNano"]) == ("2000", "3000")
    assert other["attributes"] == [
        {"key": "n", "value": {"intValue": "3"}},
        {"key": "ok", "value": {"boolValue": True}},
        {"key": "x", "value": {"doubleValue": 0.5}},
        {"key": "s", "value": {"stringValue": "text"}},
    ]
    msgspec.json.encode(told)


@pytest.mark.parametrize("parent", [b"", b"nonsense", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"])
def test_without_a_parent_that_can_be_read_a_trace_begins(traces: Traces, parent: bytes):
    span: Any = traces.begin("a", "internal", 1_000, parent)
    span.end(2_000)
    assert span.parent is None
    assert traceparent(span) != parent


def test_an_entry_carries_its_trace_and_one_of_before_has_none():
    fields = dict(zip(FIELDS, VALUES, strict=True))
    assert decode("1-0", fields).trace == b""
    assert decode("1-0", fields | {b"trace": PARENT}).trace == PARENT


def test_a_message_carries_its_trace_and_one_of_before_has_none():
    request, vector, answer, service = VALUES
    now = pack(Message(request, vector, answer, service.decode(), PARENT.decode()))
    before = msgspec.msgpack.encode([request, vector, answer, service.decode()])
    assert (logged("1", now).trace, logged("1", before).trace) == (PARENT, b"")
    assert logged("1", before).answer == answer


def test_a_prediction_names_its_trace_to_whoever_consumes_it():
    assert _headers(decode("1-0", dict(zip(FIELDS, VALUES, strict=True)) | {b"trace": PARENT})) == [
        ("traceparent", PARENT)
    ]
    assert _headers(decode("1-0", dict(zip(FIELDS, VALUES, strict=True)))) == []
