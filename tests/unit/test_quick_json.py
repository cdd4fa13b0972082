"""The quick reader of payments agrees with the schema wherever it says anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from feature_repo.quick_json import decode
from feature_repo.schema import FIELDS, InvalidTransaction, parse_json
from feature_repo.window_state import to_us

PLAIN = {
    "transaction_id": "t1",
    "timestamp": "2026-03-01T12:00:00.123456+00:00",
    "card_id": "c1",
    "merchant_id": "m1",
    "amount": 12.5,
}

two_digits = st.integers(0, 61).map("{:02d}".format)
instants = st.builds(
    "{}-{}-{}{}{}:{}:{}{}{}".format,
    st.sampled_from(["0000", "1999", "2000", "2024", "2026", "9999", "٢٠٢٦"]),
    st.sampled_from(["02", "12", "00", "13"]),
    st.sampled_from(["01", "28", "29", "30", "31"]),
    st.sampled_from(["T", "T", "T", "t", " ", "_"]),
    st.sampled_from(["00", "23", "24"]),
    two_digits,
    two_digits,
    st.sampled_from(["", ".5", ".123", ".123456", ".1234567", ".123456789", ".", ",5"]),
    st.sampled_from(["Z", "Z", "z", "+00:00", "-00:00", "+02:00", "-23:59", "+24:00", "", "+0200"]),
)
texts = st.one_of(
    st.text(max_size=4), st.text(min_size=60, max_size=70), st.sampled_from(["\x7f", "a b", "\u00a0", "é", "GB", "GBP"])
)
values: dict[str, st.SearchStrategy[Any]] = {
    "timestamp": st.one_of(instants, texts, st.integers(0, 2**40)),
    "amount": st.one_of(
        st.floats(), st.integers(), st.sampled_from([0, 1e7, 10_000_000.01, -0.0, 5e-324]), st.booleans(), texts
    ),
    "channel": st.sampled_from(["pos", "online", "atm", "POS", "", None]),
}
bodies = st.fixed_dictionaries(
    {}, optional={name: values.get(name, st.one_of(texts, texts, st.none(), st.integers())) for name in FIELDS}
)


@given(bodies, st.sampled_from(["", ', "colour": 1', ', "amount": 7', ', "amount": 1e999', "}"]))
@example({}, "")
@example({"timestamp": "2026-03-01T12:00:00Z"}, "")
@example({"timestamp": "9999-12-31T23:59:59.999999Z"}, "")
@example({"timestamp": "2000-01-01T00:00:00Z"}, "")
@example({"timestamp": "1999-12-31T23:59:59.999999Z"}, "")
def test_what_the_quick_reader_takes_the_schema_takes_with_the_same_fields(changed: dict[str, Any], more: str):
    body = (json.dumps(PLAIN | changed)[:-1] + more + "}").encode()
    quick = decode(body)
    if quick is None:
        return
    payment, ts = quick
    judged = parse_json(body)
    assert ts == to_us(judged.timestamp)
    for name in FIELDS:
        if name != "timestamp":
            assert getattr(payment, name) == getattr(judged, name), name


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"timestamp": "2026-03-01T12:00:00Z"},
        {"timestamp": "2026-03-01T12:00:00.123+00:00"},
        {"merchant_category": "travel", "country": "GB", "channel": "pos", "currency": "GBP", "ip": "::1"},
        {"device_id": None, "amount": 3},
    ],
)
def test_plain_payments_are_read_at_once(changed: dict[str, Any]):
    assert decode(json.dumps(PLAIN | changed).encode()) is not None


@pytest.mark.parametrize("body", [b"", b"\xff", b"[" * 100_000, b"null", json.dumps(PLAIN | {"amount": -1}).encode()])
def test_what_the_schema_refuses_is_left_to_it(body: bytes):
    assert decode(body) is None
    with pytest.raises(InvalidTransaction):
        parse_json(body)
