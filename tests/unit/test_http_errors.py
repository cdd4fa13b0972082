"""The lane over ASGI, with stand-ins behind the gate: every way a request can be wrong, and what is said of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import redis

from bentos.answers import Answer
from bentos.errors import Refused
from bentos.lane import Headers, Lane
from bentos.lineup import Lineup
from tests.unit.stand_ins import LIMITS, NOW, Log, Online, Reader, fallback, fields, gate, model

JSON_HEADERS = {"content-type": "application/json"}


class Reply:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def error(self) -> dict[str, Any]:
        """The error; fails unless the body is valid JSON of the one shape."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is no JSON")

        document = json.loads(self.body, parse_constant=refuse)
        assert set(document) == {"error"}
        assert set(document["error"]) == {"code", "message", "problems"}
        assert all(set(problem) == {"field", "value", "rule"} for problem in document["error"]["problems"])
        assert len(self.body) < 2_000, "a refusal quotes what was sent only in part"
        return document["error"]

    @property
    def problems(self) -> dict[str, Any]:
        return {problem["field"]: problem["value"] for problem in self.error["problems"]}


async def passed_on(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b"BentoML"})


async def model_card(rest: str) -> bytes:
    assert rest == ""
    return b'{"version":"7"}'


async def decision(rest: str) -> bytes:
    if rest == "unknown":
        raise Refused(404, "unknown_decision", "No decision on 'unknown' is on record.")
    return json.dumps({"rest": rest}).encode()


def open_door(path: str, headers: Headers) -> None:
    """Everybody may pass."""


def ask(
    body: bytes | list[bytes] = b"",
    path: str = "/predict",
    method: str = "POST",
    headers: dict[str, str] | None = None,
    behind: Any = None,
    *,
    hang_up: bool = False,
    door: Any = open_door,
) -> Reply | None:
    """One request through the lane; a list is a body in chunks without a declared length. None: nothing was said."""
    chunks = body if isinstance(body, list) else [body]
    given = dict(JSON_HEADERS if headers is None else headers)
    if not isinstance(body, list):
        given.setdefault("content-length", str(len(body)))
    encoded = [(name.encode(), value.encode()) for name, value in given.items()]
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": c, "more_body": True} for c in chunks]
    messages.append({"type": "http.disconnect"} if hang_up else {"type": "http.request", "body": b""})
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    opened = behind or gate()
    lane = Lane(passed_on, lambda: opened, {"/model": model_card, "/decisions/": decision}, door)
    scope = {"type": "http", "method": method, "path": path, "headers": encoded}
    asyncio.run(lane(scope, receive, send))
    if not sent:
        return None
    start, content = sent
    return Reply(start["status"], {n.decode(): v.decode() for n, v in start["headers"]}, content["body"])


def predict(raw: bytes | None = None, **changed: Any) -> Reply:
    reply = ask(raw if raw is not None else json.dumps(fields(**changed)).encode())
    assert reply is not None
    return reply


def test_a_valid_payment_is_answered():
    reply = predict()
    assert reply.status == 200
    assert reply.headers == {"content-type": "application/json", "content-length": str(len(reply.body))}
    assert Answer.model_validate_json(reply.body).model_dump_json().encode() == reply.body
    assert json.loads(reply.body)["transaction_id"] == "t1"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"not json", b'{"amount": 1,}', b"\xff\xfe", b'{"a": "\\ud800"}', b"[" * 1_000, b'{} {"a": 1}'],
    ids=["empty", "open", "text", "comma", "no utf-8", "lone surrogate", "deep", "two documents"],
)
@pytest.mark.parametrize("path", ["/predict", "/predict_batch"])
def test_malformed_json_is_400(body: bytes, path: str):
    reply = ask(body, path)
    assert (reply.status, reply.error["code"]) == (400, "malformed_json")


