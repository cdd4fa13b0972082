"""The service as a real process, with a real Redis, MLflow and Feast behind it, asked over HTTP."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bentos.features import FeastReader
from bentos.payments import asked
from feature_repo.contract import ModelContract
from feature_repo.online_states import OnlineStates
from feature_repo.schema import Transaction, parse
from feature_repo.settings import Settings, settings
from feature_repo.store import apply
from feature_repo.vector import FEATURE_SERVICE, columns
from feature_repo.window_batch import update_many
from feature_repo.window_state import Events, code, to_us
from feature_repo.windows import spec_of_view
from monitoring.decision_log import LoggedDecision, read_decisions
from monitoring.processes import Platform, at_free_ports
from monitoring.supervision import PartFailed
from tests import tiny_model
from tests.chaos.load import until

NOW = datetime.now(UTC).replace(microsecond=0)
LAST_PAYMENT = NOW - timedelta(seconds=90)
MINUTE = 60_000_000
VOLATILE = {"latency_ms": 0, "timestamp": "", "transaction_id": ""}
numbers = itertools.count()


def fields(**changed: Any) -> dict[str, Any]:
    given = {"transaction_id": f"t{next(numbers)}", "timestamp": NOW.isoformat()}
    given |= {"card_id": "busy", "merchant_id": "shop"}
    return (
        given | {"amount": 250.0, "merchant_category": "space tourism", "country": "GB", "channel": "online"} | changed
    )


def give_history(
    store: Any,
    view_name: str,
    entity: str,
    events: int,
    apart: int = MINUTE,
    room: int = 1_000,
    seal_above: int = 1_000,
) -> None:
    """Put a state into the online store: events `apart` (µs), the latest at `LAST_PAYMENT`."""
    view = store.get_stream_feature_view(view_name)
    spec = spec_of_view(view)
    at = to_us(LAST_PAYMENT) - apart * np.arange(events, dtype=np.int64)[::-1]
    ids = np.array([code(f"past-{i}") for i in range(events)], np.int64)
    values = np.full((len(spec.values), events), 10.0)
    distinct = np.full((len(spec.distinct), events), code("shop"), np.int64)
    made = update_many(spec, [None], np.array([events]), Events(at, ids, values, distinct, at), room, seal_above)
    client = store._get_provider().online_store._get_client(store.config.online_store)
    OnlineStates(client, store.config, view, spec).write([entity], made.states, made.stamps)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str) -> Iterator[Platform]:
    """A Redis with a busy card, Feast applied, the tiny model registered as champion, and the service."""
    home = tmp_path_factory.mktemp("home")
    patient = Settings(home=home, feature_budget=5.0)  # a busy machine is no reason to answer otherwise
    current = at_free_ports(patient).model_copy(update={"mlflow_url": mlflow_server})
    with Platform(current) as running:
        running.start("redis")
        store = apply(current)
        give_history(store, "card_velocity", "busy", 3)
        give_history(store, "card_velocity", "overrun", 20, room=19)
        give_history(store, "card_velocity", "hot", 20 * 24, apart=60 * MINUTE, seal_above=8)
        promised = tiny_model.contract(columns(store.get_feature_service(FEATURE_SERVICE)))
        tiny_model.register(mlflow_server, current.model_name, promised)
        running.start("service")
        yield running


@pytest.fixture
def client(platform: Platform) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{platform.settings.port}", timeout=20) as opened:
        yield opened


def decisions(current: Settings) -> list[LoggedDecision]:
    return list(read_decisions(current.redis_url, current.decisions_stream))


def sample(client: httpx.Client, line: str) -> float:
    """The value of one line of /metrics; 0 where there is none yet."""
    found = [entry for entry in client.get("/metrics").text.splitlines() if entry.startswith(f"{line} ")]
    return float(found[0].rsplit(" ", 1)[1]) if found else 0.0


def settled(read: Callable[[], list[float]]) -> list[float]:
    """What is read once nothing more is on its way: what was counted a moment ago shows up a little later."""
    latest = read()
    while True:
        time.sleep(0.5)
        latest, before = read(), latest
        if latest == before:
            return latest


def test_a_payment_is_decided_and_on_record_with_the_vector_the_model_saw(platform: Platform, client: httpx.Client):
    before = len(decisions(platform.settings))
    sent = fields()
    answer = client.post("/predict", json=sent)
    told = answer.json()
    (logged,) = decisions(platform.settings)[before:]
    assert logged.answer == answer.content
    assert told["decision"] == "review"
    assert told["fraud_probability"] == pytest.approx(1 / (1 + np.exp(-0.5)), abs=1e-6)
    assert told["feature_age_seconds"] == 90.0
    assert (told["degraded"], told["degraded_cause"], told["model_role"]) == (False, None, "champion")
    assert logged.transaction == parse(sent)
    assert logged.probability == told["fraud_probability"]
    assert logged.model_version == told["model_version"]
    assert logged.decided_at == datetime.fromisoformat(told["timestamp"])
    assert logged.feature_age_seconds == 90.0

    recomputed = FeastReader(platform.settings)
    assert logged.vector.tobytes() == recomputed.read([asked(logged.transaction)]).vectors[0].tobytes()
    seen = dict(zip(recomputed.columns, logged.vector.tolist(), strict=True))
    assert (seen["amount"], seen["card_count_1h"], seen["card_sum_amount_1h"]) == (250.0, 3.0, 30.0)
    assert np.isnan(seen["merchant_seconds_since_last"])


def test_a_batch_is_answered_in_order_and_as_each_would_be_alone(platform: Platform, client: httpx.Client):
    items = [fields(transaction_id=f"b{i}", amount=10.0 + 80 * i, card_id=f"card{i}") for i in range(8)]
    items[3] = {"transaction_id": "b3", "amount": -1}
    results = client.post("/predict_batch", json={"transactions": items}).json()["results"]
    assert [one["transaction_id"] for one in results] == [f"b{i}" for i in range(8)]
    assert results[3]["error"]["code"] == "invalid_transaction"
    for item, one in zip(items, results, strict=True):
        if "error" not in one:
            alone = client.post("/predict", json=item | {"transaction_id": f"{item['transaction_id']} alone"})
            assert alone.json() | VOLATILE == one | VOLATILE


def test_a_payment_whose_windows_lack_events_is_decided_and_says_so(client: httpx.Client):
    counter = 'fraud_degraded_answers_total{cause="incomplete_features"}'
    before = sample(client, counter)
    told = client.post("/predict", json=fields(card_id="overrun")).json()
    until(lambda: sample(client, counter) == before + 1)
    assert (told["degraded"], told["degraded_cause"], told["decision"]) == (True, "incomplete_features", "review")
    items = [fields(transaction_id=card, card_id=card) for card in ("busy", "overrun", "hot", "new")]
    results = client.post("/predict_batch", json={"transactions": items}).json()["results"]
    assert [one["degraded"] for one in results] == [False, True, False, False]


def test_of_a_sealed_state_every_event_counts(platform: Platform, client: httpx.Client):
    before = len(decisions(platform.settings))
    client.post("/predict", json=fields(card_id="hot"))
    (logged,) = decisions(platform.settings)[before:]
    seen = dict(zip(FeastReader(platform.settings).columns, logged.vector.tolist(), strict=True))
    assert (seen["card_count_24h"], seen["card_count_30d"], seen["card_sum_amount_30d"]) == (24.0, 480.0, 4800.0)
    assert (seen["card_nunique_merchant_id_30d"], seen["card_seconds_since_last"]) == (1.0, 90.0)


def test_bentomls_own_lane_gives_the_same_bytes(
    platform: Platform, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
):
    from bentos.service import TollgateService

    for name in ("home", "redis_url", "mlflow_url"):
        monkeypatch.setenv(f"FRAUD_{name.upper()}", str(getattr(platform.settings, name)))
    settings.cache_clear()
    try:
        service = TollgateService()
    finally:
        settings.cache_clear()
    payments = [parse(fields()), parse(fields(card_id="new"))]

    async def directly() -> tuple[Any, Any]:
        try:
            await service.begin()
            return await service.predict(payments[0]), await service.predict_batch(payments)
        finally:
            await service.close()

    one, many = asyncio.run(directly())
    body = client.post("/predict", json=json.loads(payments[0].model_dump_json())).content
    assert one.model_dump_json().encode() == body, "the same payment again gets the bytes that are on record"
    body = client.post("/predict", json=fields()).content
    told = json.loads(body)
    exact = one.model_copy(
        update={
            "latency_ms": told["latency_ms"],
            "timestamp": datetime.fromisoformat(told["timestamp"]),
            "transaction_id": told["transaction_id"],
        }
    )
    assert exact.model_dump_json().encode() == body
    sent = [json.loads(payment.model_dump_json()) for payment in payments]
    batch = client.post("/predict_batch", json={"transactions": sent}).json()["results"]
    assert [e | VOLATILE for e in json.loads(many.model_dump_json())["results"]] == [e | VOLATILE for e in batch]


def test_the_model_in_service_is_told(platform: Platform, client: httpx.Client):
    card = client.get("/model").json()
    assert (card["name"], card["version"], card["source"]) == (platform.settings.model_name, "1", "registry")
    assert card["thresholds"] == {"review_from": tiny_model.REVIEW_FROM, "decline_from": tiny_model.DECLINE_FROM}
    assert (card["feature_service"], card["columns"][0], len(card["columns"])) == (FEATURE_SERVICE, "amount", 72)
    assert datetime.fromisoformat(card["loaded_at"]) <= datetime.now(UTC)


def test_what_is_decided_is_counted(client: httpx.Client):
    lines = [
        "total_transactions_total",
        "fraud_decisions_logged_total",
        'predictions_total{model_version="1",prediction="decline"}',
        "high_risk_transactions_total",
        "fraud_unknown_categories_total",
        "fraud_feature_age_seconds_count",
        "fraud_score_distribution_count",
        "prediction_latency_seconds_count",
        "feature_retrieval_latency_seconds_count",
    ]
    before = settled(lambda: [sample(client, line) for line in lines])
    assert client.post("/predict", json=fields(amount=900.0)).json()["risk_level"] == "high"
    more = [value + 1.0 for value in before]
    until(lambda: [sample(client, line) for line in lines] == more)
    assert sample(client, 'active_model_version{model_name="tollgate-fraud",version="1"}') == 1.0
    assert sample(client, "avg_transaction_amount") > 0


def test_the_document_describes_what_is_sent(client: httpx.Client):
    document = client.get("/docs.json").json()
    schemas = document["components"]["schemas"]
    assert set(Transaction.model_fields) == set(schemas["Transaction"]["properties"])
    assert {"/predict", "/predict_batch", "/model", "/livez", "/readyz", "/metrics"} <= set(document["paths"])

    def fits(reply: httpx.Response, path: str, method: str = "post") -> None:
        told = document["paths"][path][method]["responses"][str(reply.status_code)]
        reference = told["content"]["application/json"]["schema"]["$ref"]
        described = schemas[reference.rsplit("/", 1)[1]]["properties"]
        assert set(described) == set(reply.json())
        for name, value in reply.json().items():
            assert value is not None or {"type": "null"} in described[name]["anyOf"], name

    fits(client.post("/predict", json=fields(card_id="new", merchant_id="new")), "/predict")
    fits(client.post("/predict", json=fields(amount="1")), "/predict")
    fits(client.post("/predict_batch", json={"transactions": [fields(), {}]}), "/predict_batch")
    fits(client.get("/model"), "/model", "get")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"amount":', 400),
        (json.dumps(fields(amount=0)).replace('"amount": 0', '"amount": 1e999').encode(), 422),
        (json.dumps(fields(timestamp="2099-01-01T00:00:00Z")).encode(), 422),
        (json.dumps(fields(timestamp="2001-01-01T00:00:00Z")).encode(), 422),
        (b" " * 10_000_000, 413),
        ((b" " * 100_000 for _ in range(100)), 413),
    ],
    ids=["malformed", "infinite", "future", "ancient", "10 MB", "10 MB in chunks"],
)
def test_bad_input_is_refused_and_the_connection_lives_on(client: httpx.Client, body: Any, status: int):
    reply = client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert (reply.status_code, set(reply.json())) == (status, {"error"})
    assert client.post("/predict", json=fields()).status_code == 200


def test_requests_at_once_do_not_disturb_each_other(client: httpx.Client):
    async def all_at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=client.base_url, timeout=30) as many:
            return await asyncio.gather(
                *(many.post("/predict", json=fields(transaction_id=f"p{i}", amount=1.0 + i)) for i in range(60))
            )

    told = [reply.json() for reply in asyncio.run(all_at_once())]
    assert [one["transaction_id"] for one in told] == [f"p{i}" for i in range(60)]
    expected = [1 / (1 + np.exp(-((1.0 + i) / 100 - 2))) for i in range(60)]
    assert [one["fraud_probability"] for one in told] == pytest.approx(expected, abs=1e-6)


def refused(current: Settings) -> str:
    """What the log of a service that does not start says."""
    with Platform(current) as running:
        with pytest.raises(PartFailed, match="ended with code"):
            running.start("service")
        return running.log("service").read_text()


def served_elsewhere(platform: Platform, **changed: Any) -> Settings:
    """The platform's settings for a second service, at a port of its own."""
    return platform.settings.model_copy(update={"port": at_free_ports(platform.settings).port, **changed})


