"""Every source ends in the same shape, and what does not fit is refused by name."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.schema import FIELDS, HISTORY_SCHEMA, InvalidTransaction, parse
from training.datasets import handbook, sparkov, synthetic, table
from training.datasets.catalogue import describe, load_dataset
from training.datasets.columns import to_arrow
from training.datasets.dataset import UNKNOWN_CATEGORY, InvalidDataset, conform
from training.datasets.profiles import conform_profiles
from training.datasets.rules import RULES
from training.datasets.source import UnreadableSource

INSTANT = "2024-05-01T12:00:00Z"


def frame(**changes: list[Any]) -> pd.DataFrame:
    """Two good rows, with columns replaced or added."""
    columns: dict[str, list[Any]] = {
        "transaction_id": ["t1", "t2"],
        "timestamp": [INSTANT, "2024-05-01T12:00:01+00:00"],
        "card_id": ["c1", "c2"],
        "merchant_id": ["m1", "m2"],
        "amount": [10.0, 20.5],
        "is_fraud": [0, 1],
    }
    return pd.DataFrame(columns | changes)


def conformed(**changes: list[Any]) -> pd.DataFrame:
    return conform(frame(**changes), name="mine", origin="file").transactions


def refusal(**changes: list[Any]) -> str:
    with pytest.raises(InvalidDataset) as caught:
        conformed(**changes)
    return str(caught.value)


HANDBOOK_ROWS = pd.DataFrame(
    {
        "TRANSACTION_ID": [10, 9, 11],
        "TX_DATETIME": pd.to_datetime(["2018-04-01 00:00:31", "2018-04-01 00:00:31", "2018-04-02 10:00:00"]),
        "CUSTOMER_ID": [596, 4961, 2],
        "TERMINAL_ID": [3156, 3412, 1365],
        "TX_AMOUNT": [57.16, 0.0, 146.0],
        "TX_TIME_SECONDS": [31, 31, 122400],
        "TX_TIME_DAYS": [0, 0, 1],
        "TX_FRAUD": [0, 0, 1],
        "TX_FRAUD_SCENARIO": [0, 0, 2],
    }
)

SPARKOV_ROWS = pd.DataFrame(
    {
        "trans_num": ["a1", "a2", "a3"],
        "trans_ts": pd.to_datetime(["2019-01-01 00:00:21", "2019-01-01 00:02:12", "2019-01-01 00:03:42"]),
        "cc_num": ["0213176295076716", "180015879968469", "0213176295076716"],
        "merchant": ["fraud_Berge LLC", "fraud_Parisian and Sons", "fraud_Raynor"],
        "category": ["gas_transport", "grocery_net", "misc_pos"],
        "amt": [50.23, 7.5, 58.08],
        "dob": ["1983-08-17", "1984-11-16", "1983-08-17"],
        "is_fraud": [0, 1, 0],
    }
)


def test_a_conformed_frame_has_the_columns_types_and_order_of_the_schema() -> None:
    rows = conformed()
    assert list(rows) == [*HISTORY_SCHEMA.names, "is_fraud"]
    assert str(rows["timestamp"].dtype) == str(rows["ingested_at"].dtype) == "datetime64[us, UTC]"
    assert rows["is_fraud"].dtype == "int8"
    assert rows["amount"].dtype == "float64"
    assert rows["country"].tolist() == [None, None]
    assert rows["ingested_at"].tolist() == rows["timestamp"].tolist()


def test_rows_are_sorted_by_instant_and_then_by_id() -> None:
    later, earlier = "2024-05-01T13:00:00Z", "2024-05-01T12:00:00Z"
    rows = conform(
        pd.concat([frame(timestamp=[later, earlier]), frame(transaction_id=["t0", "t9"], timestamp=[earlier] * 2)]),
        name="mine",
        origin="file",
    ).transactions
    assert rows["transaction_id"].tolist() == ["t0", "t2", "t9", "t1"]


def test_an_offset_is_converted_to_utc_and_digits_beyond_microseconds_are_cut() -> None:
    rows = conformed(timestamp=["2024-05-01T14:00:00.123456789+02:00", "2024-05-01T12:00:01Z"])
    assert rows["timestamp"].iloc[0] == datetime(2024, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.parametrize("naive", [["2024-05-01T12:00:00", INSTANT], [datetime(2024, 5, 1), datetime(2024, 5, 2)]])
def test_a_naive_timestamp_is_refused_unless_the_caller_says_it_is_utc(naive: list[Any]) -> None:
    assert "UTC offset" in refusal(timestamp=naive)
    rows = conform(frame(timestamp=naive), name="mine", origin="file", assume_utc=True).transactions
    assert rows["timestamp"].dt.tz is not None


def test_only_the_rows_without_an_offset_are_named() -> None:
    message = refusal(timestamp=[INSTANT, "2024-05-01"])
    assert "row 2, transaction 't2', has '2024-05-01'" in message
    assert "'t1'" not in message


@pytest.mark.parametrize(
    ("column", "bad", "rule"),
    [
        ("timestamp", "1999-12-31T23:00:00Z", "must not be before 2000-01-01"),
        ("timestamp", "2024-13-01T00:00:00Z", "must be an ISO 8601 instant"),
        ("timestamp", None, "must not be null"),
        ("card_id", "x" * 65, "must have at most 64 characters"),
        ("card_id", "", "must have at least 1 character"),
        ("merchant_id", "m\n1", "must match"),
        ("merchant_id", None, "must not be null"),
        ("amount", 0.0, "must be > 0"),
        ("amount", -4.0, "must be > 0"),
        ("amount", 1e7 + 1, "must be <= 10,000,000"),
        ("amount", float("inf"), "must be <= 10,000,000"),
        ("amount", float("nan"), "must not be null"),
        ("is_fraud", 2, "must be 0 or 1"),
        ("is_fraud", None, "must not be null"),
        ("country", "gb", "must match ^[A-Z]{2}$"),
        ("channel", "phone", "must be one of pos, online, atm"),
        ("currency", "EURO", "must match ^[A-Z]{3}$"),
    ],
)
def test_a_value_outside_the_schema_is_refused_with_its_row_and_rule(column: str, bad: Any, rule: str) -> None:
    good = frame(country=["GB", "GB"], channel=["pos", None], currency=["GBP", None])[column].iloc[0]
    message = refusal(**{column: [good, bad]})
    assert f"{column} {rule}" in message
    assert "row 2, transaction 't2'" in message
    assert "row 1," not in message


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("card_id", [1.0, 2.0]),
        ("card_id", ["c1", 2]),
        ("timestamp", [1714564800, 1714564801]),
        ("amount", [True, True]),
    ],
)
def test_a_column_of_the_wrong_kind_is_refused_and_never_guessed(column: str, values: list[Any]) -> None:
    assert f"{column} must" in refusal(**{column: values})


def test_every_broken_rule_is_reported_at_once() -> None:
    message = refusal(amount=[-1.0, 1.0], country=["gb", "GB"])
    assert "amount must be > 0" in message
    assert "country must match" in message


def test_a_long_list_of_offenders_is_counted_and_shortened() -> None:
    many = pd.concat([frame(amount=[-1.0, -2.0])] * 10, ignore_index=True)
    with pytest.raises(InvalidDataset, match=r"20 row\(s\) .*row 5.*; \.\.\.\)") as caught:
        conform(many, name="mine", origin="file")
    assert "row 6," not in str(caught.value)


def test_a_missing_required_column_is_reported_with_the_columns_there_are() -> None:
    with pytest.raises(InvalidDataset, match="is_fraud must be present; the source has transaction_id"):
        conform(frame().drop(columns="is_fraud"), name="mine", origin="file")


def test_an_unknown_category_becomes_other_and_is_counted() -> None:
    dataset = conform(frame(merchant_category=["space", None]), name="mine", origin="file")
    assert dataset.transactions["merchant_category"].tolist() == ["other", None]
    assert dataset.adjustments == {UNKNOWN_CATEGORY: 1}
    assert "1 unknown merchant categories" in dataset.summary


VALUES = st.one_of(st.text(max_size=70), st.sampled_from(["GB", "pos", "EUR", "gb", "a\x7f", "198.18.0.1", "x" * 65]))


@given(
    field=st.sampled_from([f for f in FIELDS if f not in ("timestamp", "amount", "merchant_category")]), value=VALUES
)
def test_a_column_check_accepts_exactly_what_the_transaction_model_accepts(field: str, value: str) -> None:
    good = {"transaction_id": "t", "timestamp": INSTANT, "card_id": "c", "merchant_id": "m", "amount": 1.0}
    try:
        parse(good | {field: value})
        accepted = True
    except InvalidTransaction:
        accepted = False
    column = to_arrow(pd.Series([value], dtype=object))
    assert accepted == (not any(rule.broken(column)[0].as_py() for rule in RULES if rule.column == field))


def test_the_handbook_keeps_every_row_and_loses_its_scenario() -> None:
    dataset = handbook.adapt(HANDBOOK_ROWS)
    rows = dataset.transactions
    assert rows["transaction_id"].tolist() == ["10", "9", "11"]
    assert rows["card_id"].tolist() == ["596", "4961", "2"]
    assert rows["timestamp"].iloc[0] == datetime(2018, 4, 1, 0, 0, 31, tzinfo=UTC)
    assert rows["amount"].tolist() == [57.16, 0.01, 146.0]
    assert dataset.adjustments == {handbook.ADJUSTED_AMOUNTS: 1}
    assert not any("scenario" in column.lower() for column in rows)
    assert dataset.profiles is None


def test_a_negative_amount_in_the_handbook_is_refused_rather_than_raised() -> None:
    with pytest.raises(InvalidDataset, match="amount must be > 0"):
        handbook.adapt(HANDBOOK_ROWS.assign(TX_AMOUNT=[1.0, -0.5, 2.0]))


def test_sparkov_gets_channel_country_and_bare_merchant_names() -> None:
    dataset = sparkov.adapt(SPARKOV_ROWS)
    rows = dataset.transactions
    assert rows["merchant_category"].tolist() == ["gas_transport", "grocery", "misc"]
    assert rows["channel"].tolist() == [None, "online", "pos"]
    assert rows["merchant_id"].tolist() == ["Berge LLC", "Parisian and Sons", "Raynor"]
    assert set(rows["country"]) == {"US"}
    assert dataset.profiles is not None
    assert dataset.profiles["card_id"].tolist() == ["0213176295076716", "180015879968469"]
    assert dataset.profiles["birth_year"].tolist() == [1983, 1984]
    assert dataset.profiles["account_opened"].isna().all()


def test_a_sparkov_row_repeated_word_for_word_counts_once() -> None:
    dataset = sparkov.adapt(pd.concat([SPARKOV_ROWS, SPARKOV_ROWS.head(1)]))
    assert len(dataset.transactions) == 3
    assert dataset.adjustments == {sparkov.REPEATED_ROWS: 1}


def test_sparkov_rows_that_differ_under_one_number_are_refused() -> None:
    with pytest.raises(InvalidDataset, match=r"trans_num must be unique.*'a1'"):
        sparkov.adapt(pd.concat([SPARKOV_ROWS, SPARKOV_ROWS.head(1).assign(amt=1.0)]))


def test_profiles_that_disagree_within_a_card_are_refused_by_name() -> None:
    rows = pd.DataFrame({"card_id": ["c1", "c1", "c2"], "home_country": ["GB", "FR", "GB"]})
    with pytest.raises(InvalidDataset, match=r"profile must be the same on all rows of a card.*'c1'") as caught:
        conform_profiles(rows, name="mine")
    assert "c2" not in str(caught.value)


def test_profiles_of_an_impossible_year_or_country_are_refused() -> None:
    rows = pd.DataFrame({"card_id": ["c1"], "home_country": ["uk"], "birth_year": [85]})
    with pytest.raises(InvalidDataset) as caught:
        conform_profiles(rows, name="mine")
    assert "home_country must match" in str(caught.value)
    assert "birth_year must be a year from 1900" in str(caught.value)


def test_the_synthetic_set_brings_profiles_and_leaves_the_scenario_behind() -> None:
    dataset = synthetic.load(rows=1_000)
    assert dataset.origin == "generated"
    assert list(dataset.transactions) == [*HISTORY_SCHEMA.names, "is_fraud"]
    assert dataset.profiles is not None
    assert set(dataset.transactions["card_id"]) <= set(dataset.profiles["card_id"])


CSV = "id,when,pan,shop,eur,bad,land\n1,2024-05-01 12:00:00,007,m1,10.5,0,NA\n2,2024-05-01 12:00:01,008,m2,20,1,\n"
MAPPING = {
    "transaction_id": "id",
    "timestamp": "when",
    "card_id": "pan",
    "merchant_id": "shop",
    "amount": "eur",
    "is_fraud": "bad",
    "country": "land",
}


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text(CSV)
    return path


def test_a_csv_keeps_leading_zeros_and_namibia(csv: Path) -> None:
    dataset = table.load(csv, MAPPING, assume_utc=True)
    assert dataset.transactions["card_id"].tolist() == ["007", "008"]
    assert dataset.transactions["country"].tolist() == ["NA", None]
    assert dataset.name == "mine"
    assert dataset.profiles is None


def test_a_csv_in_naive_time_is_refused_without_assume_utc(csv: Path) -> None:
    with pytest.raises(InvalidDataset, match="UTC offset"):
        table.load(csv, MAPPING)


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_a_mapping_is_read_from_the_file_beside_the_data(csv: Path, suffix: str) -> None:
    entries = [f'"{field}" {{}} "{column}"' for field, column in MAPPING.items()] + ['"assume_utc" {} true']
    toml, json = "\n".join(entries).format(*"=" * 8), "{" + ", ".join(entries).replace("{}", ":") + "}"
    csv.with_name(f"mine.mapping.{suffix}").write_text(toml if suffix == "toml" else json)
    assert load_dataset(str(csv), csv.parent).transactions["transaction_id"].tolist() == ["1", "2"]


def test_a_mapping_that_does_not_fit_is_refused_with_everything_wrong_in_it(csv: Path) -> None:
    with pytest.raises(table.InvalidMapping) as caught:
        table.load(csv, {"card_id": "card", "colour": "pan", "timestamp": "when"})
    message = str(caught.value)
    assert "'colour' is no field" in message
    assert "'card_id' is mapped to 'card', which is no column" in message
    assert "'is_fraud' is required and has no column" in message
    assert "id, when, pan, shop, eur, bad, land" in message


@pytest.mark.parametrize("text", ["card_id = 5", "card_id =", 'assume_utc = "yes"'])
def test_a_mapping_file_of_the_wrong_kind_is_refused_by_name(csv: Path, text: str) -> None:
    csv.with_name("mine.mapping.toml").write_text(text)
    with pytest.raises(table.InvalidMapping, match=r"mine\.mapping\.toml"):
        table.load(csv)


def test_two_mappings_beside_one_file_are_refused(csv: Path) -> None:
    for suffix in ("toml", "json"):
        csv.with_name(f"mine.mapping.{suffix}").write_text("")
    with pytest.raises(table.InvalidMapping, match="keep one"):
        table.load(csv)


def test_a_parquet_file_with_profile_columns_gives_profiles(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    frame(home_country=["GB", "FR"], birth_year=[1980, None]).to_parquet(path)
    profiles = table.load(path).profiles
    assert profiles is not None
    assert profiles["home_country"].tolist() == ["GB", "FR"]
    assert profiles["birth_year"].tolist() == [1980, pd.NA]


@pytest.mark.parametrize(("name", "told"), [("mine.xlsx", "must be .csv or .parquet"), ("none.csv", "does not exist")])
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(UnreadableSource, match=told):
        load_dataset(str(tmp_path / name), tmp_path)


def test_a_file_that_is_no_parquet_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "mine.parquet").write_text("not this")
    with pytest.raises(UnreadableSource, match="cannot be read as parquet"):
        table.load(tmp_path / "mine.parquet")


def test_without_a_name_the_handbook_is_taken_if_it_is_there(tmp_path: Path) -> None:
    assert load_dataset(None, tmp_path, rows=1_000).name == "synthetic"
    HANDBOOK_ROWS.to_parquet(tmp_path / handbook.FILE)
    assert load_dataset(None, tmp_path).name == "handbook"


def test_a_public_set_without_a_column_is_refused_with_the_columns_there_are(tmp_path: Path) -> None:
    SPARKOV_ROWS.drop(columns="dob").to_parquet(tmp_path / sparkov.FILE)
    with pytest.raises(UnreadableSource, match=r"lacks the column\(s\) dob; it has trans_num"):
        load_dataset("sparkov", tmp_path)


@pytest.mark.parametrize(
    ("name", "way_out"), [("handbook", "says how to get it"), ("hanbdook", "no such name; must be")]
)
def test_an_absent_or_unknown_set_is_refused_with_the_way_out(tmp_path: Path, name: str, way_out: str) -> None:
    with pytest.raises(UnreadableSource, match=way_out):
        load_dataset(name, tmp_path)


def test_the_description_says_what_is_there_and_where_the_rest_comes_from(tmp_path: Path) -> None:
    SPARKOV_ROWS.to_parquet(tmp_path / sparkov.FILE)
    text = describe(tmp_path)
    assert "ready: sparkov.parquet" in text
    assert "not there: handbook.parquet" in text
    assert "Fraud-Detection-Handbook/simulated-data-raw" in text
    assert "namebrandon/Sparkov_Data_Generation" in text


def test_the_handbook_loses_no_row_on_its_way_into_the_schema(tmp_path: Path) -> None:
    """On the published set where `FRAUD_DATA` has it, else on a file of the same columns."""
    folder = Path(os.environ.get("FRAUD_DATA", tmp_path))
    published = (folder / handbook.FILE).exists()
    if not published:
        folder = tmp_path
        HANDBOOK_ROWS.to_parquet(folder / handbook.FILE)
    rows = handbook.load(folder).transactions
    expected = (1_303_778, 10_659) if published else (len(HANDBOOK_ROWS), int(HANDBOOK_ROWS["TX_FRAUD"].sum()))
    assert (len(rows), int(rows["is_fraud"].sum())) == expected
