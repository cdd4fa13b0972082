"""The bulk writer of states against Feast's own: the same keys, the same bytes, each readable by the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis import Redis

from feature_repo.online import online_rows
from feature_repo.online_states import OnlineStates
from feature_repo.settings import Settings
from feature_repo.store import apply
from feature_repo.transformations import state_field
from feature_repo.window_state import Events, header, update
from feature_repo.windows import DAY, spec_of_view

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
