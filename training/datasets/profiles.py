"""The card profile table: what a source knows of a card apart from its payments.

Invariant: one row per card, sorted by card_id; an unknown value is null.
"""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from training.datasets.columns import InvalidColumn, read_instant, read_number, read_text
from training.datasets.dataset import SHOWN_ROWS, InvalidDataset, Problem
from training.datasets.rules import RULES

PROFILE_FIELDS = ("home_country", "account_opened", "birth_year")
BIRTH_YEARS = (1900, 2100)


def conform_profiles(frame: pd.DataFrame, *, name: str, assume_utc: bool = False) -> pd.DataFrame:
    """Return card_id, home_country, account_opened (datetime64[us, UTC]) and birth_year (Int64), one row per card.

    `frame` has card_id and any of the other columns, on as many rows per card as it likes, provided that they agree.
    Raises `InvalidDataset` naming the cards whose rows disagree or break a rule.
    """
    rows = frame.reindex(columns=["card_id", *PROFILE_FIELDS]).drop_duplicates(ignore_index=True)
    columns: dict[str, pa.Array] = {}
    problems = []
    for column in ("card_id", *PROFILE_FIELDS):
        try:
            columns[column] = _read(rows[column], column, assume_utc)
        except InvalidColumn as error:
            problems.append(_problem(rows, column, error.rule, error.broken))
    repeated = rows["card_id"].duplicated(keep=False)
    if repeated.any():
        problems.append(_problem(rows, "profile", "must be the same on all rows of a card", pa.array(repeated)))
    for rule in RULES:
        countries = columns.get("home_country")
        if rule.column == "country" and countries is not None and pc.any(rule.broken(countries)).as_py():
            problems.append(_problem(rows, "home_country", rule.text, rule.broken(countries)))
    if problems:
        raise InvalidDataset(name, problems)
    table = pa.table(columns).sort_by("card_id")
    return table.to_pandas().astype({"birth_year": "Int64"})


def _read(values: pd.Series, column: str, assume_utc: bool) -> pa.Array:
    if column == "account_opened":
        return read_instant(values, assume_utc=assume_utc)
    if column != "birth_year":
        return read_text(values)
    years = read_number(values)
    low, high = BIRTH_YEARS
    in_range = pc.and_(pc.greater_equal(years, low), pc.less_equal(years, high))
    wrong = pc.invert(pc.and_(in_range, pc.equal(years, pc.floor(years))))
    if pc.any(wrong).as_py():
        raise InvalidColumn(f"must be a year from {low} to {high}", wrong)
    return years.cast(pa.int64())


def _problem(frame: pd.DataFrame, column: str, rule: str, broken: pa.Array | None) -> Problem:
    if broken is None:
        return Problem(column, rule)
    shown = frame[pc.fill_null(broken, False).to_pandas().to_numpy()]
    named = [column] if column in shown else list(PROFILE_FIELDS)
    cards, values = shown["card_id"].tolist(), shown[named].astype(str).agg(", ".join, axis=1).tolist()
    examples = [f"card {card!r} has {value!r}" for card, value in zip(cards, values, strict=True)]
    return Problem(column, rule, len(shown), tuple(examples[:SHOWN_ROWS]))
