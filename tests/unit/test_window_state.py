"""An entity's state: merges that may come in any order and twice, a stamp that orders versions, and a bound."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.window_history import History
from feature_repo.window_state import (
    MAX_EVENTS,
    Events,
    InvalidState,
    Slices,
    StateHeader,
    Update,
    code,
    finish,
    finish_columns,
    from_us,
    header,
    incomplete,
    to_list,
    to_us,
    update,
)
from feature_repo.windows import DAY, HOUR, MINUTE, SECOND, UnsupportedAggregation, WindowedFeature, WindowSpec

NOW = 17_000 * DAY + 5 * HOUR + 7


def spec(*features: tuple[str, str, int], event_id: str = "id", join_key: str = "card_id") -> WindowSpec:
    return WindowSpec("card", join_key, event_id, tuple(WindowedFeature(*feature) for feature in features))


SPEC = spec(
    ("count", "", HOUR),
    ("sum", "amount", HOUR),
    ("count", "", 30 * DAY),
    ("nunique", "shop", 30 * DAY),
    ("seconds_since_last", "", 0),
)


def events(*rows: tuple[int, str, float, str | None], ingest: int | None = None) -> Events:
    """Events of (instant, id, amount, shop)."""
    return Events(
        ts=np.array([row[0] for row in rows], np.int64),
        ids=np.array([code(row[1]) for row in rows], np.int64),
        values=np.array([[row[2] for row in rows]], np.float64),
        distinct=np.array([[code(row[3]) for row in rows]], np.int64),
        ingest=np.array([row[0] if ingest is None else ingest for row in rows], np.int64),
    )


def build(*batches: Events, max_events: int = MAX_EVENTS) -> bytes:
    state: bytes | None = None
    for batch in batches:
        state = update(SPEC, state, batch, max_events).state
    assert state is not None
    return state


def contents(state: bytes) -> tuple[bytes, int | None]:
    """What a state says of events: its columns, and the last event it has forgotten."""
    return state[48:], header(SPEC, state).last_dropped


def answers(state: bytes | None, at: int) -> dict[str, float | None]:
    return {name: to_list(column)[0] for name, column in finish(SPEC, [state], np.array([at])).items()}


MANY = [
    (NOW - ago, f"e{n}", float(n), f"s{n % 5}" if n % 7 else None)
    for n, ago in enumerate([0, 0, 1, MINUTE, HOUR, HOUR + 1, DAY, 29 * DAY, 30 * DAY, 31 * DAY, 45 * DAY, 60 * DAY])
]


def test_the_same_events_again_leave_the_state_as_it_is():
    once = update(SPEC, None, events(*MANY))
    assert once.added == len(MANY)
    again = update(SPEC, once.state, events(*reversed(MANY)))
    assert again.state == once.state
    assert (again.added, again.overflowed) == (0, 0)


def test_an_event_twice_in_one_batch_counts_once():
    found = update(SPEC, None, events(MANY[0], MANY[3], MANY[0]))
    assert found.added == 2
    assert header(SPEC, found.state).events == 2


@pytest.mark.parametrize("size", [3, 20])  # few new events are looked up one by one, many in a table
def test_the_first_delivery_of_an_id_stays_whatever_a_later_one_says(size: int):
    more = [(NOW - 10 - n, f"m{n}", 1.0, "s") for n in range(size - 1)]
    first = build(events((NOW, "e", 5.0, "s1"), *more))
    again = update(SPEC, first, events((NOW - 1, "e", 7.0, "s2"), *more))
    assert again.state == first
    in_one_batch = build(events((NOW, "e", 5.0, "s1"), *more, (NOW - 1, "e", 7.0, "s2")))
    assert contents(in_one_batch) == contents(first)


@pytest.mark.parametrize("seed", range(20))
def test_arrival_order_and_batches_never_change_the_contents(seed: int):
    draw = random.Random(seed)
    delivered = MANY + draw.choices(MANY, k=6)
    draw.shuffle(delivered)
    cuts = sorted(draw.sample(range(1, len(delivered)), 4))
    batches = [delivered[a:b] for a, b in zip([0, *cuts], [*cuts, len(delivered)], strict=True)]
    assert contents(build(*(events(*batch) for batch in batches))) == contents(build(events(*MANY)))


def test_the_stamp_grows_with_every_change_and_only_then():
    state, stamps = None, []
    for late in (0, 5, 3, 3, 9, 1):
        found = update(SPEC, state, events((NOW + late, f"e{late}", 1.0, "s")))
        stamps.append(header(SPEC, found.state).stamp)
        assert (found.state == state) == (found.added == 0)
        state = found.state
    assert stamps == [NOW, NOW + 5, NOW + 6, NOW + 6, NOW + 9, NOW + 10]


def test_a_repetition_had_later_changes_neither_state_nor_stamp():
    state = build(events(MANY[0]))
    assert update(SPEC, state, events(MANY[0], ingest=NOW + HOUR)).state == state


def test_what_was_forgotten_and_comes_again_changes_nothing():
    old, new = (NOW - 60 * DAY, "old", 1.0, "s"), (NOW, "new", 1.0, "s")
    state = build(events(old), events(new))
    assert header(SPEC, state).events == 1
    again = update(SPEC, state, events(old))
    assert again.state == state
    assert again.added == 0


def test_a_forgotten_event_keeps_its_instant():
    state = build(events((NOW - 60 * DAY, "a", 1.0, "s")), events((NOW, "b", 1.0, "s")))
    found = header(SPEC, state)
    assert (found.events, found.last_dropped) == (1, NOW - 60 * DAY)
    assert answers(state, NOW)["card_seconds_since_last"] == 60 * 86_400
    assert answers(state, NOW)["card_count_30d"] == 0


def test_an_event_stays_as_long_as_a_window_can_see_it():
    edge = NOW - SPEC.retention
    state = build(events((edge, "at the edge", 1.0, "s"), (edge - 1, "beyond", 1.0, "s"), (NOW, "now", 1.0, "s")))
    found = header(SPEC, state)
    assert (found.events, found.last_dropped) == (2, edge - 1)


def test_beyond_the_bound_the_oldest_go_and_are_counted():
    rows = [(NOW - n * MINUTE, f"e{n}", 1.0, "s") for n in range(10)]
    found = update(SPEC, None, events(*rows), max_events=4)
    assert (found.added, found.overflowed) == (10, 6)
    assert header(SPEC, found.state).events == 4
    assert header(SPEC, found.state).last_dropped == NOW - 4 * MINUTE
    later = update(SPEC, found.state, events((NOW + 1, "later", 1.0, "s")), max_events=4)
    assert (later.added, later.overflowed) == (1, 1)
    assert header(SPEC, later.state).last_dropped == NOW - 3 * MINUTE


def test_what_went_for_room_and_comes_again_is_not_counted_again():
    rows = [(NOW - n * MINUTE, f"e{n}", 1.0, "s") for n in range(10)]
    state = update(SPEC, None, events(*rows), max_events=4).state
    again = update(SPEC, state, events(*rows), max_events=4)
    assert again.state == state
    assert (again.added, again.overflowed) == (0, 0)


def test_a_state_is_incomplete_exactly_while_a_window_reaches_what_was_dropped():
    rows = [(NOW - n * MINUTE, f"e{n}", 1.0, "s") for n in range(10)]
    dropped = NOW - 4 * MINUTE
    state = update(SPEC, None, events(*rows), max_events=4).state
    leaves = dropped + 30 * DAY  # exact window; the far edge is rounded down to 12 h
    leaves += -leaves % (12 * HOUR)
    assert incomplete(SPEC, state, NOW)
    assert incomplete(SPEC, state, leaves - 1)
    assert not incomplete(SPEC, state, leaves + 12 * HOUR)
    full = build(events(*rows))
    for at in (NOW, leaves - 1, leaves + 12 * HOUR):
        wrong = answers(state, at)["card_count_30d"] != answers(full, at)["card_count_30d"]
        assert wrong == incomplete(SPEC, state, at)


def test_a_state_that_forgot_only_by_age_is_complete():
    state = build(events((NOW - 60 * DAY, "a", 1.0, "s")), events((NOW, "b", 1.0, "s")))
    assert not incomplete(SPEC, state, NOW)
    assert not incomplete(SPEC, build(events(MANY[0])), NOW)


def test_a_hundred_thousand_events_on_one_key_stay_within_the_bound():
    count, bound = 100_000, 4096
    ts = NOW + np.arange(count, dtype=np.int64) * SECOND
    ids = np.arange(1, count + 1, dtype=np.int64)
    state, added, overflowed = None, 0, 0
    for begin in range(0, count, 2_000):
        part = slice(begin, begin + 2_000)
        found = update(
            SPEC,
            state,
            Events(ts[part], ids[part], np.ones((1, 2_000)), ids[part].reshape(1, -1) % 100 + 1, ts[part]),
            bound,
        )
        state, added, overflowed = found.state, added + found.added, overflowed + found.overflowed
    assert state is not None
    assert len(state) == 8 * (6 + 4 * bound)
    assert (added, overflowed) == (count, count - bound)
    at = int(ts[-1]) + 1
    assert incomplete(SPEC, state, at)
    found_now = answers(state, at)
    assert found_now["card_count_1h"] == 3_600  # the short window is whole: the bound is beyond it
    assert found_now["card_count_30d"] == bound
    assert found_now["card_nunique_shop_30d"] == 100
    in_one_call = update(SPEC, None, Events(ts, ids, np.ones((1, count)), ids.reshape(1, -1) % 100 + 1, ts), bound)
    assert contents(in_one_call.state) == contents(state)


STATE = build(events(*MANY))


@pytest.mark.parametrize(
    "foreign",
    [
        b"",
        STATE[:-8],
        STATE[:-3],
        STATE[:48],
        STATE + bytes(8),
        bytes(8) + STATE[8:],
        b"not a state at all, but long enough to hold a header of six words",
    ],
    ids=["empty", "truncated", "cut in a word", "header alone", "too long", "wrong magic", "a text"],
)
@pytest.mark.parametrize(
    "use",
    [
        lambda foreign: header(SPEC, foreign),
        lambda foreign: update(SPEC, foreign, events(MANY[0])),
        lambda foreign: finish(SPEC, [None, foreign], np.array([NOW, NOW])),
        lambda foreign: incomplete(SPEC, foreign, NOW),
    ],
    ids=["header", "update", "finish", "incomplete"],
)
def test_bytes_that_are_no_state_are_refused_with_the_way_out(use: Callable[[bytes], object], foreign: bytes):
    with pytest.raises(InvalidState, match=r"keyed by 'card_id'.*id, amount, shop.*Rebuild it from history"):
        use(foreign)


@pytest.mark.parametrize(
    "other",
    [
        spec(("sum", "tip", HOUR), ("nunique", "shop", 30 * DAY)),  # another column in the same place
        spec(("sum", "amount", HOUR), ("nunique", "device", 30 * DAY)),
        spec(("sum", "amount", HOUR), ("nunique", "shop", 90 * DAY)),  # reaches further back
        spec(("sum", "amount", HOUR), ("nunique", "shop", 30 * DAY), event_id="other"),
        spec(("sum", "amount", HOUR), ("nunique", "shop", 30 * DAY), join_key="merchant_id"),
    ],
    ids=["value", "distinct", "window", "event id", "entity"],
)
def test_a_state_of_other_columns_or_shorter_reach_is_not_misread(other: WindowSpec):
    with pytest.raises(InvalidState):
        header(other, build(events(*MANY)))


def test_another_window_within_reach_reads_the_state_as_it_is():
    state = build(events(*MANY))
    wider = spec(("count", "", 15 * MINUTE), ("max", "amount", HOUR), ("nunique", "shop", 30 * DAY))
    found = finish(wider, [state], np.array([NOW + 1]))
    assert found["card_count_15m"][0] == 4
    assert found["card_max_amount_1h"][0] == 3.0


def test_the_header_says_what_the_state_is():
    rows = [(NOW - HOUR, "a", 1.0, "s"), (NOW, "b", 2.0, "s")]
    state = build(events(rows[0], ingest=NOW + 3), events(rows[1], ingest=NOW + 2))
    assert header(SPEC, state) == StateHeader(
        events=2, stamp=NOW + 4, last_dropped=None, applied=2, last_ingest=NOW + 3, last_event=NOW
    )


def test_no_event_gives_an_empty_state_that_answers_like_no_state():
    empty = build(events())
    assert header(SPEC, empty) == StateHeader(0, header(SPEC, empty).stamp, None, 0, None, None)
    assert answers(empty, NOW) == answers(None, NOW)
    assert not incomplete(SPEC, empty, NOW)
    assert contents(build(events(), events(*MANY))) == contents(build(events(*MANY)))


def test_an_unknown_entity_has_zero_counts_and_sums_and_an_unknown_age():
    assert answers(None, NOW) == {
        "card_count_1h": 0,
        "card_sum_amount_1h": 0,
        "card_count_30d": 0,
        "card_nunique_shop_30d": 0,
        "card_seconds_since_last": None,
    }


def test_a_view_of_the_age_alone_needs_no_window():
    age = spec(("seconds_since_last", "", 0))
    no_columns = Events(np.array([NOW]), np.array([1]), np.empty((0, 1)), np.empty((0, 1), np.int64), np.array([NOW]))
    state = update(age, None, no_columns).state
    found = finish(age, [state, None, state], np.array([NOW + 5 * SECOND, NOW, NOW]))
    assert to_list(found["card_seconds_since_last"]) == [5.0, None, None]
    assert not incomplete(age, state, NOW)


def test_an_event_never_sees_its_own_instant():
    state = build(events((NOW, "a", 1.0, "s"), (NOW, "b", 1.0, "s"), (NOW - HOUR, "edge", 1.0, "s")))
    assert answers(state, NOW)["card_count_1h"] == 1
    assert answers(state, NOW + 1)["card_count_1h"] == 2  # the one on the edge has left
    assert answers(state, NOW)["card_seconds_since_last"] == 3600


def test_lists_in_give_lists_out_with_none_for_null():
    inputs = {"state": [None, build(events(MANY[0]))], "at": [NOW, NOW + SECOND]}
    found = finish_columns(SPEC.dumps(), inputs, "state", "at")
    assert found["card_seconds_since_last"] == [None, 1.0]
    assert found["card_count_1h"] == [0.0, 1.0]
    arrays = finish_columns(SPEC.dumps(), inputs | {"at": np.array(inputs["at"])}, "state", "at")
    assert np.isnan(arrays["card_seconds_since_last"][0])


def test_null_has_a_code_of_its_own():
    assert code(None) == 0
    assert 0 not in {code(text) for text in ("", "0", "null", *map(str, range(1_000)))}
    assert code("m1") == code("m1") != code("m2")


def test_instants_are_exact_to_the_microsecond_in_any_zone():
    at = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=-11)))
    assert from_us(to_us(at)) == at
    assert from_us(to_us(at)).tzinfo is UTC
    assert to_us(datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == 253_402_300_799_999_999


def history(rows: list[tuple[int, str, float, str | None]], created: list[int]) -> History:
    columns = {
        "card_id": pa.array(["c"] * len(rows)),
        "id": pa.array([row[1] for row in rows]),
        "amount": pa.array([row[2] for row in rows]),
        "shop": pa.array([row[3] for row in rows], pa.string()),
        "ts": pa.array([row[0] for row in rows]).cast(pa.timestamp("us", tz="UTC")),
        "created": pa.array(created).cast(pa.timestamp("us", tz="UTC")),
    }
    return History.of(SPEC, pa.table(columns), "ts", "created")


def test_history_keeps_the_delivery_that_came_first_as_the_stream_does():
    first, again = (NOW, "e", 5.0, "s1"), (NOW - MINUTE, "e", 7.0, "s2")
    rebuilt = history([again, first], [NOW + 9, NOW + 1]).states(NOW + DAY)["c"]
    assert rebuilt == build(events(first, ingest=NOW + 1), events(again, ingest=NOW + 9))


def test_an_id_that_two_entities_use_is_two_events():
    table = pa.table(
        {
            "card_id": ["c", "d", "c"],
            "id": ["e", "e", "e"],
            "amount": [1.0, 2.0, 3.0],
            "shop": pa.array([None] * 3, pa.string()),
            "ts": pa.array([NOW] * 3).cast(pa.timestamp("us", tz="UTC")),
        }
    )
    states = History.of(SPEC, table, "ts", None).states(NOW + DAY)
    assert {name: answers(state, NOW + 1)["card_sum_amount_1h"] for name, state in states.items()} == {"c": 1, "d": 2}


def test_a_rebuilt_state_that_knows_a_late_event_outranks_one_that_does_not():
    rows = [(NOW, "a", 1.0, "s"), (NOW - DAY, "late", 1.0, "s")]
    past = history(rows, [NOW, NOW + HOUR])
    before, after = past.states(NOW + DAY, known=NOW + 1)["c"], past.states(NOW + DAY, known=NOW + HOUR)["c"]
    assert header(SPEC, before).events == 1
    assert header(SPEC, after).events == 2
    assert header(SPEC, after).stamp > header(SPEC, before).stamp


def test_a_rebuilt_state_never_outranks_the_streamed_one_of_the_same_events():
    draw = random.Random(3)
    for _ in range(30):
        arrivals = draw.sample(MANY, len(MANY))
        created = [max(row[0], NOW - DAY + n) for n, row in enumerate(arrivals)]
        streamed = build(*(events(row, ingest=at) for row, at in zip(arrivals, created, strict=True)))
        rebuilt = history(arrivals, created).states(NOW + DAY)["c"]
        assert header(SPEC, rebuilt).stamp <= header(SPEC, streamed).stamp
        assert contents(rebuilt) == contents(streamed)


@pytest.mark.parametrize(
    "value",
    [
        WindowedFeature("sum", "amount", HOUR),
        SPEC,
        events(*MANY),
        update(SPEC, None, events(*MANY)),
        header(SPEC, update(SPEC, None, events(*MANY)).state),
        history(MANY, [row[0] for row in MANY]),
        history(MANY, [row[0] for row in MANY]).slices(pa.array(["c", "nobody"]), np.array([NOW, NOW])),
        InvalidState("broken"),
        UnsupportedAggregation("median"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_public_class_survives_pickling(value: object):
    again = pickle.loads(pickle.dumps(value))
    assert type(again) is type(value)
    if isinstance(value, Exception):
        assert str(again) == str(value)
    elif isinstance(value, Events | Slices | History):
        for name, column in vars(value).items():
            if isinstance(column, np.ndarray):
                np.testing.assert_array_equal(getattr(again, name), column)
            else:
                assert getattr(again, name) == column
    else:
        assert again == value


def test_a_pickled_spec_still_computes():
    state = build(events(*MANY))  # the spec has its layout by now
    again = pickle.loads(pickle.dumps(SPEC))
    assert isinstance(update(again, state, events(MANY[0])), Update)
    assert update(again, state, events(MANY[0])).state == state
