"""The steps of the stream job, lists in and lists out, against a plan that holds states in a dictionary."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from feast.aggregation import Aggregation

from feature_repo.schema import HISTORY_SCHEMA
from feature_repo.settings import Settings
from feature_repo.window_state import InvalidState, code, finish, header, to_us, update
from feature_repo.windows import WindowSpec, spec_of
from stream_jobs import engine, history
from stream_jobs.engine import SHARDS, Event, ShardLogic, Written, as_events, fan_out
from stream_jobs.history import _Buffer, as_rows
from stream_jobs.transports.base import Record
from stream_jobs.velocity import _CountDown, parse

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
T = to_us(NOON)
LATENESS, SKEW = timedelta(minutes=10), timedelta(minutes=5)
SETTINGS = Settings(allowed_lateness=LATENESS, max_future=SKEW)
H = timedelta(hours=1)

CARDS = spec_of(
    "card_velocity",
    "card",
    "card_id",
    "transaction_id",
    [
        Aggregation(function="count", time_window=H),
        Aggregation("amount", "sum", H),
        Aggregation("merchant_id", "nunique", H),
    ],
)
MERCHANTS = spec_of(
    "merchant_velocity", "merchant", "merchant_id", "transaction_id", [Aggregation(function="count", time_window=H)]
)


class FakePlan:
    """A plan over two views whose online store is a dictionary; counts what was asked for."""

    def __init__(self, stored: Mapping[str, bytes] | None = None) -> None:
        self.specs: dict[str, WindowSpec] = {"card_velocity": CARDS, "merchant_velocity": MERCHANTS}
        self.stored = dict(stored or {})
        self.loads: list[list[str]] = []

    def load(self, view: str, entities: Sequence[str]) -> dict[str, bytes]:
        self.loads.append(list(entities))
        return {name: self.stored[name] for name in entities if name in self.stored}


def payment(identifier: str = "t1", **changed: Any) -> dict[str, Any]:
    fields = {
        "transaction_id": identifier,
        "timestamp": NOON.isoformat(),
        "card_id": "c1",
        "merchant_id": "m1",
        "amount": 12.5,
    }
    return {name: value for name, value in (fields | changed).items() if value is not None}


def record(body: dict[str, Any] | bytes, ingested_at: int = T, identifier: str = "1-0") -> Record:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Record("transactions", identifier, raw, ingested_at, ingested_at)


def event(identifier: str, ts: int = T, card: str = "c1", merchant: str | None = "m1", amount: float = 1.0) -> Event:
    fields = {"transaction_id": identifier, "card_id": card, "merchant_id": merchant, "amount": amount}
    return Event(record(b"", identifier=identifier), fields, ts, ts + 1)


# --- parse -----------------------------------------------------------------------------------------------------------


def test_a_valid_record_becomes_an_event_with_its_time_and_when_it_was_had():
    given = record(payment(channel="pos"), ingested_at=T + 3)
    found = parse(given, LATENESS, SKEW)
    assert isinstance(found, Event)
    assert (found.record, found.ts, found.ingested_at) == (given, T, T + 3)
    assert found.fields["amount"] == 12.5
    assert found.fields["device_id"] is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"not json", "body"),
        (b"", "body"),
        (b"\xff\xfe", "body"),
        (b"[" * 100_000, "body"),
        (payment(amount=-4.0), "amount is -4.0"),
        (payment(card_id=None), "card_id"),
        (payment(timestamp="2026-03-01T12:00:00"), "timestamp"),
        (payment(colour="red"), "colour"),
        (b'{"amount": 1e999}', "amount"),
    ],
    ids=["text", "nothing", "no utf-8", "deep", "negative", "no card", "naive", "another field", "infinite"],
)
def test_what_is_no_payment_comes_with_the_reason(body: dict[str, Any] | bytes, said: str):
    given = record(body, identifier="7-1")
    found = parse(given, LATENESS, SKEW)
    assert isinstance(found, tuple)
    assert found[0] is given
    assert found[1].startswith("invalid: Transaction in record 7-1: ")
    assert said in found[1]


@pytest.mark.parametrize(
    ("behind", "outcome"),
    [
        (0, "event"),
        (600_000_000, "event"),
        (600_000_001, "late: 600.000001 s behind; at most 0:10:00 is allowed"),
        (10**30, "late: "),  # a sender's nonsense
        (-300_000_000, "event"),
        (-300_000_001, "early: 300.000001 s ahead; at most 0:05:00 is allowed"),
        (-T, "early: "),
    ],
)
def test_lateness_is_between_the_event_and_when_it_was_first_had(behind: int, outcome: str):
    found = parse(record(payment(), ingested_at=T + behind), LATENESS, SKEW)
    assert isinstance(found, Event) if outcome == "event" else found[1].startswith(outcome)


# --- fan out ---------------------------------------------------------------------------------------------------------


def test_an_event_goes_once_to_each_view_under_its_entity():
    found = list(fan_out(FakePlan(), [event("t1", card="c1", merchant="m9")]))
    assert [(view, entity) for _, (view, entity, _) in found] == [("card_velocity", "c1"), ("merchant_velocity", "m9")]
    assert [shard.split("/")[0] for shard, _ in found] == ["card_velocity", "merchant_velocity"]


def test_an_entity_always_falls_into_the_same_shard_and_all_shards_are_used():
    events = [event(f"t{n}", card=f"c{n % 400}") for n in range(800)]
    shards: dict[str, set[str]] = {}
    for shard, (view, entity, _) in fan_out(FakePlan(), events):
        if view == "card_velocity":
            shards.setdefault(entity, set()).add(shard)
    assert all(len(of_one) == 1 for of_one in shards.values())
    assert {shard for of_one in shards.values() for shard in of_one} == {f"card_velocity/{n}" for n in range(SHARDS)}


# --- as_events -------------------------------------------------------------------------------------------------------


def test_columns_come_in_the_order_of_the_spec_and_nulls_stay_apart():
    found = as_events(CARDS, [event("t1", amount=2.5), event("t2", ts=T + 1, merchant=None, amount=None)])
    assert found.ts.tolist() == [T, T + 1]
    assert found.ingest.tolist() == [T + 1, T + 2]
    assert found.ids.tolist() == [code("t1"), code("t2")]
    np.testing.assert_array_equal(found.values, [[2.5, np.nan]])
    assert found.distinct.tolist() == [[code("m1"), 0]]


def test_integers_and_truths_stand_for_their_texts_as_in_history():
    given = event("t1")
    for value, text in ((7, "7"), (True, "true"), (False, "false"), ("x", "x")):
        fields = {**given.fields, "merchant_id": value, "transaction_id": value}
        found = as_events(CARDS, [replace(given, fields=fields)])
        assert found.distinct.tolist() == [[code(text)]]
        assert found.ids.tolist() == [code(text)]


def test_no_event_gives_empty_columns_of_the_right_shape():
    found = as_events(MERCHANTS, [])
    assert (found.values.shape, found.distinct.shape, found.ts.shape) == ((0, 0), (0, 0), (0,))


# --- ShardLogic ------------------------------------------------------------------------------------------------------


def batch(*events: Event) -> list[tuple[str, str, Event]]:
    return [("card_velocity", given.fields["card_id"], given) for given in events]


def one(logic: ShardLogic, *events: Event) -> Written:
    found, discard = logic.on_batch(batch(*events))
    assert not discard
    (written,) = found
    return written


def counts(states: Mapping[str, bytes], at: int) -> dict[str, float]:
    found = finish(CARDS, list(states.values()), np.full(len(states), at))
    return dict(zip(states, found["card_count_1h"].tolist(), strict=True))


def test_a_batch_gives_each_touched_state_once_and_accounts_for_every_record():
    events = [event("t1"), event("t2", card="c2"), event("t3"), event("t1")]
    written = one(ShardLogic(FakePlan()), *events)
    assert written.view == "card_velocity"
    assert counts(written.states, T + 1) == {"c1": 2, "c2": 1}
    assert written.records == [given.record for given in events]
    assert (written.added, written.overflowed) == (3, 0)


def test_a_state_is_loaded_once_and_then_carried_on():
    stored = update(CARDS, None, as_events(CARDS, [event("t0", ts=T - 5)])).state
    plan = FakePlan({"c1": stored})
    logic = ShardLogic(plan)
    assert counts(one(logic, event("t1")).states, T + 1) == {"c1": 2}
    plan.stored.clear()
    assert counts(one(logic, event("t2"), event("n1", card="c2")).states, T + 1) == {"c1": 3, "c2": 1}
    assert plan.loads == [["c1"], ["c2"]]


def test_a_record_delivered_again_after_a_crash_changes_no_byte():
    before = one(ShardLogic(FakePlan()), event("t1"), event("t2", ts=T + 5))
    again = one(ShardLogic(FakePlan(before.states)), event("t2", ts=T + 5), event("t1"))
    assert again.states == before.states
    assert again.added == 0
    assert len(again.records) == 2


def test_a_forgotten_state_is_loaded_anew(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "CACHED_STATES", 2)
    plan = FakePlan()
    logic = ShardLogic(plan)
    for name in ("a", "b", "a", "c", "a", "b"):
        plan.stored |= one(logic, event(f"{name}-{len(plan.loads)}-{T}", card=name)).states
    assert plan.loads == [["a"], ["b"], ["c"], ["b"]]  # b was the longest unused when c came
    assert counts(plan.stored, T + 1)["b"] == 2


def test_a_batch_larger_than_the_cache_is_still_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "CACHED_STATES", 2)
    written = one(ShardLogic(FakePlan()), *(event(f"t{n}", card=f"c{n}") for n in range(5)))
    assert counts(written.states, T + 1) == {f"c{n}": 1 for n in range(5)}


def test_bytes_of_another_view_are_refused_and_not_silently_replaced():
    foreign = update(MERCHANTS, None, as_events(MERCHANTS, [event("t0")])).state
    with pytest.raises(InvalidState, match="Rebuild it from history"):
        one(ShardLogic(FakePlan({"c1": foreign})), event("t1"))


def test_events_beyond_the_bound_are_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "update", lambda spec, state, events: update(spec, state, events, max_events=3))
    written = one(ShardLogic(FakePlan()), *(event(f"t{n}", ts=T + n) for n in range(5)))
    assert written.overflowed == 2
    assert header(CARDS, written.states["c1"]).events == 3


def test_a_shard_keeps_nothing_in_recovery_and_survives_pickling_of_its_elements():
    logic = ShardLogic(FakePlan())
    written = one(logic, event("t1"))
    assert logic.snapshot() is None
    assert pickle.loads(pickle.dumps(written)) == written
    assert pickle.loads(pickle.dumps(event("t1"))) == event("t1")


# --- _CountDown ------------------------------------------------------------------------------------------------------


def down(*batches: list[tuple[str, int]]) -> list[list[list[str]]]:
    logic = _CountDown(lambda: 0b11)
    found = []
    for given in batches:
        emitted, discard = logic.on_batch(given)
        assert not discard
        found.append(list(emitted))
    return found


def test_a_record_is_done_when_every_view_has_accounted_for_it():
    assert down([("1", 0b01)], [("1", 0b10)]) == [[], [["1"]]]
    assert down([("2", 0b10), ("1", 0b01), ("1", 0b10), ("2", 0b01)]) == [[["1", "2"]]]


def test_a_buried_record_is_done_at_once():
    assert down([("1", 0b11), ("2", 0b01)], [("2", 0b10)]) == [[["1"]], [["2"]]]


def test_one_view_twice_is_not_both_views():
    assert down([("1", 0b01), ("1", 0b01)], [("1", 0b10)]) == [[], [["1"]]]


def test_a_record_that_comes_again_is_counted_anew():
    assert down([("1", 0b11)], [("1", 0b01)], [("1", 0b10)]) == [[["1"]], [], [["1"]]]


# --- history ---------------------------------------------------------------------------------------------------------


def records(*numbers: int) -> list[Record]:
    return [record(b"", identifier=str(n)) for n in numbers]


def test_a_part_waits_for_enough_rows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(history, "ROWS", 4)
    buffer = _Buffer()
    assert buffer.notify_at() is None
    assert buffer.on_batch(records(1, 2)) == ([], False)
    assert buffer.on_batch(records(3, 4, 5)) == ([records(1, 2, 3, 4, 5)], False)
    assert buffer.notify_at() is None
    assert buffer.on_batch(records(6)) == ([], False)


def test_a_part_waits_no_longer_than_its_first_row_may():
    buffer = _Buffer()
    before = datetime.now(UTC)
    buffer.on_batch(records(1))
    due = buffer.notify_at()
    assert due is not None
    assert before + history.WAIT <= due <= datetime.now(UTC) + history.WAIT
    buffer.on_batch(records(2))
    assert buffer.notify_at() == due
    assert buffer.on_notify() == ([records(1, 2)], False)
    assert buffer.notify_at() is None
    assert buffer.on_notify() == ([], False)


def test_the_end_of_the_input_ends_a_part():
    buffer = _Buffer()
    buffer.on_batch(records(1))
    assert buffer.on_eof() == ([records(1)], False)
    assert buffer.on_eof() == ([], False)
    assert buffer.snapshot() is None


def test_history_gets_the_valid_rows_in_its_schema():
    rows = as_rows(
        [
            record(payment("t1", merchant_category="pets!", country="GB"), ingested_at=T + 7),
            record(b"no"),
            record(payment("t2", merchant_category="travel")),
        ],
        SETTINGS,
    )
    assert rows.schema == HISTORY_SCHEMA
    first, second = rows.to_pylist()
    assert (first["transaction_id"], first["merchant_category"], first["country"]) == ("t1", "other", "GB")
    assert first["timestamp"] == NOON
    assert first["ingested_at"] == NOON + timedelta(microseconds=7)
    assert (second["transaction_id"], second["merchant_category"], second["country"]) == ("t2", "travel", None)


@pytest.mark.parametrize(
    "behind", [0, 600_000_000, 600_000_001, 10**18, 10**30, -300_000_000, -300_000_001, -T], ids=str
)
def test_history_and_the_online_path_take_exactly_the_same_events(behind: int):
    given = record(payment(), ingested_at=T + behind)
    online = isinstance(parse(given, LATENESS, SKEW), Event)
    assert as_rows([given], SETTINGS).num_rows == int(online)


def test_nothing_valid_gives_an_empty_table_of_the_schema():
    assert as_rows([record(b"no")], SETTINGS).schema == HISTORY_SCHEMA
    assert as_rows([], SETTINGS).num_rows == 0