@pytest.mark.parametrize(
    ("field", "value", "quoted"),
    [
        ("amount", -4, -4),
        ("amount", 0, 0),
        ("amount", -0.0, 0),
        ("amount", 10_000_000.01, 10_000_000.01),
        ("amount", 10**300, "1" + "0" * 76 + "..."),
        ("amount", "12.5", "12.5"),
        ("amount", True, True),
        ("amount", None, None),
        ("amount", [1, 2], "[1, 2]"),
        ("amount", {"value": 1}, "{'value': 1}"),
        ("timestamp", "2026-03-01T11:59:00", "2026-03-01T11:59:00"),
        ("timestamp", "yesterday", "yesterday"),
        ("timestamp", 1_772_366_340, 1_772_366_340),
        ("timestamp", "1999-12-31T23:59:59Z", "1999-12-31T23:59:59Z"),
        ("timestamp", "2026-02-30T00:00:00Z", "2026-02-30T00:00:00Z"),
        ("card_id", 17, 17),
        ("card_id", "", ""),
        ("card_id", "c" * 65, "c" * 65),
        ("card_id", "c\n1", "c\n1"),
        ("transaction_id", "x" * 500, "x" * 77 + "..."),
        ("merchant_id", None, None),
        ("channel", "carrier pigeon", "carrier pigeon"),
        ("country", "gb", "gb"),
        ("currency", "euro", "euro"),
        ("merchant_category", "", ""),
    ],
)
def test_a_broken_rule_is_422_and_names_field_and_value(field: str, value: Any, quoted: Any):
    reply = predict(**{field: value})
    assert (reply.status, reply.error["code"]) == (422, "invalid_transaction")
    assert reply.problems == {field: quoted}
    assert field in reply.error["message"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_an_amount_that_is_no_finite_number_is_422(number: str):
    reply = predict(json.dumps(fields(amount=0)).replace('"amount": 0', f'"amount": {number}').encode())
    assert reply.status == 422
    assert list(reply.problems) == ["amount"]
    assert isinstance(reply.problems["amount"], str)


def test_missing_and_extra_fields_are_all_named_at_once():
    reply = predict(json.dumps({"transaction_id": "t1", "amount": 1, "colour": "red", "k" * 900: 1}).encode())
    assert reply.status == 422
    assert reply.problems == {
        "timestamp": None,
        "card_id": None,
        "merchant_id": None,
        "colour": "red",
        "k" * 77 + "...": 1,
    }


@pytest.mark.parametrize("body", [b"[]", b'"t1"', b"null", b"7", b"NaN"])
def test_json_that_is_no_object_is_422(body: bytes):
    assert predict(body).status == 422


@pytest.mark.parametrize("at", ["2026-03-01T12:05:00.000001Z", "2099-01-01T00:00:00Z", "2026-02-22T11:59:59Z"])
def test_a_payment_from_the_future_or_from_long_ago_is_422(at: str):
    reply = predict(timestamp=at)
    assert reply.status == 422
    assert list(reply.problems) == ["timestamp"]


def test_payments_of_any_age_are_taken_where_the_limit_is_off():
    from dataclasses import replace

    reply = ask(
        json.dumps(fields(timestamp="2001-01-01T00:00:00Z")).encode(),
        behind=gate(limits=replace(LIMITS, max_age=None)),
    )
    assert reply.status == 200


@pytest.mark.parametrize("changed", [{"card_id": "never seen"}, {"merchant_category": "space tourism"}])
def test_unknown_cards_and_categories_are_decided(changed: dict[str, str]):
    assert predict(**changed).status == 200


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 200),
        ("", 200),
        ("application/json", 200),
        ("Application/JSON; charset=UTF-8", 200),
        ('application/json; charset="utf-8"', 200),
        ("application/json; charset=utf-16", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/vnd.bentoml+pickle", 415),
    ],
)
def test_only_json_is_taken(content_type: str | None, status: int):
    headers = {} if content_type is None else {"content-type": content_type}
    reply = ask(json.dumps(fields()).encode(), headers=headers)
    assert reply.status == status
    if status == 415:
        assert reply.error["code"] == "unsupported_media_type"
        assert reply.problems == {"content-type": content_type}


def test_a_packed_body_is_415():
    assert ask(b"\x1f\x8b", headers={**JSON_HEADERS, "content-encoding": "gzip"}).status == 415


