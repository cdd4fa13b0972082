"""What a window means: names, edges, tiles, and what a view may declare."""

from __future__ import annotations

import doctest
from datetime import timedelta
from itertools import pairwise
from types import SimpleNamespace

import pytest
from feast.aggregation import Aggregation

from feature_repo import windows
from feature_repo.windows import (
    DAY,
    FUNCTIONS,
    HOUR,
    MINUTE,
    SECOND,
    STATE_SLACK,
    TILES,
    UnsupportedAggregation,
    WindowedFeature,
    far_edge,
    is_windowed,
    label,
    loads,
    spec_of,
    spec_of_view,
    tile,
)

H = timedelta(hours=1)
AMOUNT = Aggregation(column="amount", function="sum", time_window=H)


def view(aggregations, entities=("card",), keys=("card_id",), tags=None) -> SimpleNamespace:
    return SimpleNamespace(
        name="spending",
        entities=list(entities),
        entity_columns=[SimpleNamespace(name=key) for key in keys],
        tags={"event_id": "transaction_id"} if tags is None else tags,
        aggregations=list(aggregations),
        batch_source=None,
    )


def test_the_examples_in_the_docstrings_hold():
    found = doctest.testmod(windows)
    assert found.attempted >= 2
    assert found.failed == 0


@pytest.mark.parametrize(
    ("function", "column", "window", "name"),
    [
        ("count", "", HOUR, "card_count_1h"),
        ("sum", "amount", DAY, "card_sum_amount_24h"),
        ("nunique", "merchant_id", 7 * DAY, "card_nunique_merchant_id_7d"),
        ("count", "amount", 90 * MINUTE, "card_count_amount_90m"),
        ("seconds_since_last", "", 0, "card_seconds_since_last"),
        ("max", "amount", 1_500_000, "card_max_amount_1500000us"),
    ],
)
def test_a_name_is_entity_function_column_and_window(function: str, column: str, window: int, name: str):
    assert WindowedFeature(function, column, window).name("card") == name


def test_a_day_is_24h_and_more_whole_days_are_days():
    assert [label(w) for w in (DAY, 2 * DAY, 25 * HOUR, 30 * DAY, SECOND)] == ["24h", "2d", "25h", "30d", "1s"]


def test_windows_up_to_a_day_have_no_tile():
    assert [tile(w) for w in (SECOND, HOUR, DAY)] == [0, 0, 0]
    assert tile(DAY + 1) > 0


@pytest.mark.parametrize("hours", [25, 30, 48, 59, 60, 61, 7 * 24, 14 * 24, 30 * 24, 60 * 24, 90 * 24, 365 * 24])
def test_a_tile_is_at_most_a_sixtieth_of_its_window(hours: int):
    step = tile(hours * HOUR)
    assert step in TILES
    assert step * 60 <= hours * HOUR
    assert all(larger * 60 > hours * HOUR for larger in TILES if larger > step)


def test_every_tile_divides_the_next():
    assert all(longer % shorter == 0 for shorter, longer in pairwise(TILES))


def test_an_exact_window_begins_at_its_length_before_the_question():
    assert far_edge(DAY, 1_000 * DAY + 1) == 999 * DAY + 1
    assert far_edge(5 * MINUTE, 7) == 7 - 5 * MINUTE


@pytest.mark.parametrize(
    ("late", "edge"),
    [(0, 0), (1, 0), (2 * HOUR - 1, 0), (2 * HOUR, 2 * HOUR), (-1, -2 * HOUR), (-2 * HOUR, -2 * HOUR)],
)
def test_a_long_window_begins_at_the_tile_below(late: int, edge: int):
    start = 1_000 * DAY
    assert far_edge(7 * DAY, start + 7 * DAY + late) == start + edge


def test_an_edge_before_1970_rounds_down_too():
    assert far_edge(7 * DAY, 1) == -7 * DAY
    assert far_edge(7 * DAY, -1) == -7 * DAY - 2 * HOUR


def test_of_two_windows_the_longer_never_begins_later():
    lengths = [*range(MINUTE, 3 * DAY, 977 * SECOND), *range(3 * DAY, 120 * DAY, 7 * HOUR + SECOND)]
    for at in (600 * DAY + 1, 600 * DAY - 1, 600 * DAY + 11 * HOUR + 59 * MINUTE):
        edges = [far_edge(w, at) for w in lengths]
        assert edges == sorted(edges, reverse=True)


