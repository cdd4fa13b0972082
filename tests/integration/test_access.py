"""Who gets in: a real service asked over HTTP and TLS with and without keys, and what its log says of it all."""

from __future__ import annotations

import itertools
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from bentos import keys as command
from feature_repo.settings import Settings
from feature_repo.store import apply
from feature_repo.vector import FEATURE_SERVICE, columns
from monitoring.processes import Platform, at_free_ports
from monitoring.supervision import PartFailed, free_ports
from tests import tiny_model
from tests.certificates import Authority

CARD = "4539-1488-0343-6467"
PATIENCE = 20.0
ORIGIN = {"origin": "https://desk.example"}


numbers = itertools.count()


def payment(**changed: Any) -> dict[str, Any]:
    given = {"transaction_id": f"t{next(numbers)}", "timestamp": datetime.now(UTC).isoformat()}
    given |= {"card_id": CARD, "merchant_id": "shop"}
    return given | {"amount": 250.0, "country": "GB", "channel": "online"} | changed


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str) -> Iterator[Settings]:
    """The settings of a platform whose Redis runs, with Feast applied and a champion; the services come and go."""
    home = tmp_path_factory.mktemp("home")
    # A busy machine is no reason to answer otherwise.
    patient = Settings(home=home, feature_budget=5.0, model_name="guarded")
    current = at_free_ports(patient).model_copy(update={"mlflow_url": mlflow_server})
    with Platform(current) as running:
        running.start("redis")
        store = apply(current)
        promised = tiny_model.contract(columns(store.get_feature_service(FEATURE_SERVICE)))
        tiny_model.register(mlflow_server, current.model_name, promised)
        yield current


class Keys:
    """A file of keys, changed as an operator does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.made: dict[str, str] = {}

    def new(self, capsys: Any, name: str, scopes: str, *more: str) -> dict[str, str]:
        """Make a key; the header that carries it."""
        assert command.main(["new", "--id", name, "--scopes", scopes, *more, "--file", str(self.path)]) == 0
        self.made[name] = capsys.readouterr().out.strip()
        return self.header(name)

    def header(self, name: str) -> dict[str, str]:
        return {"x-api-key": self.made[name]}

    def revoke(self, name: str) -> None:
        assert command.main(["revoke", name, "--file", str(self.path)]) == 0


def started(current: Settings, **changed: Any) -> Platform:
    platform = Platform(current.model_copy(update={"port": free_ports(1)[0], **changed}))
    try:
        platform.start("service")
    except BaseException:
        platform.stop()
        raise
    return platform


@pytest.fixture(scope="module")
def guarded(behind: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, Keys]]:
    """A service that asks for keys, and its file with one key that nobody uses."""
    keys = Keys(tmp_path_factory.mktemp("keys") / "keys.json")
    assert command.main(["new", "--id", "unused", "--scopes", "admin", "--file", str(keys.path)]) == 0
    with started(behind, api_keys=keys.path, feature_timeout=5.0) as platform:
        yield platform, keys


@pytest.fixture
def keys(guarded: tuple[Platform, Keys]) -> Keys:
    return guarded[1]


@pytest.fixture
def client(guarded: tuple[Platform, Keys]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{guarded[0].settings.port}", timeout=20) as opened:
        yield opened


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"not so within {PATIENCE:g} s"
        time.sleep(0.05)


NO_KEY, UNKNOWN_KEY, RATE = (f'fraud_requests_refused_total{{reason="{r}"}}' for r in ("no_key", "unknown_key", "rate"))


def sample(client: httpx.Client, line: str) -> float:
    """The value of one line of /metrics; 0 where there is none yet."""
    found = [entry for entry in client.get("/metrics").text.splitlines() if entry.startswith(f"{line} ")]
    return float(found[0].rsplit(" ", 1)[1]) if found else 0.0


def in_force(client: httpx.Client, header: dict[str, str]) -> None:
    """Await a key that was just made."""
    eventually(lambda: client.post("/feedback", headers=header).status_code != 401)


ASKED = [("POST", "/predict"), ("POST", "/predict_batch"), ("GET", "/model"), ("GET", "/decisions/t1")]
AROUND = [("POST", "/predict%0A"), ("POST", "/predict/"), ("GET", "/readyz%0A"), ("GET", "/nowhere")]
"""Paths that BentoML's router, or a later one, might take for another."""


