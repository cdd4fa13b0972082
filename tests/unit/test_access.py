"""Keys, scopes, rates, origins and what a log may say: all pure, with clocks in the test's hand."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bentos import keys as command
from bentos.access import Access, Scope, scope_of
from bentos.cors import Cors, CrossOrigin, InvalidOrigin
from bentos.errors import Refused
from bentos.key_file import ApiKey, InvalidKeys, Rate, changing, new_key, read_keys
from bentos.key_watch import Exposed, KeyWatch, check_exposure, listening_host, open_access
from feature_repo.settings import Settings
from monitoring.metrics import metrics

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Clock:
    """Seconds in the test's hand; calling it reads it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


def made(name: str = "shop-1", *scopes: str, rate: Rate | None = None, days: float | None = None) -> tuple[str, ApiKey]:
    expires = None if days is None else NOW + timedelta(days=days)
    return new_key(name, scopes or ("score",), rate, expires, [])


def access(*entries: ApiKey, workers: int = 1) -> tuple[Access, Clock]:
    ticks = Clock(0.0)
    return Access(entries, workers, Clock(NOW.timestamp()), ticks), ticks


def with_key(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"here"), (b"x-api-key", key.encode()), (b"content-type", b"application/json")]


def refusal(work: Callable[[], Any]) -> Refused:
    with pytest.raises(Refused) as caught:
        work()
    return caught.value


def counted(reason: str) -> float:
    return metrics.requests_refused.labels(reason=reason)._value.get()


def test_without_keys_nobody_is_asked():
    asked = Access(None)
    assert asked.require([], "admin") is None
    asked.charge(None, 1_000)


@pytest.mark.parametrize("header", ["x-api-key", "Bearer", "bearer", "BEARER"])
def test_a_key_is_taken_from_either_header(header: str):
    key, entry = made()
    value = key if header == "x-api-key" else f"{header} {key}"
    name = b"x-api-key" if header == "x-api-key" else b"authorization"
    caller = access(entry)[0].require([(name, value.encode())], "score")
    assert caller is not None
    assert caller.id == "shop-1"


def test_a_request_without_a_key_is_told_where_to_put_one():
    asked, _ = access(made()[1])
    before = counted("no_key")
    refused = refusal(lambda: asked.require([(b"authorization", b"Basic c2hvcDox")], "score"))
    assert (refused.status, refused.detail.code) == (401, "unauthorized")
    assert refused.headers == {"www-authenticate": 'Bearer realm="tollgate"'}
    assert "x-api-key" in refused.detail.message
    assert counted("no_key") == before + 1


def wrong(key: str) -> Iterable[str]:
    yield from ("", "x", "tollgate_", "tollgate_shop-1_", "tollgate_nobody_" + "A" * 43, "tollgate__")
    yield from (
        key[:-1],
        key + "A",
        key.upper(),
        key.replace("shop-1", "shop-2"),
        "\xff" + key,
        key.replace("_", "", 1),
    )


def test_a_key_that_is_not_known_is_refused_and_never_quoted():
    key, entry = made()
    asked, _ = access(entry, made("shop-2")[1])
    for given in wrong(key):
        refused = refusal(lambda given=given: asked.require([(b"x-api-key", given.encode("latin-1"))], "score"))
        assert (refused.status, refused.detail.code) == (401, "unauthorized")
        assert 'error="invalid_token"' in refused.headers["www-authenticate"]
        assert b"tollgate_" not in refused.body()
        assert b"shop" not in refused.body()


def test_a_key_expires_at_its_instant():
    key, entry = made(days=1)
    wall = Clock(NOW.timestamp() + 86_400 - 0.001)
    asked = Access([entry], 1, wall, Clock(0.0))
    assert asked.require(with_key(key), "score") is not None
    wall.seconds += 0.001
    refused = refusal(lambda: asked.require(with_key(key), "score"))
    assert (refused.status, refused.detail.message.split(".")[0]) == (401, "API key 'shop-1' has expired")