def test_a_model_of_other_columns_is_refused_by_name(platform: Platform):
    told = tiny_model.contract(["amount", "shoe_size"])
    current = served_elsewhere(platform, model_name="misfit")
    tiny_model.register(current.mlflow_url, "misfit", ModelContract.model_validate(told))
    log = refused(current)
    assert "The service does not start. Model 'misfit' version 1 is refused." in log
    assert "the code lacks ['shoe_size'], the model lacks ['amount_log'" in log


def lets_pass_what_it_would_decline(client: httpx.Client) -> None:
    """Up to the cap, marked, and with the same bytes whichever way the payment comes in."""
    small, large = fields(amount=450.0), fields(amount=451.0)
    first = client.post("/predict", json=small)
    assert (first.json()["decision"], first.json()["control_group"]) == ("approve", True)
    parts = (json.dumps(small)[:9].encode(), json.dumps(small)[9:].encode())
    by_asgi = client.post("/predict", content=iter(parts), headers={"content-type": "application/json"})
    assert by_asgi.content == first.content
    assert client.post("/predict_batch", json={"transactions": [small]}).json()["results"] == [first.json()]
    assert client.get(f"/decisions/{small['transaction_id']}").json()["answer"] == first.json()
    above = client.post("/predict", json=large).json()
    assert (above["decision"], above["control_group"]) == ("decline", False)