@pytest.mark.parametrize(("method", "path"), [*ASKED, *AROUND])
def test_without_a_key_nothing_is_told_and_nothing_decided(client: httpx.Client, method: str, path: str):
    before, decided = sample(client, NO_KEY), sample(client, "total_transactions_total")
    answer = client.request(method, path, json=payment() if method == "POST" else None)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == 'Bearer realm="tollgate"'
    assert sample(client, NO_KEY) == before + 1
    assert sample(client, "total_transactions_total") == decided


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/docs.json"])
def test_probes_metrics_and_the_description_need_no_key(client: httpx.Client, path: str):
    assert client.get(path).status_code == 200


def test_a_key_gets_what_its_scopes_say_without_a_restart(client: httpx.Client, keys: Keys, capsys: Any):
    score = keys.new(capsys, "shop-1", "score")
    feedback = keys.new(capsys, "desk-1", "feedback")
    in_force(client, feedback)
    assert client.post("/predict", json=payment(), headers=score).json()["transaction_id"].startswith("t")
    bearer = {"authorization": f"Bearer {keys.made['shop-1']}"}
    assert client.get("/model", headers=bearer).status_code == 200
    answer = client.post("/predict", json=payment(), headers=feedback)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    keys.revoke("shop-1")
    eventually(lambda: client.get("/model", headers=score).status_code == 401)
    assert sample(client, UNKNOWN_KEY) >= 1


def test_a_key_over_its_rate_is_told_when_to_come_back(client: httpx.Client, keys: Keys, capsys: Any):
    slow = keys.new(capsys, "slow", "score", "--rate", "0.01", "--burst", "3")
    in_force(client, slow)  # asking without the scope costs nothing
    batch = {"transactions": [payment(transaction_id=f"r{i}") for i in range(20)]}
    assert len(client.post("/predict_batch", json=batch, headers=slow).json()["results"]) == 20
    answer = client.post("/predict", json=payment(), headers=slow)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limited")
    assert 1_700 <= int(answer.headers["retry-after"]) <= 1_800
    assert sample(client, RATE) == 1


def test_a_file_broken_while_the_service_runs_locks_nobody_out(
    guarded: tuple[Platform, Keys], client: httpx.Client, capsys: Any
):
    platform, keys = guarded
    header = keys.new(capsys, "steady", "score")
    in_force(client, header)
    whole = keys.path.read_bytes()
    keys.path.write_bytes(whole[:-5])
    eventually(lambda: "keys read before stay in force" in platform.log("service").read_text())
    assert client.get("/model", headers=header).status_code == 200
    keys.path.write_bytes(whole)