@pytest.mark.parametrize("scope", ["score", "feedback", "admin"])
def test_a_scope_opens_itself_and_admin_opens_all(scope: Scope):
    for held in ("score", "feedback", "admin"):
        key, entry = made("one", held)
        asked, _ = access(entry)
        if held in (scope, "admin"):
            assert asked.require(with_key(key), scope) is not None
        else:
            refused = refusal(lambda asked=asked, key=key: asked.require(with_key(key), scope))
            assert refused.status == 403
            assert f'scope="{scope}"' in refused.headers["www-authenticate"]


def test_a_path_nobody_thought_of_asks_for_the_widest_scope():
    assert scope_of("/predict") == scope_of("/predict_batch") == scope_of("/model") == "score"
    assert scope_of("/decisions/t1") == scope_of("/decisions/t1/explanation") == "score"
    assert scope_of("/feedback") == "feedback"
    assert {scope_of(path) for path in ("/livez", "/readyz", "/metrics", "/docs.json", "/")} == {None}
    assert {scope_of(path) for path in ("/predict\n", "/predict/", "//predict", "/readyz\n", "/model/swap")} == {
        "admin"
    }


def test_a_key_has_its_burst_and_then_its_rate():
    key, entry = made(rate=Rate(10, 3))
    asked, ticks = access(entry)
    headers = with_key(key)
    for _ in range(3):
        asked.require(headers, "score")
    refused = refusal(lambda: asked.require(headers, "score"))
    assert (refused.status, refused.detail.code, refused.headers) == (429, "rate_limited", {"retry-after": "1"})
    ticks.seconds += 0.1
    asked.require(headers, "score")
    refusal(lambda: asked.require(headers, "score"))
    ticks.seconds += 3_600
    for _ in range(3):
        asked.require(headers, "score")
    refusal(lambda: asked.require(headers, "score"))


def test_a_batch_is_charged_for_each_of_its_payments_however_large():
    key, entry = made(rate=Rate(100, 50))
    asked, ticks = access(entry)
    caller = asked.require(with_key(key), "score")
    asked.charge(caller, 999)
    refused = refusal(lambda: asked.require(with_key(key), "score"))
    assert refused.headers == {"retry-after": "10"}
    refusal(lambda: asked.charge(caller, 1))
    ticks.seconds += 9.4
    refusal(lambda: asked.require(with_key(key), "score"))
    ticks.seconds += 0.2
    asked.require(with_key(key), "score")


def test_one_keys_use_leaves_anothers_alone():
    (first, one), (second, two) = made("one", rate=Rate(1, 1)), made("two", rate=Rate(1, 1))
    asked, _ = access(one, two)
    asked.require(with_key(first), "score")
    refusal(lambda: asked.require(with_key(first), "score"))
    asked.require(with_key(second), "score")


def test_workers_share_a_rate():
    key, entry = made(rate=Rate(10, 4))
    asked, _ = access(entry, workers=2)
    for _ in range(2):
        asked.require(with_key(key), "score")
    refusal(lambda: asked.require(with_key(key), "score"))


def test_other_keys_come_in_force_at_once_and_a_used_up_rate_stays_used_up():
    (old, gone), (new, come), (kept, stays) = made("old"), made("new"), made("kept", rate=Rate(1, 1))
    asked, _ = access(gone, stays)
    asked.require(with_key(old), "score")
    asked.require(with_key(kept), "score")
    asked.replace([come, stays])
    assert refusal(lambda: asked.require(with_key(old), "score")).status == 401
    assert refusal(lambda: asked.require(with_key(kept), "score")).status == 429
    assert asked.require(with_key(new), "score") is not None


def test_the_file_keeps_hashes_and_reads_back_what_was_written(tmp_path: Path):
    path = tmp_path / "deep" / "keys.json"
    key, entry = made("shop-1", "score", "feedback", rate=Rate(500, 1_000), days=90)
    with changing(path) as held:
        held.append(entry)
    assert read_keys(path) == [entry]
    assert key.rsplit("_", 1)[1] not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["keys.json"]


