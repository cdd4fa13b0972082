"""One number everywhere, also where a training set asks one entity very often: blocks against events one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from feature_repo.window_busy import finish_rows
from feature_repo.window_history import History
from feature_repo.window_kernels import finish_slices
from feature_repo.window_layout import layout_of
from feature_repo.window_state import finish
from feature_repo.windows import DAY, HOUR, MINUTE
from tests.parity.oracle import brute_force, differences
from tests.parity.test_sealed_agree import AROUND, DISTINCT, HOURS, SPEC, VALUES, agos, amounts, frame, shops


def history(events: pd.DataFrame, created: bool) -> History:
    columns: dict[str, Any] = {n: pa.array(events[n].tolist(), pa.string()) for n in ("card_id", "id", *DISTINCT)}
    columns |= {n: pa.array(events[n].to_numpy(np.float64)) for n in VALUES}
    columns |= {n: pa.array(events[n].to_numpy(np.int64)).cast(pa.timestamp("us", tz="UTC")) for n in ("ts", "created")}
    return History.of(SPEC, pa.table(columns), "ts", "created" if created else None)


@st.composite
def histories(draw: st.DrawFn) -> tuple[pd.DataFrame, list[int]]:
    """Events of one card, most of them known soon, some days later; and the instants of questions among them."""
    at = draw(st.sampled_from(AROUND)) + draw(st.integers(0, HOUR))
    delays = st.one_of(st.integers(-5 * MINUTE, 10 * MINUTE), st.just(0), st.integers(0, 3 * DAY))
    row = st.tuples(agos, st.booleans(), delays, amounts, amounts, shops, shops)
    events = frame(at, draw(st.lists(row, min_size=1, max_size=60)))
    behind = st.one_of(st.just(0), st.integers(0, 60 * DAY), st.integers(0, 20).map(lambda k: -k * MINUTE))
    instants = [at - ago for ago in draw(st.lists(behind, min_size=1, max_size=8))]
    instants += [ts + h * HOUR + d for ts in events["ts"].head(3).tolist() for h in HOURS for d in (0, 1)]
    return events, instants


@settings(max_examples=max(settings.default.max_examples // 4, 1), phases=[Phase.explicit, Phase.generate])
@given(histories(), st.booleans())
def test_blocks_give_what_events_and_brute_force_give(case: Any, by_created: bool) -> None:
    events, instants = case
    at = np.array(instants, np.int64)
    source = history(events, by_created).slices(pa.array(["a"] * len(at)), at)
    columns = source.ts, source.created, source.values, source.distinct, source.begins, source.ends
    layout = layout_of(SPEC)
    found, last = finish_rows(layout, *columns, at, source.known, busy_rows=0)
    one_by_one, expected_last = finish_slices(*columns, at, source.known, layout.windows, layout.tiles)
    np.testing.assert_array_equal(last, expected_last)
    stds = [place for name, _, place in SPEC.places if "_std_" in name]
    others = [place for place in range(found.shape[2]) if place not in stds]
    np.testing.assert_array_equal(found[:, :, others], one_by_one[:, :, others])  # amounts are in cents: to the bit

    age = np.where(last < 0, np.nan, (at - last) / 1e6)
    told = {name: found[:, window, place] if window >= 0 else age for name, window, place in SPEC.places}
    questions = pd.DataFrame({"card_id": "a", "at": at, "known": at if by_created else 2**60})
    assert differences(SPEC, brute_force(SPEC, events, questions), pd.DataFrame(told)) == []


def answers(rows: list[tuple[int, int, str]], at: int) -> tuple[float, float]:
    """Events and shops of 30 days, of events (ago, delay, shop)."""
    events = frame(AROUND[0], [(ago, False, delay, 1.0, 1.0, shop, None) for ago, delay, shop in rows])
    source = history(events, True).slices(pa.array(["a"]), np.array([at]))
    columns = source.ts, source.created, source.values, source.distinct, source.begins, source.ends
    found, _ = finish_rows(layout_of(SPEC), *columns, np.array([at]), source.known, busy_rows=0)
    places = {name: (window, place) for name, window, place in SPEC.places}
    return found[0][places["card_count_30d"]], found[0][places["card_nunique_shop_30d"]]


def test_a_shop_whose_last_event_is_not_known_yet_counts_by_the_one_before():
    other = 30 * HOUR, 0, "s2"  # so that the first of s1 lies in a whole block
    known, late = (10 * DAY, 0, "s1"), (HOUR, 2 * HOUR, "s1")
    assert answers([other, known, late], AROUND[0]) == (2, 2)
    assert answers([other, known, late, (2 * HOUR, 3 * HOUR, "s1")], AROUND[0]) == (2, 2)
    assert answers([other, known, late, (2 * HOUR, 0, "s1")], AROUND[0]) == (3, 2)
    assert answers([other, known, late, (9 * DAY, 0, "s1")], AROUND[0]) == (3, 2)
    assert answers([other, late], AROUND[0]) == (1, 1)


def test_an_event_that_became_known_weeks_later_counts_from_then_on():
    rows = [(10 * DAY, 20 * DAY, "s1"), (12 * DAY, 0, "s1"), (9 * DAY, 0, "s2")]
    assert answers(rows, AROUND[0]) == (2, 2)
    assert answers(rows, AROUND[0] + 10 * DAY) == (3, 2)


def test_a_hundred_thousand_questions_to_one_merchant_are_answered_with_its_hundred_thousand_events():
    count = 100_000
    draw = np.random.default_rng(2)
    ts = np.sort(AROUND[0] - draw.integers(0, 60 * DAY, count))
    events = pd.DataFrame(
        {
            "card_id": "a",
            "id": [f"e{n}" for n in range(count)],
            "amount": draw.integers(1, 10**6, count) / 100,
            "tip": np.nan,
            "shop": [f"s{n}" for n in draw.integers(0, 30_000, count)],
            "device": None,
            "ts": ts,
            "created": ts + draw.integers(0, 2 * MINUTE, count),
        }
    )
    past = history(events, created=True)
    found = finish(SPEC, past.slices(pa.array(["a"] * count), ts), ts)
    sample = draw.choice(count, 40, replace=False)  # fewer rows than blocks are made for
    expected = finish(SPEC, past.slices(pa.array(["a"] * len(sample)), ts[sample]), ts[sample])
    for name in SPEC.names:
        if "_std_" not in name:
            np.testing.assert_array_equal(found[name][sample], expected[name], name)
    assert found["card_nunique_shop_30d"].max() > 10_000
