"""A labelled history in the platform's own schema, whatever source it came from.

Invariant: `transactions` has the columns and types of `LABELLED_SCHEMA`, sorted by (timestamp, transaction_id); its
required fields are never null and every value passes the schema's rules. Whether the set as a whole is fit to train
on (duplicates, fraud rate, outliers) is judged in `training.validate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.schema import HISTORY_SCHEMA, MERCHANT_CATEGORIES
from training.datasets.columns import InvalidColumn, read_instant, read_label, read_number, read_text
from training.datasets.rules import LABEL, LABELLED_SCHEMA, REQUIRED_COLUMNS, RULES

Origin = Literal["third-party", "generated", "file"]

SHOWN_ROWS = 5
UNKNOWN_CATEGORY = "unknown merchant categories mapped to other"


@dataclass(frozen=True)
class Problem:
    """One broken rule: the column, how many rows break it (0: the column as a whole) and the first of them as text."""

    column: str
    rule: str
    rows: int = 0
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.rows:
            return f"{self.column} {self.rule}"
        more = "; ..." if self.rows > len(self.examples) else ""
        return f"{self.column} {self.rule}: {self.rows:,} row(s) ({'; '.join(self.examples)}{more})"


class InvalidDataset(ValueError):
    """Rows of a source break the transaction schema. `problems` lists every broken rule."""

    def __init__(self, name: str, problems: list[Problem]) -> None:
        self.name = name
        self.problems = problems
        listed = "\n  ".join(str(problem) for problem in problems)
        super().__init__(f"Data set {name!r} breaks the schema; correct these rows or take them out:\n  {listed}")


@dataclass(frozen=True)
class Dataset:
    """A labelled transaction history, and what is known of its cards.

    `transactions`: the columns of `LABELLED_SCHEMA`; instants are datetime64[us, UTC], fields the source lacks are
    null. `profiles`: card_id (unique, sorted), home_country, account_opened (datetime64[us, UTC]), birth_year; or
    None where the source knows nothing of its cards. `adjustments`: what was changed on the way in, with counts.
    """

    name: str
    origin: Origin
    transactions: pd.DataFrame
    profiles: pd.DataFrame | None
    adjustments: Mapping[str, int] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """One line for a person: name, origin, rows, fraud rate, days covered and adjustments."""
        rows = self.transactions
        if rows.empty:
            return f"{self.name} ({self.origin}): no transactions"
        days = f"{rows['timestamp'].iloc[0]:%Y-%m-%d} to {rows['timestamp'].iloc[-1]:%Y-%m-%d}"
        changes = "".join(f"; {count:,} {what}" for what, count in self.adjustments.items())
        share = rows[LABEL].mean()
        return f"{self.name} ({self.origin}): {len(rows):,} transactions, {share:.2%} fraud, {days}{changes}"


def conform(
    frame: pd.DataFrame,
    *,
    name: str,
    origin: Origin,
    profiles: pd.DataFrame | None = None,
    assume_utc: bool = False,
    adjustments: Mapping[str, int] | None = None,
) -> Dataset:
    """Bring a frame whose columns bear the schema's names into the shape of `Dataset`.

    Other columns are left out. Absent optional fields become null, an absent `ingested_at` the event time, and
    categories outside the vocabulary `other`, counted in `adjustments`. `assume_utc` reads naive instants as UTC.
    Raises `InvalidDataset` with every broken rule and its first rows.
    """
    rows, unknown = _conformed(frame, LABELLED_SCHEMA, name, assume_utc)
    changes = {**(adjustments or {}), **({UNKNOWN_CATEGORY: unknown} if unknown else {})}
    return Dataset(name, origin, rows, profiles, changes)


def conform_unlabelled(frame: pd.DataFrame, *, name: str, assume_utc: bool = False) -> pd.DataFrame:
    """Payments alone in the columns of `HISTORY_SCHEMA`, sorted as in `Dataset`; raises `InvalidDataset` likewise."""
    return _conformed(frame, HISTORY_SCHEMA, name, assume_utc)[0]


def _conformed(frame: pd.DataFrame, schema: pa.Schema, name: str, assume_utc: bool) -> tuple[pd.DataFrame, int]:
    """The rows in this schema, and how many had a category outside the vocabulary."""
    absent = [column for column in REQUIRED_COLUMNS if column in schema.names and column not in frame]
    if absent:
        rule = f"must be present; the source has {', '.join(map(str, frame.columns)) or 'no columns'}"
        raise InvalidDataset(name, [Problem(column, rule) for column in absent])
    columns, problems = _read(frame, schema, assume_utc)
    unknown = _map_categories(columns)
    problems += _judge(frame, columns)
    if problems:
        raise InvalidDataset(name, problems)
    table = pa.table([columns[field.name] for field in schema], schema=schema)
    order = pc.sort_indices(table, sort_keys=[("timestamp", "ascending"), ("transaction_id", "ascending")])
    return table.take(order).to_pandas(), unknown


def _read(frame: pd.DataFrame, schema: pa.Schema, assume_utc: bool) -> tuple[dict[str, pa.Array], list[Problem]]:
    instant = partial(read_instant, assume_utc=assume_utc)
    special: dict[str, Callable[[pd.Series], pa.Array]] = {
        "timestamp": instant,
        "ingested_at": instant,
        "amount": read_number,
        LABEL: read_label,
    }
    columns: dict[str, pa.Array] = {}
    problems = []
    for name, kind in zip(schema.names, schema.types, strict=True):
        if name not in frame:
            columns[name] = columns.get("timestamp") if name == "ingested_at" else pa.nulls(len(frame), kind)
            continue
        try:
            columns[name] = special.get(name, read_text)(frame[name])
        except InvalidColumn as error:
            problems.append(_problem(frame, name, error.rule, error.broken))
    return columns, problems


def _map_categories(columns: dict[str, pa.Array]) -> int:
    categories = columns.get("merchant_category")
    if categories is None:
        return 0
    foreign = pc.and_(pc.is_valid(categories), pc.invert(pc.is_in(categories, pa.array(MERCHANT_CATEGORIES))))
    columns["merchant_category"] = pc.if_else(foreign, "other", categories)
    return pc.sum(foreign).as_py() or 0


def _judge(frame: pd.DataFrame, columns: dict[str, pa.Array]) -> list[Problem]:
    problems = []
    for name in REQUIRED_COLUMNS:
        if columns.get(name) is not None and columns[name].null_count:
            problems.append(_problem(frame, name, "must not be null", pc.is_null(columns[name])))
    for rule in RULES:
        # A column filled in for the source needs no judging: it is null or a copy of one that is judged.
        values = columns.get(rule.column) if rule.column in frame else None
        if values is not None and pc.any(broken := rule.broken(values)).as_py():
            problems.append(_problem(frame, rule.column, rule.text, broken))
    return problems


def _problem(frame: pd.DataFrame, column: str, rule: str, broken: pa.Array | None) -> Problem:
    if broken is None:
        return Problem(column, rule)
    places = pc.indices_nonzero(pc.fill_null(broken, False)).to_pylist()
    shown = frame.iloc[places[:SHOWN_ROWS]]
    ids, values = shown["transaction_id"].tolist(), shown[column].tolist()
    examples = tuple(
        f"row {place + 1}, transaction {identifier!r}, has {value!r}"
        for place, identifier, value in zip(places, ids, values, strict=False)
    )
    return Problem(column, rule, len(places), examples)
