"""Sealed states: hot keys answered exactly, what a seal refuses and counts, and the ledger that must lie beside it."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.window_batch import Sealed, Stored, Updates, stamp_of, update_many
from feature_repo.window_history import History
from feature_repo.window_ledger import Ledger
from feature_repo.window_state import Events, InvalidState, code, finish, header, incomplete, to_list, update
from feature_repo.window_tiles import FINEST, seal_at
from feature_repo.windows import DAY, HOUR, MINUTE, SECOND, STATE_SLACK, WindowedFeature, WindowSpec, far_edge

NOW = 17_000 * DAY + 5 * HOUR + 7


def spec(*features: tuple[str, str, int]) -> WindowSpec:
    return WindowSpec("shop", "shop_id", "id", tuple(WindowedFeature(*feature) for feature in features))


SPEC = spec(
    ("count", "", HOUR),
    ("sum", "amount", DAY),
    ("count", "", 7 * DAY),
    ("std", "amount", 7 * DAY),
    ("nunique", "card", 7 * DAY),
    ("count", "", 30 * DAY),
    ("sum", "amount", 30 * DAY),
    ("max", "amount", 30 * DAY),
    ("nunique", "card", 30 * DAY),
    ("seconds_since_last", "", 0),
)


def payments(ts: np.ndarray, first: int = 1, cards: int = 50) -> Events:
    ids = np.arange(first, first + len(ts), dtype=np.int64)
    return Events(ts, ids, (ids % 997 / 100.0).reshape(1, -1), (ids * 7919 % cards + 1).reshape(1, -1), ts)


def touch(
    stored: Stored | None, events: Events, max_events: int = 10**6, seal_above: int = 8, spec: WindowSpec = SPEC
) -> tuple[Stored, Updates]:
    told = update_many(spec, [stored], np.array([len(events.ts)]), events, max_events, seal_above)
    return told.states[0], told


def hourly(count: int, until: int = NOW) -> Events:
    return payments(until - HOUR * np.arange(count, dtype=np.int64)[::-1])


def sealed(count: int = 100) -> Sealed:
    stored, _ = touch(None, hourly(count))
    assert isinstance(stored, Sealed)
    return stored


def state_of(stored: Stored) -> bytes:
    return stored.state if isinstance(stored, Sealed) else stored


def answers(stored: Stored, at: int, spec: WindowSpec = SPEC) -> dict[str, float | None]:
    return {name: to_list(column)[0] for name, column in finish(spec, [state_of(stored)], np.array([at])).items()}


def plain(events: Events) -> bytes:
    return update(SPEC, None, events).state


def test_a_hundred_thousand_payments_in_thirty_days_are_all_answered_for():
    count = 100_000
    draw = np.random.default_rng(5)
    ts = np.sort(NOW - draw.integers(0, 35 * DAY, count))
    events = payments(ts, cards=40_000)
    stored: Stored | None = None
    largest, refused = 0, 0
    for begin in range(0, count, 500):
        stored, told = touch(stored, events.where(slice(begin, begin + 500)), seal_above=512)
        assert told.overflowed == 0
        largest, refused = max(largest, header(SPEC, state_of(stored)).events), refused + told.sealed
    assert isinstance(stored, Sealed)
    assert (refused, header(SPEC, stored.state).applied) == (0, count)
    assert largest < 34 * 120 + 500  # of 120 an hour, those of a day and a third
    for at in (int(ts[-1]) + 1, int(ts[-1]) - STATE_SLACK, NOW + 3 * DAY):
        found = answers(stored, at)
        for days in (7, 30):
            inside = (ts >= far_edge(days * DAY, at)) & (ts < at)
            assert found[f"shop_count_{days}d"] == inside.sum()
            assert found[f"shop_nunique_card_{days}d"] == len(np.unique(events.distinct[0, inside]))
        amounts = np.round(events.values[0, inside] * 100).astype(np.int64)
        assert found["shop_sum_amount_30d"] == amounts.sum() / 100
        assert found["shop_max_amount_30d"] == amounts.max() / 100
        assert not incomplete(SPEC, stored.state, at)
    assert len(stored.state) < 300_000


def test_a_small_state_and_one_of_short_windows_are_never_sealed():
    assert isinstance(touch(None, hourly(100), seal_above=100)[0], bytes)
    short = spec(("count", "", DAY), ("nunique", "card", HOUR), ("sum", "amount", HOUR))
    assert isinstance(touch(None, hourly(100), spec=short)[0], bytes)


def test_it_is_sealed_once_that_takes_a_quarter_of_its_events():
    edge = seal_at(NOW)
    recent = np.full(75, NOW)
    few, _ = touch(None, payments(np.append(np.full(24, edge - 1), recent)))
    enough, _ = touch(None, payments(np.append(np.full(25, edge - 1), recent)))
    assert isinstance(few, bytes)
    assert isinstance(enough, Sealed)
    found = header(SPEC, enough.state)
    assert (found.events, found.sealed_before, found.applied) == (75, edge, 100)


def test_an_event_on_the_seal_stays_one_that_every_window_can_tell():
    edge = seal_at(NOW)
    ts = np.array([*np.full(20, edge - 1), *np.full(20, edge), NOW])
    stored, _ = touch(None, payments(ts))
    assert header(SPEC, state_of(stored)).events == 21
    at = edge + DAY
    assert answers(stored, at) == answers(plain(payments(ts)), at)


def test_what_is_sealed_and_comes_again_changes_nothing_and_is_counted():
    before = sealed()
    after, told = touch(before, hourly(100))
    assert after is before
    below = header(SPEC, before.state)
    assert (told.added, told.sealed) == (0, 100 - below.events)
    assert told.stamps == [below.stamp]


def test_a_late_event_below_the_seal_is_refused_and_counted_and_one_above_it_is_not():
    before = sealed()
    edge = header(SPEC, before.state).sealed_before
    assert edge is not None
    late = payments(np.array([edge - 1, edge, edge + 1]), first=1_000)
    after, told = touch(before, late)
    assert (told.added, told.sealed) == (2, 1)
    assert answers(after, NOW + 1)["shop_count_30d"] == 102


def test_what_no_window_reaches_any_more_is_no_loss_when_it_comes_again():
    before = sealed(24 * 40)
    dropped = header(SPEC, before.state).last_dropped
    assert dropped is not None
    assert touch(before, payments(np.array([dropped]), first=5_000))[1].sealed == 0


def test_a_sealed_state_without_the_ledger_of_its_seal_is_refused_with_the_way_out():
    now, later = sealed(), touch(sealed(), hourly(100, NOW + 3 * DAY))[0]
    assert isinstance(later, Sealed)
    more = hourly(1, NOW + MINUTE)
    for broken in (
        now.state,
        replace(now, ledger=b""),
        replace(now, ledger=now.ledger[:-8]),
        replace(now, ledger=now.ledger[:-3]),
        replace(now, ledger=later.ledger),
    ):
        with pytest.raises(InvalidState, match=r"ledger.*rebuild|ledger.*Rebuild"):
            touch(broken, more)
    with pytest.raises(InvalidState, match="ledger"):
        update(SPEC, now.state, more)


def test_an_ordinary_state_ignores_a_ledger():
    state, more = plain(hourly(5)), hourly(1, NOW + 1)
    assert touch(Sealed(state, b"left behind"), more)[0] == update(SPEC, state, more).state


@pytest.mark.parametrize("cut", [8, 16, 8 * 20, 3])
def test_a_sealed_state_that_was_cut_short_is_refused(cut: int):
    whole = sealed()
    with pytest.raises(InvalidState, match="Rebuild it from history"):
        answers(replace(whole, state=whole.state[:-cut]), NOW)


def test_the_ledger_is_written_anew_only_when_something_is_sealed():
    before = sealed()
    before.saved = True
    after, _ = touch(before, payments(np.array([NOW + 1]), first=1_000))
    assert isinstance(after, Sealed)
    assert after.saved
    assert after.ledger is before.ledger
    again, _ = touch(after, hourly(100, NOW + 5 * DAY))
    assert isinstance(again, Sealed)
    assert not again.saved


def test_what_was_never_written_stays_to_be_written():
    after, _ = touch(sealed(), payments(np.array([NOW + 1]), first=1_000))
    assert isinstance(after, Sealed)
    assert not after.saved


def test_a_code_is_counted_once_however_often_and_wherever_it_was_sealed():
    edge = seal_at(NOW)
    ages = [6 * DAY, 5 * DAY, 2 * DAY + 1, 2 * DAY, *([26 * HOUR] * 6)]
    ts = np.array([edge - age for age in ages] + [NOW - HOUR, NOW])
    same = replace(payments(ts), distinct=np.full((1, len(ts)), code("one card")))
    stored: Stored | None = None
    for end in range(1, len(ts) + 1):
        stored, _ = touch(stored, same.where(slice(end - 1, end)), seal_above=0)
    assert isinstance(stored, Sealed)
    for days in range(9):
        assert answers(stored, NOW + 1 + days * DAY) == answers(plain(same), NOW + 1 + days * DAY)


def test_beyond_the_bound_the_oldest_unsealed_go_and_the_state_says_so():
    burst = payments(NOW - SECOND * np.arange(60, dtype=np.int64)[::-1], first=1_000)
    before, _ = touch(None, hourly(100), max_events=50)
    after, told = touch(before, burst, max_events=50)
    found = header(SPEC, state_of(after))
    assert (found.events, told.overflowed) == (50, told.added + header(SPEC, state_of(before)).events - 50)
    assert found.last_dropped is not None
    assert incomplete(SPEC, state_of(after), NOW + 1)
    assert answers(after, NOW + 1)["shop_count_30d"] == 160 - told.overflowed
    assert not incomplete(SPEC, state_of(after), NOW + 31 * DAY)


def test_what_can_be_sealed_needs_no_room():
    stored, told = touch(None, hourly(100), max_events=30)
    assert told.overflowed == 0
    assert answers(stored, NOW + 1) == answers(plain(hourly(100)), NOW + 1)


def test_a_question_too_far_behind_a_sealed_state_is_known_to_be_incomplete():
    state = sealed().state
    assert not incomplete(SPEC, state, NOW - STATE_SLACK)
    assert incomplete(SPEC, state, NOW - STATE_SLACK - 1)


def test_a_key_that_has_gone_quiet_is_an_ordinary_state_again():
    later = NOW + 40 * DAY
    after, told = touch(sealed(), hourly(3, later))
    assert isinstance(after, Sealed)
    assert (after.ledger, after.saved) == (b"", False)
    assert isinstance(touch(after, payments(np.array([later + 1]), first=900))[0], bytes)
    found = header(SPEC, after.state)
    assert (found.events, found.sealed_before, found.applied, told.added) == (3, None, 103, 3)
    assert found.last_dropped == NOW
    at = later - 2 * HOUR  # the instant of the first of the three
    assert answers(after, at) == answers(plain(hourly(3, later)), at) | {"shop_seconds_since_last": (at - NOW) / 1e6}


def test_the_last_event_is_known_also_where_it_is_sealed():
    ts = np.append(seal_at(NOW) - 3 * DAY - np.arange(20)[::-1], NOW)
    stored, _ = touch(None, payments(ts))
    assert header(SPEC, state_of(stored)).events == 1
    assert answers(stored, NOW)["shop_seconds_since_last"] == (NOW - ts[-2]) / 1e6


# Just below 60 steps of a coarser tile the edges are finest for the window's length.
@pytest.mark.parametrize("minutes", [1441, 1500, 1799, 1800, 3599, 3600, 7199, 7200, 14_399, 14_400, 30_000])
def test_other_windows_within_reach_read_a_sealed_state_as_it_is(minutes: int):
    window = minutes * MINUTE
    events = payments(NOW - 7 * MINUTE * np.arange(6_000, dtype=np.int64)[::-1])
    other = spec(("count", "", window), ("sum", "amount", window), ("nunique", "card", 30 * DAY), ("count", "", HOUR))
    everything = plain(events)
    stored: Stored | None = None
    seals = 0
    for end in range(50, 6_001, 50):
        before = stored
        stored, _ = touch(stored, events.where(slice(end - 50, end)), seal_above=0)
        sealed_now = isinstance(stored, Sealed) and not (isinstance(before, Sealed) and before.ledger is stored.ledger)
        if sealed_now and end > 4_000:
            seals += 1
            latest = int(events.ts[end - 1])
            for at in range(latest - STATE_SLACK, latest + 1, 5 * MINUTE):
                assert answers(stored, at, other) == answers(everything, at, other)
    assert seals > 10


def test_old_tiles_grow_so_that_a_state_stays_small():
    events = payments(NOW - 5 * MINUTE * np.arange(8_000, dtype=np.int64)[::-1])
    stored: Stored | None = None
    for begin in range(0, 8_000, 100):
        stored, _ = touch(stored, events.where(slice(begin, begin + 100)), seal_above=0)
    assert isinstance(stored, Sealed)
    found = header(SPEC, stored.state)
    tiles = (len(stored.state) // 8 - 6 - 5 * found.events - 2) // 11
    assert 200 < tiles < 350  # 2,880 of the finest


def test_many_states_in_one_call_each_get_their_own():
    small, large, hot = plain(hourly(3)), plain(payments(NOW - np.arange(3_000, dtype=np.int64))), sealed()
    stored: list[Stored | None] = [small, hot, None, large, None, hot]
    counts = np.array([2, 3, 1, 2, 0, 0])
    events = payments(NOW + np.arange(8, dtype=np.int64), first=100_000)
    found = update_many(SPEC, stored, counts, events, seal_above=8)
    ends = np.cumsum(counts)
    added = 0
    for place, one in enumerate(stored):
        part = events.where(slice(ends[place] - counts[place], ends[place]))
        alone = update_many(SPEC, [one], counts[place : place + 1], part, seal_above=8)
        assert (found.states[place], found.stamps[place]) == (alone.states[0], alone.stamps[0])
        added += alone.added
    assert (found.added, added, found.sealed) == (8, 8, 0)


def test_a_view_without_values_or_distinct_columns_is_sealed_too():
    bare = spec(("count", "", 30 * DAY), ("seconds_since_last", "", 0))
    ts = NOW - HOUR * np.arange(100, dtype=np.int64)[::-1]
    events = Events(ts, ts, np.empty((0, 100)), np.empty((0, 100), np.int64), ts)
    stored, _ = touch(None, events, spec=bare)
    assert isinstance(stored, Sealed)
    assert answers(stored, NOW + 1, bare)["shop_count_30d"] == 100
    assert touch(stored, events.where(slice(90, None)), spec=bare)[0] is stored


def test_a_ledger_is_read_as_it_was_written():
    ledger = Ledger.empty(7, 2).after(9, np.array([3, 4, 5]), np.array([[8, 8, 0], [1, 2, 1]]), 4)
    again = Ledger.loads(ledger.dumps(), 2)
    assert again is not None
    assert (again.magic, again.seal) == (7, 9)
    assert [codes.tolist() for codes in again.codes] == [[8], [1, 2]]
    assert [lasts.tolist() for lasts in again.lasts] == [[4], [5, 4]]
    assert again.before(np.array([[8, 9], [2, 0]])).tolist() == [[4, -(2**63)], [4, -(2**63)]]
    assert pickle.loads(pickle.dumps(ledger)).dumps() == ledger.dumps()


def test_the_finest_tile_is_that_of_the_shortest_window_that_has_tiles():
    assert FINEST == 15 * MINUTE
    assert seal_at(NOW) % FINEST == 0
    assert NOW - 25 * HOUR - FINEST < seal_at(NOW) <= NOW - 25 * HOUR


def test_a_state_rebuilt_from_history_is_sealed_where_that_pays():
    ts = NOW - 10 * MINUTE * np.arange(3_000, dtype=np.int64)[::-1]
    events = payments(ts)
    table = pa.table(
        {
            "shop_id": ["hot"] * 3_000 + ["quiet"],
            "id": [str(n) for n in range(3_001)],
            "amount": [*events.values[0], 1.0],
            "card": [*(str(n) for n in events.distinct[0]), "x"],
            "ts": pa.array([*ts, NOW - DAY]).cast(pa.timestamp("us", tz="UTC")),
        }
    )
    history = History.of(SPEC, table, "ts", None)
    parts = list(history.rebuilt(NOW + 1))
    stored = {name: one for part in parts for name, one in zip(part.entities, part.states, strict=True)}
    states = history.states(NOW + 1)
    assert isinstance(stored["hot"], Sealed)
    assert stored["quiet"] == states["quiet"]
    assert answers(stored["hot"], NOW + 1) == answers(states["hot"], NOW + 1)
    for name in ("hot", "quiet"):
        assert stamp_of(SPEC, stored[name]) == header(SPEC, states[name]).stamp
    assert isinstance(touch(stored["hot"], hourly(1, NOW + HOUR))[0], Sealed)
