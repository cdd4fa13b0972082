"""The position of a log passes over what is done, and never over what is not."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from stream_jobs.transports.prefix import Prefix, span, span_id

widths = st.lists(st.integers(min_value=1, max_value=9), min_size=1, max_size=40)


@given(start=st.integers(min_value=0, max_value=10**15), widths=widths, order=st.randoms(use_true_random=False))
def test_the_end_is_where_the_first_record_that_is_not_done_begins(
    start: int, widths: list[int], order: random.Random
) -> None:
    spans, at = [], start
    for width in widths:
        spans.append((at, at + width - 1))
        at += width
    prefix, done = Prefix(start), set()
    # Some are acknowledged twice, and in any order.
    for first, last in order.sample(spans, len(spans)) + order.choices(spans, k=len(spans)):
        prefix.done(first, last)
        done.add(first)
        assert prefix.end == next((first for first, _ in spans if first not in done), at)
    assert prefix.end == at


def test_a_position_inside_a_record_counts_as_before_it() -> None:
    prefix = Prefix(7)
    prefix.done(5, 9)
    assert prefix.end == 10


def test_what_lies_before_the_position_changes_nothing() -> None:
    prefix = Prefix(7)
    prefix.done(0, 3)
    assert prefix.end == 7


def test_the_id_of_one_position_is_its_number_and_of_more_names_both_ends() -> None:
    assert span_id(7, 7) == "7"
    assert span_id(5, 7) == "5-7"
    assert (span("7"), span("5-7")) == ((7, 7), (5, 7))