@pytest.mark.parametrize("path", ["/predict", "/predict_batch"])
def test_a_large_body_is_413_by_its_declared_length_and_not_read(path: str):
    reply = ask([], path, headers={**JSON_HEADERS, "content-length": "2001"}, hang_up=True)
    assert (reply.status, reply.error["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("declared", [{}, {"content-length": "10"}])
def test_a_large_body_is_413_by_what_arrives(declared: dict[str, str]):
    reply = ask([b" " * 1_000] * 3, headers={**JSON_HEADERS, **declared})
    assert (reply.status, reply.error["code"]) == (413, "body_too_large")


def test_a_body_of_just_the_limit_in_chunks_is_taken():
    raw = json.dumps(fields()).encode().ljust(LIMITS.max_body_bytes)
    assert ask([raw[:700], raw[700:]]).status == 200


def test_a_client_that_hangs_up_is_not_answered():
    assert ask([b"{"], hang_up=True) is None


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_another_method_is_405_with_allow(method: str):
    reply = ask(method=method)
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert reply.body == b"" if method == "HEAD" else reply.error["code"] == "method_not_allowed"


def test_the_model_is_read_by_get_alone():
    assert ask(path="/model", method="GET").body == b'{"version":"7"}'
    assert ask(path="/model", method="HEAD").body == b""
    assert ask(path="/model", method="POST").headers["allow"] == "GET, HEAD"


def test_a_resource_is_given_the_rest_of_its_path():
    assert json.loads(ask(path="/decisions/a/b c", method="GET").body) == {"rest": "a/b c"}
    assert ask(path="/decisions/t1", method="DELETE").headers["allow"] == "GET, HEAD"
    reply = ask(path="/decisions/unknown", method="GET")
    assert (reply.status, reply.error["code"]) == (404, "unknown_decision")


def test_other_paths_are_bentomls():
    for path in ("/readyz", "/predict/", "/decisions", "/decisions/", "/model/7"):
        assert ask(path=path, method="GET").body == b"BentoML"


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/predict", "POST"),
        ("/predict_batch", "POST"),
        ("/model", "GET"),
        ("/decisions/t1", "GET"),
        ("/metrics", "GET"),
    ],
)
def test_nobody_passes_a_closed_door_on_any_path(path: str, method: str):
    asked: list[Any] = []

    def closed(path: str, headers: Headers) -> None:
        asked.append((path, dict(headers)[b"x-api-key"]))
        raise Refused(401, "no_key", "A key is needed.", headers={"www-authenticate": "Bearer"})

    log = Log()
    headers = {**JSON_HEADERS, "x-api-key": "guess"}
    reply = ask(json.dumps(fields()).encode(), path, method, headers, gate(log=log), door=closed)
    assert (reply.status, reply.error["code"], reply.headers["www-authenticate"]) == (401, "no_key", "Bearer")
    assert asked == [(path, b"guess")]
    assert log.kept == []


@pytest.mark.parametrize(
    ("behind", "code"),
    [
        (gate(Online(away=True)), "feature_store_unavailable"),
        (gate(log=Log(redis.ConnectionError("secret host"))), "decision_log_unavailable"),
    ],
    ids=["features", "log"],
)
def test_a_store_that_does_not_answer_is_503_with_retry_after_and_within_a_batch_an_error_each(behind: Any, code: str):
    reply = ask(json.dumps(fields()).encode(), behind=behind)
    assert (reply.status, reply.error["code"]) == (503, code)
    assert int(reply.headers["retry-after"]) >= 1
    assert "secret host" not in reply.error["message"]
    items = [fields(transaction_id=name) for name in "ab"]
    reply = ask(json.dumps({"transactions": items}).encode(), "/predict_batch", behind=behind)
    results = json.loads(reply.body)["results"]
    assert [(one["transaction_id"], one["error"]["code"]) for one in results] == [("a", code), ("b", code)]
    assert b"secret host" not in reply.body


