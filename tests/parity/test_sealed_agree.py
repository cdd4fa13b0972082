"""One number everywhere once states are sealed: whether, when and how often they were must not show in any answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from feature_repo.window_batch import Sealed, Stored, Updates, update_many
from feature_repo.window_history import History
from feature_repo.window_state import Events, code, finish, header, incomplete, to_us
from feature_repo.windows import DAY, HOUR, MINUTE, STATE_SLACK, WindowSpec, spec_of
from tests.parity.oracle import brute_force, differences
from tests.parity.test_windows_agree import aggregation

HOURS = [1, 24, 25, 36, 72, 168, 720, 2160]
FUNCTIONS = ["count", "sum", "mean", "std", "min", "max"]
VALUES, DISTINCT = ("amount", "tip"), ("shop", "device")
ALWAYS = 2**60


def spec_over(hours: list[int]) -> WindowSpec:
    windows = [timedelta(hours=h) for h in hours]
    return spec_of(
        "purchases",
        "card",
        "card_id",
        "id",
        [
            *(aggregation(f, c, w) for w in windows for c in VALUES for f in FUNCTIONS),
            *(aggregation("count", "", w) for w in windows),
            *(aggregation("nunique", c, w) for w in windows for c in DISTINCT),
            aggregation("seconds_since_last"),
        ],
    )


SPEC = spec_over(HOURS)
AROUND = [to_us(datetime(2024, 3, 31, 1, 0, tzinfo=UTC)), to_us(datetime(2024, 2, 29, 12, 0, tzinfo=UTC))]

agos = st.one_of(
    st.integers(0, 100 * 24 * 60).map(lambda minutes: minutes * MINUTE),
    st.integers(0, 40 * 3600).map(lambda seconds: seconds * 1_000_000),
    st.integers(0, 600_000_000),
    st.sampled_from([h * HOUR + d for h in HOURS for d in (-1, 0, 1)]),
    st.tuples(st.integers(0, 200), st.sampled_from([-1, 0, 1])).map(lambda x: x[0] * 15 * MINUTE + x[1]),
    st.tuples(st.integers(0, 95), st.sampled_from([-1, 0, 1])).map(lambda x: x[0] * DAY + x[1]),
)
amounts = st.one_of(st.integers(1, 10**9).map(lambda cents: cents / 100), st.just(float("nan")))
shops = st.sampled_from([None, "s1", "s2", "s3", "s4", "s5", "s6"])


def frame(at: int, rows: list[Any]) -> pd.DataFrame:
    """Events of one card by (ago, whether the ago is from a rounded instant, delay, amount, tip, shop, device)."""
    events = pd.DataFrame(rows, columns=["ago", "rounded", "created", *VALUES, *DISTINCT])
    base = np.where(events.pop("rounded").astype(bool), at - at % DAY, at)
    events["ts"] = base - events.pop("ago").astype("int64")
    events["created"] = events["ts"] + events["created"].astype("int64")
    for name in VALUES:
        events[name] = events[name].astype("float64")
    return events.assign(card_id="a", id=[f"e{n}" for n in range(len(events))])


def hourly(count: int) -> pd.DataFrame:
    return frame(AROUND[0], [(ago * HOUR, True, 0, 1.0, 2.0, "s1", None) for ago in range(count, 0, -1)])


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, pd.DataFrame]:
    """An instant, and events before it of up to five minutes of clock skew and ten of lateness."""
    at = draw(st.sampled_from(AROUND)) + draw(st.integers(0, HOUR))
    delays = st.integers(-5 * MINUTE, 10 * MINUTE)
    row = st.tuples(agos, st.booleans(), delays, amounts, amounts, shops, shops)
    return at, frame(at, draw(st.lists(row, min_size=1, max_size=60)))


def as_events(batch: pd.DataFrame) -> Events:
    return Events(
        ts=batch["ts"].to_numpy(np.int64),
        ids=np.array([code(i) for i in batch["id"]], np.int64),
        values=np.array([batch[c] for c in VALUES], np.float64),
        distinct=np.array([[code(v) for v in batch[c]] for c in DISTINCT], np.int64).reshape(len(DISTINCT), -1),
        ingest=batch["created"].to_numpy(np.int64),
    )


def streamed(events: pd.DataFrame, cuts: list[int], seal_above: int) -> tuple[Stored | None, list[Updates]]:
    """What is stored after the events came in this order, in batches that end at the cuts."""
    stored: Stored | None = None
    told = []
    for begin, end in zip([0, *cuts], [*cuts, len(events)], strict=True):
        batch = events.iloc[begin:end]
        if len(batch):
            told.append(update_many(SPEC, [stored], np.array([len(batch)]), as_events(batch), seal_above=seal_above))
            (stored,) = told[-1].states
    return stored, told


def state_of(stored: Stored) -> bytes:
    return stored.state if isinstance(stored, Sealed) else stored


def offline(events: pd.DataFrame, instants: np.ndarray) -> pd.DataFrame:
    columns: dict[str, Any] = {n: pa.array(events[n].tolist(), pa.string()) for n in ("card_id", "id", *DISTINCT)}
    columns |= {n: pa.array(events[n].to_numpy(np.float64)) for n in VALUES}
    columns |= {n: pa.array(events[n].to_numpy(np.int64)).cast(pa.timestamp("us", tz="UTC")) for n in ("ts", "created")}
    history = History.of(SPEC, pa.table(columns), "ts", "created")
    slices = history.slices(pa.array(["a"] * len(instants)), np.full(len(instants), ALWAYS))
    return pd.DataFrame(finish(SPEC, slices, instants))


def questions_around(latest: int, events: pd.DataFrame, draws: list[int]) -> np.ndarray:
    """From `STATE_SLACK` behind the latest event on, also where the far edge of a window is an event's instant."""
    found = [latest - STATE_SLACK, latest, latest + 1, *(latest - STATE_SLACK + d for d in draws)]
    found += [ts + h * HOUR + d for ts in events["ts"].head(4).tolist() for h in HOURS for d in (0, 1)]
    return np.array([at for at in found if at >= latest - STATE_SLACK], np.int64)


