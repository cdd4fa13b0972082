"""One number everywhere, for random histories: the state a stream builds, the history a training set reads, and SQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import example, given, note
from hypothesis import strategies as st

from feature_repo.window_history import History
from feature_repo.window_state import Events, code, finish, to_us, update
from feature_repo.windows import spec_of
from tests.parity.oracle import brute_force, differences

H = timedelta(hours=1)
WINDOWS = [timedelta(minutes=5), H, 24 * H, 7 * 24 * H, 30 * 24 * H]
FUNCTIONS = ["count", "sum", "mean", "std", "min", "max"]
# Around the end of daylight-saving time, a leap day, and the turn of a year.
AROUND = [
    to_us(datetime(2024, 3, 31, 1, 0, tzinfo=UTC)),
    to_us(datetime(2024, 2, 29, 12, 0, tzinfo=UTC)),
    to_us(datetime(2025, 1, 1, tzinfo=UTC)),
]


def aggregation(function: str, column: str = "", window: timedelta | None = None) -> SimpleNamespace:
    return SimpleNamespace(function=function, column=column, time_window=window, slide_interval=window)


SPEC = spec_of(
    "purchases",
    "card",
    "card_id",
    "id",
    [
        *(aggregation(f, "amount", w) for w in WINDOWS for f in FUNCTIONS),
        *(aggregation("count", "", w) for w in WINDOWS),
        *(aggregation("nunique", c, w) for w in WINDOWS for c in ("shop", "device")),
        aggregation("seconds_since_last"),
    ],
)

offsets = st.one_of(
    st.integers(0, 35 * 24 * 3600).map(lambda s: s * 1_000_000),
    st.integers(0, 600_000_000),  # within ten minutes, to the microsecond
    st.sampled_from([w // timedelta(microseconds=1) + d for w in WINDOWS for d in (-1, 0, 1)]),  # a window's edges
    st.sampled_from([0, 1, -1, -2]),  # at the question, and just after it
    st.integers(0, 20).map(lambda k: k * 2 * 3_600_000_000),  # on the tiles
)
amounts = st.one_of(
    st.integers(1, 10**9).map(lambda cents: cents / 100),
    st.floats(1e-3, 1e7, allow_nan=False),
    st.just(float("nan")),
)


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, pd.DataFrame]:
    """A question's instant and events around it: ties, late ones, some created after the question."""
    at = draw(st.sampled_from(AROUND)) + draw(st.integers(0, 3_600_000_000))
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["a", "a", "a", "b"]),
                offsets,
                st.integers(-300_000_000, 600_000_000),  # five minutes of clock skew, ten of lateness
                amounts,
                st.sampled_from([None, "s1", "s2", "s3", "s4"]),
                st.sampled_from([None, "s1", "d2"]),
            ),
            max_size=40,
        )
    )
    events = pd.DataFrame(rows, columns=["card_id", "ago", "delay", "amount", "shop", "device"])
    events["ts"] = at - events.pop("ago").astype("int64")
    events["created"] = events["ts"] + events.pop("delay").astype("int64")
    events["id"] = [f"e{i}" for i in range(len(events))]
    return at, events


def stream_state(events: pd.DataFrame, cuts: list[int]) -> bytes | None:
    """The state after the events arrived in this order, in batches that end at the cuts."""
    state: bytes | None = None
    for begin, end in zip([0, *cuts], [*cuts, len(events)], strict=True):
        batch = events.iloc[begin:end]
        if len(batch):
            state = update(SPEC, state, as_events(batch)).state
    return state


def as_events(batch: pd.DataFrame) -> Events:
    return Events(
        ts=batch["ts"].to_numpy(np.int64),
        ids=np.array([code(i) for i in batch["id"]], np.int64),
        values=batch["amount"].to_numpy(np.float64).reshape(1, -1).copy(),
        distinct=np.array([[code(v) for v in batch[c]] for c in ("shop", "device")], np.int64),
        ingest=batch["created"].to_numpy(np.int64),
    )


def history(events: pd.DataFrame) -> History:
    types = {"card_id": pa.string(), "shop": pa.string(), "device": pa.string(), "id": pa.string()}
    columns = {name: pa.array(events[name].tolist(), types.get(name)) for name in ("card_id", "shop", "device", "id")}
    columns["amount"] = pa.array(events["amount"].to_numpy(np.float64))
    for name in ("ts", "created"):
        columns[name] = pa.array(events[name].to_numpy(np.int64)).cast(pa.timestamp("us", tz="UTC"))
    table = pa.table({name: pa.chunked_array([column]) for name, column in columns.items()})
    return History.of(SPEC, table, "ts", "created")


@given(histories(), st.randoms(use_true_random=False), st.data())
@example(
    (AROUND[0], pd.DataFrame(columns=["card_id", "amount", "shop", "device", "ts", "created", "id"])), None, None
).via("no event at all")
def test_stream_history_and_brute_force_give_the_same_numbers(case, shuffler, data) -> None:  # type: ignore[no-untyped-def]
    at, events = case
    questions = pd.DataFrame({"card_id": ["a", "b", "nobody"], "at": at, "known": at})
    expected = brute_force(SPEC, events, questions)

    instants = np.full(3, at, np.int64)
    offline = finish(SPEC, history(events).slices(pa.array(["a", "b", "nobody"]), instants), instants)
    assert differences(SPEC, expected, pd.DataFrame(offline)) == []

    states: list[bytes | None] = []
    for card in ("a", "b", "nobody"):
        arrived = events[(events["card_id"] == card) & (events["created"] <= at)]
        if data is None:
            states.append(None)
            continue
        order = list(range(len(arrived))) + [data.draw(st.integers(0, max(len(arrived) - 1, 0))) for _ in arrived.index]
        shuffler.shuffle(order)  # any order, many of them twice
        delivered = arrived.iloc[order]
        cuts = sorted(data.draw(st.lists(st.integers(0, len(delivered)), max_size=5)))
        states.append(stream_state(delivered, cuts))
    online = finish(SPEC, states, instants)
    assert differences(SPEC, expected, pd.DataFrame(online)) == []
    for name in SPEC.names:  # stream and history agree to the bit, not only to 1e-9
        note(name)
        np.testing.assert_array_equal(online[name], offline[name])


@given(histories())
def test_a_state_rebuilt_from_history_equals_the_one_the_stream_built(case) -> None:  # type: ignore[no-untyped-def]
    at, events = case
    arrived = events[(events["ts"] < at) & (events["created"] <= at)].sort_values("created", kind="stable")
    rebuilt = history(events).states(at, known=at)
    for card in ("a", "b"):
        streamed = stream_state(arrived[arrived["card_id"] == card], [])
        left, right = finish(SPEC, [streamed], np.array([at])), finish(SPEC, [rebuilt.get(card)], np.array([at]))
        for name in SPEC.names:
            np.testing.assert_array_equal(left[name], right[name])
