"""The bulk writer of states against Feast's own: the same keys, the same bytes, each readable by the other."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from feast.infra.online_stores.helpers import _redis_key
from feast.types import Int32, Int64
from redis import Redis

from feature_repo.online import entity_key, online_rows
from feature_repo.online_states import OnlineStates
from feature_repo.redis_wire import EntityKeys
from feature_repo.settings import Settings
from feature_repo.store import apply
from feature_repo.transformations import state_field
from feature_repo.window_batch import Sealed, update_many
from feature_repo.window_state import Events, InvalidState, header, update
from feature_repo.windows import DAY, HOUR, spec_of_view

ONE = np.array([DAY])
AMOUNT = np.ones((1, 1))
NAMES = ["c1", "", "ünïcode card", "x" * 64, "a\x01b"]


@pytest.fixture
def parts(redis_server: str, tmp_path: Path) -> Any:
    Redis.from_url(redis_server).flushall()
    store = apply(Settings(home=tmp_path, redis_url=redis_server))
    view = store.get_stream_feature_view("card_velocity")
    spec = spec_of_view(view)
    client = Redis.from_url(redis_server)
    return store, view, spec, client, OnlineStates(client, store.config, view, spec)


def states(spec: Any) -> dict[str, bytes]:
    made = {}
    for n, name in enumerate(NAMES):  # from a state of one event to one whose length needs a longer varint
        ts = np.arange(1, 2 + 300 * n, dtype=np.int64) + 600 * DAY
        empty = np.ones((1, len(ts)))
        made[name] = update(spec, None, Events(ts, ts, empty, empty.astype(np.int64), ts)).state
    return made


def sealed(spec: Any) -> Sealed:
    ts = 600 * DAY + HOUR * np.arange(100, dtype=np.int64)
    events = Events(ts, ts, np.ones((1, len(ts))), ts.reshape(1, -1), ts)
    (made,) = update_many(spec, [None], np.array([100]), events, seal_above=0).states
    assert isinstance(made, Sealed)
    return made


def everything(client: Redis) -> dict[Any, Any]:
    return {key: client.hgetall(key) for key in client.keys("*")}  # type: ignore[union-attr]


def test_both_writers_leave_the_same_bytes_under_the_same_keys(parts: Any) -> None:
    store, view, spec, client, bulk = parts
    made = states(spec)
    provider = store._get_provider()
    provider.online_store.online_write_batch(store.config, view, list(online_rows(view, spec, made.items())), None)
    by_feast = everything(client)
    client.flushall()
    bulk.write(list(made), list(made.values()), [header(spec, state).stamp for state in made.values()])
    assert everything(client) == by_feast
    assert len(by_feast) == len(NAMES)


def test_of_two_states_the_newer_stays_whichever_is_written_last(parts: Any) -> None:
    store, view, spec, client, bulk = parts
    names, kept = list(states(spec)), list(states(spec).values())
    older = [update(spec, None, Events(ONE, ONE, AMOUNT, ONE.reshape(1, 1), ONE)).state] * len(names)
    stamps = [header(spec, state).stamp for state in kept]
    assert bulk.write_newer(names, kept, stamps) == len(names)
    for again in (kept, older):
        assert bulk.write_newer(names, again, [header(spec, state).stamp for state in again]) == 0
    bulk_left = everything(client)
    feasts = store._get_provider().online_store
    feasts.online_write_batch(store.config, view, list(online_rows(view, spec, zip(names, older, strict=True))), None)
    assert everything(client) == bulk_left
    assert bulk.write_newer(names[:1], older[:1], [stamps[0] + 1]) == 1
    assert bulk.read(names) == [older[0], *kept[1:]]


def test_what_one_writes_the_other_reads(parts: Any) -> None:
    store, _, spec, _, bulk = parts
    made = states(spec)
    bulk.write(list(made), list(made.values()), [header(spec, state).stamp for state in made.values()])
    assert bulk.read([*made, "nobody"]) == [*made.values(), None]
    rows = [{"card_id": name} for name in made]
    found = store.get_online_features([f"card_velocity:{state_field('card_velocity')}"], rows).to_dict()
    assert found[state_field("card_velocity")] == list(made.values())


def test_a_connection_that_was_closed_is_opened_again(parts: Any) -> None:
    _, _, spec, client, bulk = parts
    made = states(spec)
    stamps = [header(spec, state).stamp for state in made.values()]
    bulk.write(list(made), list(made.values()), stamps)
    client.client_kill_filter(_type="normal", skipme=True)
    assert bulk.read(["c1"]) == [made["c1"]]


def test_a_sealed_state_and_its_ledger_are_put_and_had_together_and_feast_reads_the_state(parts: Any) -> None:
    store, _, spec, client, bulk = parts
    made = sealed(spec)
    bulk.write(["hot"], [made], [header(spec, made.state).stamp])
    assert bulk.read(["hot"]) == [Sealed(made.state, made.ledger, saved=True)]
    assert made.saved
    feature = state_field("card_velocity")
    found = store.get_online_features([f"card_velocity:{feature}"], [{"card_id": "hot"}]).to_dict()
    assert found[feature] == [made.state]
    (key,) = client.keys("*")
    assert len(client.hgetall(key)) == 3


def test_a_ledger_that_the_store_has_is_not_sent_again(parts: Any) -> None:
    _, _, spec, client, bulk = parts
    made = sealed(spec)
    bulk.write(["hot"], [made], [1])
    (key,) = client.keys("*")
    client.hset(key, "_ledger:card_velocity", b"as it is in the store")
    bulk.write(["hot"], [made], [2])
    assert bulk.read(["hot"])[0].ledger == b"as it is in the store"


def test_a_state_whose_ledger_is_lost_can_be_read_and_not_updated(parts: Any) -> None:
    _, _, spec, client, bulk = parts
    made = sealed(spec)
    bulk.write(["hot"], [made], [1])
    client.hdel(client.keys("*")[0], "_ledger:card_velocity")
    stored = bulk.read(["hot"])
    assert stored == [made.state]
    nothing = np.empty((1, 0))
    none = np.empty(0, np.int64)
    with pytest.raises(InvalidState, match="rebuild it from history"):
        update_many(spec, stored, np.array([0]), Events(none, none, nothing, nothing.astype(np.int64), none))


def test_a_state_that_is_sealed_no_more_leaves_no_ledger(parts: Any) -> None:
    _, _, spec, client, bulk = parts
    bulk.write(["hot"], [sealed(spec)], [1])
    ts = np.array([700 * DAY])
    one = np.ones((1, 1))
    after = update_many(spec, bulk.read(["hot"]), np.array([1]), Events(ts, ts, one, one.astype(np.int64), ts))
    bulk.write(["hot"], after.states, after.stamps)
    assert client.hget(client.keys("*")[0], "_ledger:card_velocity") == b""
    (stored,) = bulk.read(["hot"])
    assert isinstance(stored, bytes)


@pytest.mark.parametrize(("dtype", "field"), [(Int64, "int64_val"), (Int32, "int32_val")])
def test_integer_keys_are_those_of_feast(parts: Any, dtype: Any, field: str) -> None:
    store, view, spec, _, _ = parts
    keyed = SimpleNamespace(name=view.name, entity_columns=[SimpleNamespace(name=spec.join_key, dtype=dtype)])
    keys = EntityKeys(store.config, spec.join_key, field)
    for entity in ("0", "1", "-1", "2147483647", "-2147483648"):
        made = _redis_key(
            store.config.project,
            entity_key(keyed, spec, entity),
            store.config.entity_key_serialization_version,
        )
        assert keys.of(entity) == made