@settings(max_examples=max(settings.default.max_examples // 4, 1), phases=[Phase.explicit, Phase.generate])
@given(histories(), st.data())
@example((AROUND[0], hourly(60)), None).via("an event an hour, on the hour")
def test_sealed_or_not_stream_history_and_brute_force_give_the_same_numbers(case: Any, data: Any) -> None:
    _, events = case
    arriving = events.sort_values("created", kind="stable").reset_index(drop=True)
    order, cuts, extra, seal_above = list(range(len(arriving))), list(range(1, len(arriving))), [HOUR, 3 * DAY], 0
    if data is not None:
        for again in data.draw(st.lists(st.integers(0, len(arriving) - 1), max_size=10)):  # delivered once more
            order.insert(data.draw(st.integers(order.index(again) + 1, len(order))), again)
        cuts = sorted(data.draw(st.sets(st.integers(1, len(order)), max_size=25)))
        extra = data.draw(st.lists(st.integers(0, 2 * HOUR), max_size=5))
        seal_above = data.draw(st.sampled_from([0, 3, 12]))
    delivered = arriving.iloc[order]
    stored, told = streamed(delivered, cuts, seal_above)
    assert stored is not None
    if data is None:
        assert isinstance(stored, Sealed)
    plain, _ = streamed(delivered, cuts, 10**6)
    assert isinstance(plain, bytes)

    at = questions_around(int(events["ts"].max()), events, extra)
    found = finish(SPEC, [state_of(stored)] * len(at), at)
    expected = brute_force(SPEC, events, pd.DataFrame({"card_id": "a", "at": at, "known": ALWAYS}))
    assert differences(SPEC, expected, pd.DataFrame(found)) == []
    for other in (offline(events, at), finish(SPEC, [plain] * len(at), at)):
        assert differences(SPEC, pd.DataFrame(other), pd.DataFrame(found)) == []
        for name in SPEC.names:  # amounts are in cents, so that sums are exact and these equal to the bit
            if "_std_" not in name:
                np.testing.assert_array_equal(found[name], other[name], name)
    assert not any(incomplete(SPEC, state_of(stored), int(instant)) for instant in at)
    assert sum(one.added for one in told) == len(events)
    assert header(SPEC, state_of(stored)).stamp == header(SPEC, plain).stamp
    assert sum(one.sealed for one in told) <= len(order) - len(events)