def test_a_change_that_fails_changes_nothing(tmp_path: Path):
    path = tmp_path / "keys.json"
    with changing(path) as held:
        held.append(made()[1])
    before = path.read_bytes()
    with pytest.raises(InvalidKeys, match="there: shop-1"):
        command._revoke(path, "nobody")
    assert path.read_bytes() == before


ZEROS, ONES = "0" * 64, "1" * 64
NAIVE = {"expires": "2026-01-01T00:00:00"}


def document(*hashes: str, **more: Any) -> str:
    """The text of a file with a key for each hash, all of one id."""
    return json.dumps({"keys": [{"id": "a", "sha256": each, "scopes": ["score"], **more} for each in hashes]})


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("", "truncated"),
        (document(ZEROS)[:-2], "truncated"),
        ("[]", "Expected `object`"),
        (document("0" * 63), "regex.*sha256"),
        (document(ZEROS, scope="score"), "unknown field `scope`"),
        (document(ZEROS, **NAIVE), "timezone"),
        (document(ZEROS, rate={"per_second": 0, "burst": 1}), "> 0"),
        (document(ZEROS, ONES), "'a' occurs twice"),
    ],
)
def test_a_broken_file_is_refused_by_its_rule(tmp_path: Path, content: str, rule: str):
    path = tmp_path / "keys.json"
    path.write_text(content)
    with pytest.raises(InvalidKeys, match=rule):
        read_keys(path)


def test_a_file_that_anyone_may_write_to_is_refused(tmp_path: Path):
    path = tmp_path / "keys.json"
    path.write_text('{"keys": []}')
    path.chmod(0o666)
    with pytest.raises(InvalidKeys, match="chmod o-w"):
        read_keys(path)


def test_a_changed_file_is_taken_up_and_a_broken_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(logging.getLogger("bentoml.service.tollgate"), "propagate", True)
    path = tmp_path / "keys.json"
    (old, first), (new, second) = made("old"), made("new")
    with changing(path) as held:
        held.append(first)
    asked, watch = open_access(Settings(api_keys=path), 1)
    assert watch is not None
    watch.close()  # the test looks when it wants to
    with changing(path) as held:
        held[:] = [second]
    watch.look()
    assert refusal(lambda: asked.require(with_key(old), "score")).status == 401
    for broken in ("{", None):
        path.unlink() if broken is None else path.write_text(broken)
        caplog.clear()
        watch.look()
        watch.look()
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert asked.require(with_key(new), "score") is not None
    with changing(path) as held:
        pass
    watch.look()
    assert refusal(lambda: asked.require(with_key(new), "score")).status == 401


def test_the_thread_looks_by_itself(tmp_path: Path):
    path = tmp_path / "keys.json"
    path.write_text('{"keys": []}')
    taken_up = threading.Event()

    class Told(Access):
        def replace(self, keys: Any) -> None:
            super().replace(keys)
            if keys:
                taken_up.set()

    watch = KeyWatch(path, Told([]), (), every=0.01)
    try:
        with changing(path) as held:
            held.append(made()[1])
        assert taken_up.wait(10)
    finally:
        watch.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "pay.example"])