def test_a_state_must_reach_back_as_far_as_a_slack_question_rounded_down():
    spec = spec_of("v", "card", "card_id", "id", [AMOUNT, Aggregation("amount", "sum", timedelta(days=30))])
    latest = 600 * DAY
    edges = [far_edge(30 * DAY, at) for at in range(latest - STATE_SLACK, latest + DAY, 7 * MINUTE)]
    assert min(edges) >= latest - spec.retention
    assert spec.retention == 30 * DAY + 12 * HOUR + STATE_SLACK


def test_a_spec_survives_its_text_form():
    spec = spec_of(
        "v",
        "card",
        "card_id",
        "id",
        [AMOUNT, Aggregation(function="seconds_since_last"), Aggregation("shop", "count_distinct", 24 * H)],
    )
    again = loads(spec.dumps())
    assert again == spec
    assert again.names == ("card_sum_amount_1h", "card_seconds_since_last", "card_nunique_shop_24h")
    assert again.columns == ("amount", "shop")
    assert again.places == spec.places


def test_every_supported_function_is_accepted():
    declared = [
        Aggregation(function=f) if f == "seconds_since_last" else Aggregation("amount", f, H) for f in FUNCTIONS
    ]
    assert [f.function for f in spec_of("v", "card", "card_id", "id", declared).features] == list(FUNCTIONS)


PROBLEMS = [
    (Aggregation("amount", "median", H), "aggregation median(amount) is not supported"),
    (Aggregation("", "sum", H), "aggregation sum() needs a column"),
    (Aggregation("amount", "sum"), "aggregation sum(amount) needs a time_window > 0"),
    (Aggregation("amount", "sum", timedelta(0)), "aggregation sum(amount) needs a time_window > 0"),
    (Aggregation("amount", "sum", timedelta(days=-1)), "aggregation sum(amount) needs a time_window > 0"),
    (Aggregation("amount", "mean", H, timedelta(minutes=5)), "aggregation mean(amount) has slide_interval 0:05:00"),
    (Aggregation("amount", "max", H, name="biggest"), "aggregation max(amount) has name 'biggest'"),
    (Aggregation("", "seconds_since_last", H), "aggregation seconds_since_last() takes no column and no window"),
    (
        Aggregation("amount", "seconds_since_last"),
        "aggregation seconds_since_last(amount) takes no column and no window",
    ),
]


@pytest.mark.parametrize(("aggregation", "problem"), PROBLEMS, ids=[problem for _, problem in PROBLEMS])
def test_what_the_engine_cannot_execute_is_refused(aggregation: Aggregation, problem: str):
    with pytest.raises(UnsupportedAggregation) as refused:
        spec_of("spending", "card", "card_id", "id", [AMOUNT, aggregation])
    assert str(refused.value).startswith(f"View 'spending': {problem}")
    assert str(refused.value).endswith("Supported: count, sum, mean, std, min, max, nunique, seconds_since_last.")


def test_everything_wrong_with_a_view_is_said_at_once():
    wrong = view(
        [AMOUNT, AMOUNT, *(aggregation for aggregation, _ in PROBLEMS)],
        entities=("card", "merchant"),
        keys=("card_id", "merchant_id"),
        tags={},
    )
    with pytest.raises(UnsupportedAggregation) as refused:
        spec_of_view(wrong)
    said = str(refused.value)
    for _, problem in PROBLEMS:
        assert problem in said
    assert "card_sum_amount_1h is declared twice" in said
    assert "it has no tag 'event_id'" in said
    assert "it has entities ['card', 'merchant']; a windowed view needs exactly one" in said


def test_an_alias_counts_as_its_function_when_looking_for_duplicates():
    with pytest.raises(UnsupportedAggregation, match="card_nunique_shop_1h is declared twice"):
        spec_of(
            "v", "card", "card_id", "id", [Aggregation("shop", "nunique", H), Aggregation("shop", "count_distinct", H)]
        )


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"aggregations": []}, "it declares no aggregation"),
        ({"entities": [], "keys": []}, r"it has entities \[\]"),
        ({"keys": ["card_id", "country"]}, r"exactly one, with one join key"),
    ],
)
def test_a_view_without_aggregation_or_single_key_is_refused(changed: dict[str, list[str]], problem: str):
    with pytest.raises(UnsupportedAggregation, match=problem):
        spec_of_view(view(**({"aggregations": [AMOUNT]} | changed)))


def test_only_a_view_with_aggregations_is_windowed():
    assert is_windowed(view([AMOUNT]))
    assert not is_windowed(view([]))
    assert not is_windowed(SimpleNamespace(name="profile", batch_source=None))