@pytest.mark.parametrize("path", ["/predict", "/predict_batch"])
def test_a_payment_without_features_is_answered_by_the_fallback(path: str):
    behind = gate(Online(away=True), lineup=Lineup(model(), fallback=fallback()))
    body = fields() if path == "/predict" else {"transactions": [fields()]}
    reply = ask(json.dumps(body).encode(), path, behind=behind)
    assert reply.status == 200
    told = json.loads(reply.body)
    one = told if path == "/predict" else told["results"][0]
    assert (one["model_role"], one["degraded"], one["degraded_cause"]) == ("fallback", True, "features_unavailable")


@pytest.mark.parametrize("path", ["/predict", "/predict_batch"])
def test_a_payment_sent_again_is_answered_alike_and_another_under_its_identifier_is_409(path: str):
    def send(behind: Any, **changed: Any) -> Reply:
        body = fields(**changed) if path == "/predict" else {"transactions": [fields(**changed)]}
        return ask(json.dumps(body).encode(), path, behind=behind)

    log = Log()
    first, again, other = (send(gate(log=log)), send(gate(log=log)), send(gate(log=log), amount=43))
    assert (first.status, again.status, again.body) == (200, 200, first.body)
    assert len(log.kept) == 1
    if path == "/predict":
        assert (other.status, other.problems) == (409, {"transaction_id": "t1"})
        error = other.error
    else:
        (place,) = json.loads(other.body)["results"]
        assert (other.status, place["transaction_id"]) == (200, "t1")
        error = place["error"]
    assert error["code"] == "already_decided"


def test_an_unexpected_error_is_500_counted_and_tells_nothing():
    from prometheus_client import REGISTRY

    def counted() -> float:
        return REGISTRY.get_sample_value("model_errors_total", {"error_type": "internal"}) or 0.0

    before = counted()
    reply = ask(json.dumps(fields()).encode(), behind=gate(Reader(RuntimeError("secret"))))
    assert (reply.status, reply.error["code"]) == (500, "internal")
    assert b"secret" not in reply.body
    assert counted() == before + 1


def test_one_bad_item_does_not_fail_the_others():
    items = [fields(transaction_id="a"), fields(transaction_id="bad", amount=-1), "nothing"]
    reply = ask(json.dumps({"transactions": items}).encode(), "/predict_batch")
    first, second, third = json.loads(reply.body)["results"]
    assert reply.status == 200
    assert (first["transaction_id"], first["decision"]) == ("a", "approve")
    assert (second["transaction_id"], second["error"]["code"]) == ("bad", "invalid_transaction")
    assert second["error"]["problems"] == [{"field": "amount", "value": -1, "rule": "Input should be greater than 0"}]
    assert (third["transaction_id"], third["error"]["problems"][0]["value"]) == (None, "nothing")


def test_one_payment_is_answered_alike_alone_and_in_a_batch():
    alone = json.loads(predict().body)
    (within,) = json.loads(ask(json.dumps({"transactions": [fields()]}).encode(), "/predict_batch").body)["results"]
    assert alone | {"latency_ms": 0} == within | {"latency_ms": 0}
    assert alone["timestamp"] == NOW.isoformat().replace("+00:00", "Z")


def test_a_batch_over_the_limit_is_413():
    reply = ask(json.dumps({"transactions": [1] * 4}).encode(), "/predict_batch")
    assert (reply.status, reply.error["code"]) == (413, "batch_too_large")


@pytest.mark.parametrize(
    "body", [{}, [], None, {"transactions": {}}, {"transactions": None}, {"transactions": [], "more": 1}]
)
def test_another_shape_of_batch_is_422(body: Any):
    reply = ask(json.dumps(body).encode(), "/predict_batch")
    assert (reply.status, reply.error["code"]) == (422, "invalid_batch")


def test_an_unusable_id_is_not_repeated():
    items = [{"transaction_id": 7}, {"transaction_id": "x" * 100}]
    reply = ask(json.dumps({"transactions": items}).encode(), "/predict_batch")
    assert [one["transaction_id"] for one in json.loads(reply.body)["results"]] == [None, None]
