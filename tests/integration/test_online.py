"""The features of a batch from a real Redis: within their budget, or the word that there are none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import redis
from feast.infra.online_stores.helpers import _mmh3
from feast.protos.feast.types.Value_pb2 import Value
from prometheus_client import REGISTRY

from bentos import breaker
from bentos.compiled import CompiledReader
from bentos.online import OnlineFeatures
from bentos.payments import Asked
from feature_repo.redis_wire import EntityKeys
from feature_repo.settings import Settings
from feature_repo.store import apply
from feature_repo.transformations import state_field
from monitoring.supervision import free_ports
from tests.unit.stand_ins import payment

GARBAGE = [
    Value(bytes_val=b"\x00" * 64).SerializeToString(),
    Value(bytes_val=b"no state at all").SerializeToString(),
    b"not even a message",
]


@pytest.fixture(scope="module")
def applied(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Any, CompiledReader]:
    """Feast applied over an empty Redis; a busy machine gets time, the tests that are about time set their own."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    home = tmp_path_factory.mktemp("home")
    current = Settings(home=home, redis_url=redis_server, feature_timeout=10, feature_budget=10)
    return current, apply(current), CompiledReader(current)


def put_garbage(current: Settings, store: Any, card: str, state: bytes) -> None:
    """The state of a card as something else has written it."""
    view = store.get_stream_feature_view("card_velocity")
    key = EntityKeys(store.config, "card_id").of(card)
    field = _mmh3(f"{view.name}:{state_field(view.name)}")
    with redis.Redis.from_url(current.redis_url) as client:
        client.hset(key, field, state)


def run(reader: CompiledReader, current: Settings, work: Callable[[OnlineFeatures], Awaitable[Any]]) -> Any:
    async def opened() -> Any:
        online = OnlineFeatures(reader, current)
        try:
            return await work(online)
        finally:
            online.close()

    return asyncio.run(opened())


def counted(cause: str) -> float:
    return REGISTRY.get_sample_value("fraud_features_unavailable_total", {"cause": cause}) or 0.0


def asked(*cards: str) -> list[Asked]:
    return [payment(transaction_id=f"t{n}", card_id=card) for n, card in enumerate(cards)]


@pytest.mark.parametrize("state", GARBAGE, ids=["zeros", "text", "no message"])
def test_a_state_of_garbage_leaves_its_own_payments_without_features_and_no_others(applied: Any, state: bytes):
    current, store, reader = applied
    put_garbage(current, store, "broken", state)
    before = counted("unreadable")
    batch = asked("c1", "broken", "c2", "broken", "c3")
    groups = run(reader, current, lambda online: online.read(batch))
    found = {place: rows for places, rows in groups for place in places}
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert [found[place] is None for place in range(5)] == [False, True, False, True, False]
    assert counted("unreadable") == before + 2
    good = [batch[place] for place in (0, 2, 4)]
    (group,) = run(reader, current, lambda online: online.read(good))
    assert group[0] == [0, 1, 2]
    alone = np.concatenate([found[place].vectors for place in (0, 2, 4)])
    np.testing.assert_array_equal(group[1].vectors, alone)


def test_a_slow_redis_costs_no_more_than_the_budget_opens_the_breaker_and_is_back_by_itself(
    applied: Any, monkeypatch: pytest.MonkeyPatch
):
    current, _, reader = applied
    hasty = current.model_copy(update={"feature_budget": 0.02})
    monkeypatch.setattr(breaker, "PAUSE", 0.1)

    async def work(online: OnlineFeatures) -> None:
        assert await online.open()
        with redis.Redis.from_url(current.redis_url) as client:
            late, skipped = counted("timeout"), counted("open")
            client.execute_command("CLIENT", "PAUSE", 700, "ALL")  # it ends by itself: Redis 6 hears nobody meanwhile
            for _ in range(breaker.FAILURES):
                assert await online.read(asked("c1")) == [([0], None)]
            assert counted("timeout") == late + breaker.FAILURES
            assert await online.read(asked("c1", "c2")) == [([0, 1], None)]
            assert counted("open") == skipped + 1
        async with asyncio.timeout(20):
            while (await online.read(asked("c1")))[0][1] is None:
                await asyncio.sleep(0.01)
        for _ in range(5):
            ((places, _),) = await online.read(asked("c1", "c2"))
            assert places == [0, 1]

    run(reader, hasty, work)


def test_without_redis_there_are_no_features_and_no_error(applied: Any):
    current, _, reader = applied
    nowhere = current.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_ports(1)[0]}/0"})

    async def work(online: OnlineFeatures) -> None:
        assert not await online.open()
        assert not await online.alive()
        for _ in range(10):
            assert await online.read(asked("c1", "c2")) == [([0, 1], None)]

    run(reader, nowhere, work)


@pytest.mark.parametrize(
    ("up_to", "stale"),
    [({}, False), ({"p0": 0.0}, False), ({"p0": 0.0, "p1": 400.0}, True), ({"p0": 200.0, "p1": 0.0}, False)],
    ids=["never said", "now", "one stands still", "both within the limit"],
)
def test_features_are_stale_when_the_stream_stands_still(applied: Any, up_to: dict[str, float], stale: bool):
    current, _, reader = applied
    with redis.Redis.from_url(current.redis_url) as client:
        client.delete(current.progress_key)
        for partition, ago in up_to.items():
            client.hset(current.progress_key, partition, str(int((time.time() - ago) * 1e3)))
        [(_, rows)] = run(reader, current, lambda online: online.read(asked("c1", "c2")))
        client.delete(current.progress_key)
    assert rows.stale is stale
    assert len(rows.vectors) == 2