def test_without_mlflow_the_last_model_served_is_served_again(platform: Platform, tmp_path: Path):
    group = {"control_share": 1.0, "control_max_amount": 450.0, "control_key": "a secret of the bank's"}
    current = served_elsewhere(platform, mlflow_url="http://127.0.0.1:9", **group)
    with Platform(current) as running:
        running.start("service")
        with httpx.Client(base_url=f"http://127.0.0.1:{current.port}", timeout=20) as client:
            card = client.get("/model").json()
            assert (card["source"], card["version"]) == ("cache", "1")
            assert client.post("/predict", json=fields()).status_code == 200
            lets_pass_what_it_would_decline(client)
        assert "Serving version 1 from the cache" in running.log("service").read_text()


def test_without_mlflow_and_without_a_cache_nothing_is_served(platform: Platform):
    log = refused(served_elsewhere(platform, mlflow_url="http://127.0.0.1:9", model_name="unheard-of"))
    assert "MLflow at http://127.0.0.1:9 does not answer" in log
    assert "holds no model that was served as 'champion'" in log


def test_without_redis_it_is_alive_and_not_ready_and_decides_again_when_redis_is_back(
    platform: Platform, client: httpx.Client
):
    assert (client.get("/livez").status_code, client.get("/readyz").status_code) == (200, 200)
    on_record = len(decisions(platform.settings))
    platform.stop("redis")
    try:
        reply = client.post("/predict", json=fields())
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "feature_store_unavailable")
        assert reply.headers["retry-after"] == "1"
        assert (client.get("/livez").status_code, client.get("/readyz").status_code) == (200, 503)
    finally:
        platform.start("redis")
    assert client.get("/readyz").status_code == 200
    assert client.post("/predict", json=fields()).json()["feature_age_seconds"] == 90.0
    assert len(decisions(platform.settings)) == on_record + 1