def test_an_address_others_reach_needs_keys_or_a_word(host: str, tmp_path: Path):
    with pytest.raises(Exposed, match=r"FRAUD_API_KEYS.*FRAUD_OPEN=true"):
        check_exposure(Settings(), host)
    check_exposure(Settings(open=True), host)
    check_exposure(Settings(api_keys=tmp_path / "keys.json"), host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_this_machine_alone_needs_no_keys(host: str):
    check_exposure(Settings(), host)


def test_a_worker_asks_its_socket_where_it_listens():
    with socket.create_server(("0.0.0.0", 0)) as listening:
        assert listening_host(Settings(), ["worker", "--fd", str(listening.fileno())]) == "0.0.0.0"
        assert listening.fileno() > 0
    assert listening_host(Settings(host="10.0.0.7"), ["pytest"]) == "10.0.0.7"
    assert listening_host(Settings(host="10.0.0.7"), ["worker", "--fd"]) == "10.0.0.7"


def run(*arguments: str, path: Path) -> int:
    return command.main([*arguments, "--file", str(path)])


def test_the_command_shows_a_key_once_lists_it_and_revokes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "keys.json"
    assert run("new", "--id", "shop-1", "--scopes", "score,feedback", "--rate", "500", path=path) == 0
    key = capsys.readouterr().out.strip()
    asked, _ = access(*read_keys(path))
    assert asked.require(with_key(key), "feedback") is not None
    (entry,) = read_keys(path)
    assert entry.rate == Rate(500, 500)
    assert entry.expires is not None

    assert run("list", path=path) == 0
    listed = capsys.readouterr().out
    assert "shop-1" in listed
    assert "feedback" in listed
    assert key.rsplit("_", 1)[1] not in listed
    assert entry.sha256 not in listed

    assert run("revoke", "shop-1", path=path) == 0
    assert read_keys(path) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("new", "--id", "taken", "--scopes", "score"), "make one with another id, then revoke"),
        (("new", "--id", "Shop_1", "--scopes", "score"), "Shop_1"),
        (("new", "--id", "a", "--scopes", "score,root"), "Invalid enum value 'root'"),
        (("new", "--id", "a", "--scopes", "score", "--rate", "-1"), "> 0"),
        (("revoke", "nobody"), "there: taken"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
):
    path = tmp_path / "keys.json"
    run("new", "--id", "taken", "--scopes", "score", path=path)
    before = path.read_bytes()
    capsys.readouterr()
    assert run(*arguments, path=path) == 1
    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""
    assert path.read_bytes() == before


ASKED = [(b"origin", b"https://desk.example"), (b"access-control-request-method", b"POST")]


def test_no_origin_is_let_in_by_default():
    assert Cors("").preflight(ASKED, ["POST"]) is None
    assert Cors("").granted(ASKED) == []


def test_a_named_origin_is_let_in_and_no_other():
    cors = Cors("https://desk.example, http://localhost:5173")
    granted = cors.preflight(ASKED, ["POST", "GET"])
    assert granted is not None
    assert dict(granted)[b"access-control-allow-origin"] == b"https://desk.example"
    assert dict(granted)[b"access-control-allow-methods"] == b"POST, GET"
    assert cors.preflight(ASKED[:1], ["POST"]) is None
    for origin in (b"https://desk.example.evil", b"http://desk.example", b"null", b"https://desk.example:443"):
        assert cors.preflight([(b"origin", origin), ASKED[1]], ["POST"]) is None
        assert cors.granted([(b"origin", origin)]) == [(b"vary", b"origin")]


@pytest.mark.parametrize("origin", ["*", "desk.example", "https://desk.example/", "ftp://x", "null"])
def test_an_origin_no_browser_sends_is_refused(origin: str):
    with pytest.raises(InvalidOrigin, match="must be scheme://host"):
        Cors(origin)


def asked_of(cors: Cors, method: str, headers: list[tuple[bytes, bytes]]) -> list[dict[str, Any]]:
    """What goes out for a request to an app that refuses everything with 401."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": "/predict", "headers": headers}
    asyncio.run(CrossOrigin(app, lambda: cors)(scope, None, send))
    return sent


def test_a_preflight_needs_no_key_and_a_refusal_can_be_read_by_the_page():
    cors = Cors("https://desk.example")
    start, _ = asked_of(cors, "OPTIONS", ASKED)
    assert start["status"] == 204
    start, _ = asked_of(cors, "POST", ASKED[:1])
    assert start["status"] == 401
    assert (b"access-control-allow-origin", b"https://desk.example") in start["headers"]
    for closed, method in ((Cors(""), "OPTIONS"), (Cors(""), "POST")):
        start, _ = asked_of(closed, method, ASKED)
        assert (start["status"], start["headers"]) == (401, [(b"content-length", b"0")])