def test_no_origin_gets_in_unless_it_is_named(client: httpx.Client, keys: Keys, capsys: Any):
    header = keys.new(capsys, "page", "score")
    in_force(client, header)
    preflight = ORIGIN | {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    answers = [client.options(path, headers=preflight) for path in ("/predict", "/predict_batch", "/model", "/readyz")]
    answers.append(client.post("/predict", json=payment(), headers=header | ORIGIN))
    assert answers[-1].status_code == 200
    for answer in answers:
        assert [name for name in answer.headers if name.startswith("access-control")] == []
    assert {answer.status_code for answer in answers[:-1]} <= {401, 403, 405}


def test_the_log_tells_no_card_and_no_key(guarded: tuple[Platform, Keys], client: httpx.Client, capsys: Any):
    platform, keys = guarded
    header = keys.new(capsys, "private", "score")
    in_force(client, header)
    assert client.post("/predict", json=payment(), headers=header).status_code == 200
    bad = [{"amount": -1}, {"timestamp": "1970-01-01T00:00:00Z"}, {"card_id": CARD + "\n" * 70}, {"country": CARD}]
    statuses = [client.post("/predict", json=payment(**change), headers=header).status_code for change in bad]
    assert set(statuses) == {422}
    client.post("/predict", content=f'{{"card_id": "{CARD}"', headers=header)
    client.post("/predict", json=payment(), headers={"x-api-key": keys.made["private"] + "x"})
    with redis.Redis.from_url(platform.settings.redis_url) as online:
        name = broken_state_of(platform.settings, online)
        client.post("/predict", json=payment(transaction_id="broken"), headers=header)
        online.delete(name)
    client.post("/predict", json=payment(transaction_id="after"), headers=header)
    written = platform.log("service").read_text()
    assert "Serving" in written
    assert CARD not in written
    for key in keys.made.values():
        assert key[-12:] not in written


def broken_state_of(current: Settings, online: redis.Redis) -> bytes:
    """Put what is no hash in the place of the card's state; its name in Redis."""
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    from feature_repo.store import feature_store

    entity = EntityKey(join_keys=["card_id"], entity_values=[Value(string_val=CARD)])
    config = feature_store(current).config
    name = serialize_entity_key(entity, config.entity_key_serialization_version) + config.project.encode()
    online.set(name, b"no hash")
    return name


def test_an_address_others_reach_is_refused_without_keys(behind: Settings):
    with pytest.raises(PartFailed, match=r"listens on '0\.0\.0\.0'.*FRAUD_OPEN=true"):
        started(behind, host="0.0.0.0")


def test_named_origins_are_let_in_and_an_open_service_says_so_itself(behind: Settings):
    with started(behind, host="0.0.0.0", open=True, cors_origins=ORIGIN["origin"]) as platform:
        url = f"http://127.0.0.1:{platform.settings.port}/predict"
        preflight = httpx.options(url, headers=ORIGIN | {"access-control-request-method": "POST"})
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == ORIGIN["origin"]
        assert "x-api-key" in preflight.headers["access-control-allow-headers"]
        for body in (payment(), {}):
            assert httpx.post(url, json=body, headers=ORIGIN).headers["access-control-allow-origin"] == ORIGIN["origin"]
        other = httpx.post(url, json=payment(), headers={"origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers


def test_tls_is_spoken_where_a_certificate_is_set(behind: Settings, tmp_path: Path):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    trusting = ssl.create_default_context(cafile=str(authority.certificate))
    with started(behind, tls_cert=certificate, tls_key=key) as platform:
        address = f"127.0.0.1:{platform.settings.port}"
        assert platform.running["service"].url == f"https://{address}"
        answer = httpx.post(f"https://{address}/predict", json=payment(), verify=trusting)
        assert answer.json()["transaction_id"].startswith("t")
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"https://{address}/readyz")
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"http://{address}/readyz")
        dated = ssl.create_default_context(cafile=str(authority.certificate))
        dated.maximum_version = ssl.TLSVersion.TLSv1_2
        assert httpx.get(f"https://{address}/readyz", verify=dated).status_code == 200
        dated.set_ciphers("ECDHE-ECDSA-AES128-SHA")
        with pytest.raises(httpx.ConnectError, match=r"HANDSHAKE_FAILURE|UNEXPECTED_EOF"):
            httpx.get(f"https://{address}/readyz", verify=dated)


def test_a_client_without_a_certificate_gets_no_connection_where_one_is_asked_for(behind: Settings, tmp_path: Path):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    trusting = ssl.create_default_context(cafile=str(authority.certificate))
    with started(behind, tls_cert=certificate, tls_key=key, tls_client_ca=authority.certificate) as platform:
        url = f"https://127.0.0.1:{platform.settings.port}/model"
        with pytest.raises((httpx.NetworkError, httpx.RemoteProtocolError)):
            httpx.get(url, verify=trusting)
        trusting.load_cert_chain(*authority.issue("client"))
        assert httpx.get(url, verify=trusting).status_code == 200


def test_a_key_that_is_not_the_certificates_is_refused_before_anything_starts(behind: Settings, tmp_path: Path):
    authority = Authority(tmp_path)
    (certificate, _), (_, other) = authority.issue("one"), authority.issue("two")
    with pytest.raises(PartFailed, match="the key the certificate's own"):
        started(behind, tls_cert=certificate, tls_key=other)
    with pytest.raises(PartFailed, match=r"FRAUD_TLS_KEY is .* without FRAUD_TLS_CERT"):
        started(behind, tls_key=other)
