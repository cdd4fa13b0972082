"""The steps of the stream job, lists in and lists out, against a plan that holds states in a dictionary."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from feast.aggregation import Aggregation

from feature_repo.schema import HISTORY_SCHEMA
from feature_repo.settings import Settings
from feature_repo.window_batch import update_many
from feature_repo.window_state import InvalidState, code, finish, header, to_us
from feature_repo.windows import WindowSpec, spec_of
from monitoring.metrics import metrics
from stream_jobs import engine, history
from stream_jobs.blocks import SHARDS, Block, Part, columns, fan_out
from stream_jobs.engine import ShardLogic, Written
from stream_jobs.history import _Buffer, as_rows
from stream_jobs.payments import read
from stream_jobs.transports.base import Record
from stream_jobs.velocity import Receipt, _CountDown, _Steps

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

    specs: ClassVar[dict[str, WindowSpec]] = {"card_velocity": CARDS, "merchant_velocity": MERCHANTS}

    def __init__(self, stored: Mapping[str, Any] | None = None) -> None:
        self.stored = dict(stored or {})
        self.loads: list[list[str]] = []

    def load(self, view: str, entities: Sequence[str]) -> list[Any]:
        self.loads.append(list(entities))
        return [self.stored.get(name) for name in entities]


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


def block(*events: dict[str, Any]) -> Block:
    """Events of which only what matters is given; the others have the fields of `t`."""
    given = [{"transaction_id": "t", "card_id": "c1", "merchant_id": "m1", "amount": 1.0, "ts": T} | e for e in events]
    ts = np.array([e["ts"] for e in given], np.int64)
    fields = {name: [e[name] for e in given] for name in ("transaction_id", "card_id", "merchant_id", "amount")}
    return Block("b1", "transactions", fields, ts, ts + 1, ts + 2)


def parts(*events: dict[str, Any]) -> list[Part]:
    """The parts of a block for `card_velocity`."""
    return [part for _, part in fan_out({"card_velocity": CARDS}, block(*events))]


# --- parse -----------------------------------------------------------------------------------------------------------


def test_a_valid_record_becomes_a_payment_with_its_time_and_when_it_was_had():
    given = record(payment(channel="pos"), ingested_at=T + 3)
    found = read([given], LATENESS, SKEW)
    assert (found.records, found.ts, found.ingested_at().tolist(), found.dead) == ([given], [T], [T + 3], [])
    assert (found.column("amount"), found.column("device_id"), found.column("channel")) == ([12.5], [None], ["pos"])


def test_the_dead_are_taken_out_from_between_the_living():
    given = [record(payment("t1")), record(b"no"), record(payment("t2", timestamp="2026-03-01T13:00:00.5+01:00"))]
    found = read(given, LATENESS, SKEW)
    assert found.column("transaction_id") == ["t1", "t2"]
    assert found.ts == [T, T + 500_000]
    assert [dead for dead, _ in found.dead] == [given[1]]
    made = found.block("transactions", ("card_id", "amount"))
    assert made.fields == {"card_id": ["c1", "c1"], "amount": [12.5, 12.5]}
    assert (made.ts.tolist(), made.appended_at.tolist()) == ([T, T + 500_000], [T, T])


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
        (payment(timestamp="9999-12-31T23:59:59-01:00"), "timestamp"),
    ],
    ids=["text", "nothing", "no utf-8", "deep", "negative", "no card", "naive", "another field", "infinite", "beyond"],
)
def test_what_is_no_payment_comes_with_the_reason(body: dict[str, Any] | bytes, said: str):
    given = record(body, identifier="7-1")
    found = read([given], LATENESS, SKEW)
    ((dead, reason),) = found.dead
    assert dead is given
    assert reason.startswith("invalid: Transaction in record 7-1: ")
    assert said in reason
    assert not found.payments


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
    found = read([record(payment(), ingested_at=T + behind)], LATENESS, SKEW)
    assert len(found.payments) == (outcome == "event")
    assert not found.dead if outcome == "event" else found.dead[0][1].startswith(outcome)


# --- fan out ---------------------------------------------------------------------------------------------------------


def test_an_event_goes_once_to_each_view_under_its_entity():
    found = list(fan_out(FakePlan.specs, block({"card_id": "c1", "merchant_id": "m9"})))
    assert [(part.view, part.entities) for _, part in found] == [
        ("card_velocity", ["c1"]),
        ("merchant_velocity", ["m9"]),
    ]
    assert [shard.split("/")[0] for shard, _ in found] == ["card_velocity", "merchant_velocity"]
    assert {(part.block, part.partition) for _, part in found} == {("b1", "transactions")}


def test_an_entity_always_falls_into_the_same_shard_and_all_shards_are_used():
    events = [{"transaction_id": f"t{n}", "card_id": f"c{n % 400}", "ts": T + n} for n in range(800)]
    shards: dict[str, set[str]] = {}
    rows = 0
    for half in (events[:401], events[401:]):
        for shard, part in fan_out({"card_velocity": CARDS}, block(*half)):
            assert len(part.entities) == len(part.counts)
            assert len(part.events.ts) == part.counts.sum() == len(part.appended_at)
            begins = np.cumsum(part.counts) - part.counts
            for entity, first, count in zip(part.entities, begins, part.counts, strict=True):
                shards.setdefault(entity, set()).add(shard)
                mine = part.events.ts[first : first + count] - T
                assert {f"c{n % 400}" for n in mine} == {entity}
                assert mine.tolist() == sorted(mine)
                rows += count
    assert rows == 800
    assert all(len(of_one) == 1 for of_one in shards.values())
    assert {shard for of_one in shards.values() for shard in of_one} == {f"card_velocity/{n}" for n in range(SHARDS)}


def test_columns_come_in_the_order_of_the_spec_and_nulls_stay_apart():
    given = {"transaction_id": "t2", "ts": T + 1, "merchant_id": None, "amount": None}
    (part,) = parts({"transaction_id": "t1", "amount": 2.5}, given)
    found = part.events
    assert found.ts.tolist() == [T, T + 1]
    assert found.ingest.tolist() == [T + 1, T + 2]
    assert found.ids.tolist() == [code("t1"), code("t2")]
    np.testing.assert_array_equal(found.values, [[2.5, np.nan]])
    assert found.distinct.tolist() == [[code("m1"), 0]]


def test_integers_and_truths_stand_for_their_texts_as_in_history():
    for value, text in ((7, "7"), (True, "true"), (False, "false"), ("x", "x")):
        (part,) = parts({"merchant_id": value, "transaction_id": value, "card_id": value})
        assert part.entities == [text]
        assert part.events.distinct.tolist() == [[code(text)]]
        assert part.events.ids.tolist() == [code(text)]


def test_a_view_names_every_field_that_it_reads_once():
    assert columns(CARDS) == ("card_id", "transaction_id", "amount", "merchant_id")


# --- ShardLogic ------------------------------------------------------------------------------------------------------


def one(logic: ShardLogic, *events: dict[str, Any]) -> Written:
    """What a shard makes of the parts of a block, as if all of them were its own."""
    found, discard = logic.on_batch(parts(*events))
    assert not discard
    (written,) = found
    return written


def t(identifier: str, card: str = "c1", ts: int = T) -> dict[str, Any]:
    return {"transaction_id": identifier, "card_id": card, "ts": ts}


def states(written: Written) -> dict[str, Any]:
    return dict(zip(written.entities, written.states, strict=True))


def counts(found: Mapping[str, Any], at: int) -> dict[str, float]:
    finished = finish(CARDS, [plain(state) for state in found.values()], np.full(len(found), at))
    return dict(zip(found, finished["card_count_1h"].tolist(), strict=True))


def plain(state: Any) -> bytes:
    return state if isinstance(state, bytes) else state.state


def test_a_batch_gives_each_touched_state_once_and_accounts_for_every_event():
    written = one(ShardLogic(FakePlan()), t("t1"), t("t2", "c2"), t("t3"), t("t1"))
    assert written.view == "card_velocity"
    assert counts(states(written), T + 1) == {"c1": 2, "c2": 1}
    assert sum(len(part.appended_at) for part in written.parts) == 4
    assert (written.added, written.overflowed) == (3, 0)
    assert [header(CARDS, plain(state)).stamp for state in written.states] == written.stamps


def test_parts_of_several_blocks_are_merged_one_after_the_other():
    logic = ShardLogic(FakePlan())
    found, _ = logic.on_batch([*parts(t("t1"), t("t2", "c2")), *parts(t("t3", ts=T - 1), t("t1"))])
    (written,) = found
    assert counts(states(written), T + 1) == {"c1": 2, "c2": 1}
    assert written.added == 3


def test_a_state_is_loaded_once_and_then_carried_on():
    stored = one(ShardLogic(FakePlan()), t("t0", ts=T - 5)).states[0]
    plan = FakePlan({"c1": stored})
    logic = ShardLogic(plan)
    assert counts(states(one(logic, t("t1"))), T + 1) == {"c1": 2}
    plan.stored.clear()
    assert counts(states(one(logic, t("t2"), t("n1", "c2"))), T + 1) == {"c1": 3, "c2": 1}
    assert plan.loads == [["c1"], ["c2"]]


def test_a_record_delivered_again_after_a_crash_changes_no_byte():
    before = one(ShardLogic(FakePlan()), t("t1"), t("t2", ts=T + 5))
    again = one(ShardLogic(FakePlan(states(before))), t("t2", ts=T + 5), t("t1"))
    assert again.states == before.states
    assert again.added == 0


def test_a_state_not_touched_for_a_generation_is_forgotten_and_loaded_anew(monkeypatch: pytest.MonkeyPatch):
    size = engine._size(one(ShardLogic(FakePlan()), t("t0")).states[0])
    monkeypatch.setattr(engine, "CACHE_BYTES", int(1.9 * size) * 4 * SHARDS)  # a generation of two states
    plan = FakePlan()
    logic = ShardLogic(plan)
    for n, name in enumerate(("a", "b", "a", "c", "a", "b")):
        # A state's size does not grow: each event is beyond the reach of the one before.
        plan.stored |= states(one(logic, t(f"{name}-{n}", name, T + n * 10 * 86_400_000_000)))
    assert plan.loads == [["a"], ["b"], ["c"], ["b"]]  # b was not touched while a and c were


def test_a_batch_larger_than_the_cache_is_still_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "CACHE_BYTES", 0)
    plan = FakePlan()
    logic = ShardLogic(plan)
    events = [t(f"t{n}", f"c{n}") for n in range(5)]
    written = one(logic, *events, *(t(f"u{n}", f"c{n}") for n in range(5)))
    assert counts(states(written), T + 1) == {f"c{n}": 2 for n in range(5)}
    plan.stored |= states(written)
    assert counts(states(one(logic, t("v", "c3"))), T + 1) == {"c3": 3}


def test_bytes_of_another_view_are_refused_and_not_silently_replaced():
    ((_, foreign),) = fan_out({"merchant_velocity": MERCHANTS}, block(t("t0")))
    (state,) = update_many(MERCHANTS, [None], foreign.counts, foreign.events).states
    with pytest.raises(InvalidState, match="Rebuild it from history"):
        one(ShardLogic(FakePlan({"c1": state})), t("t1"))


def test_events_beyond_the_bound_are_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "update_many", lambda *given: update_many(*given, max_events=3))
    written = one(ShardLogic(FakePlan()), *(t(f"t{n}", ts=T + n) for n in range(5)))
    assert written.overflowed == 2
    assert header(CARDS, plain(written.states[0])).events == 3


def test_what_became_of_a_batch_is_counted_as_it_is_written(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "update_many", lambda *given: update_many(*given, max_events=3))
    written = one(ShardLogic(FakePlan()), *(t(f"t{n}", ts=T + n) for n in range(5)))
    told: list[tuple[str, float]] = []

    class Told:
        def up_to(self, partition: str, at: float) -> None:
            told.append((partition, at))

    class Writes(FakePlan):
        def write(self, *given: Any) -> None:
            self.written = given

    plan = Writes()
    steps = _Steps(cast(Any, plan), cast(Any, None), Settings())
    vars(steps)["_progress"] = Told()
    counted = (metrics.state_overflow, metrics.state_sealed, metrics.state_cache_misses, metrics.state_cache_hits)

    def values() -> list[float]:
        return [of.labels(view="card_velocity")._value.get() for of in counted]

    before = values()
    receipts = list(steps.write([("0", replace(written, sealed=4))]))
    assert [now - then for now, then in zip(values(), before, strict=True)] == [2.0, 4.0, 1.0, 0.0]
    assert plan.written[1] == ["c1"]
    assert [receipt.block for _, receipt in receipts] == [part.block for part in written.parts]
    assert metrics.stream_last_event._value.get() == max(at for _, at in told)


def test_a_shard_keeps_nothing_in_recovery_and_survives_pickling_of_what_it_is_sent():
    logic = ShardLogic(FakePlan())
    sent = pickle.loads(pickle.dumps(parts(t("t1"))))
    ((written,), _) = logic.on_batch(sent)
    assert written.states == one(ShardLogic(FakePlan()), t("t1")).states
    assert logic.snapshot() is None


# --- _CountDown ------------------------------------------------------------------------------------------------------


def down(*batches: list[Receipt]) -> list[list[list[str]]]:
    logic = _CountDown()
    found = []
    for given in batches:
        emitted, discard = logic.on_batch(given)
        assert not discard
        found.append(list(emitted))
    assert not logic._announced or not logic._written
    return found


def whole(block: str, parts: int) -> Receipt:
    return Receipt(block, parts, (f"{block}1", f"{block}2"))


def test_the_records_of_a_block_are_done_when_all_its_parts_are_written():
    assert down([whole("a", 2)], [Receipt("a")], [Receipt("a")]) == [[], [], [["a1", "a2"]]]


def test_a_part_may_be_written_before_the_block_is_announced():
    assert down([Receipt("a"), Receipt("b")], [whole("b", 1), whole("a", 1)]) == [[], [["b1", "b2", "a1", "a2"]]]


def test_a_block_without_a_valid_event_is_done_at_once():
    assert down([whole("a", 0), whole("b", 1)], [Receipt("b")]) == [[["a1", "a2"]], [["b1", "b2"]]]


# --- history ---------------------------------------------------------------------------------------------------------


def records(*numbers: int) -> list[Record]:
    return [record(b"", identifier=str(n)) for n in numbers]


def batch(*numbers: int) -> list[list[Record]]:
    return [records(*numbers)]


def test_a_part_waits_for_enough_rows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(history, "ROWS", 4)
    buffer = _Buffer()
    assert buffer.notify_at() is None
    assert buffer.on_batch(batch(1, 2)) == ([], False)
    assert buffer.on_batch(batch(3, 4, 5)) == ([records(1, 2, 3, 4, 5)], False)
    assert buffer.notify_at() is None
    assert buffer.on_batch(batch(6)) == ([], False)


def test_a_part_waits_no_longer_than_its_first_row_may():
    buffer = _Buffer()
    before = datetime.now(UTC)
    buffer.on_batch(batch(1))
    due = buffer.notify_at()
    assert due is not None
    assert before + history.WAIT <= due <= datetime.now(UTC) + history.WAIT
    buffer.on_batch(batch(2))
    assert buffer.notify_at() == due
    assert buffer.on_notify() == ([records(1, 2)], False)
    assert buffer.notify_at() is None
    assert buffer.on_notify() == ([], False)


def test_the_end_of_the_input_ends_a_part():
    buffer = _Buffer()
    buffer.on_batch(batch(1))
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
    assert as_rows([given], SETTINGS).num_rows == len(read([given], LATENESS, SKEW).payments)


def test_nothing_valid_gives_an_empty_table_of_the_schema():
    assert as_rows([record(b"no")], SETTINGS).schema == HISTORY_SCHEMA
    assert as_rows([], SETTINGS).num_rows == 0
