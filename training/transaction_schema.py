"""The transaction schema as a pandera schema, built from `feature_repo.schema`; no rule is written here but those
that hold between columns.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pyarrow.compute as pc

from training.datasets.columns import InvalidColumn, to_arrow
from training.datasets.rules import LABELLED_SCHEMA, RULES, Rule

NOT_NULL = "must not be null"
ARRIVAL = "ingested_at must not be before timestamp"


@lru_cache(maxsize=1)
def transaction_schema() -> Any:
    """Return the pandera `DataFrameSchema` of `Dataset.transactions`: types, ranges, vocabularies, formats, order of
    columns and consistency between them. Nulls are refused where the schema refuses them."""
    columns = {}
    for field in LABELLED_SCHEMA:
        checks = [_of_type(field.type)]
        checks += [_check(rule, field.type) for rule in RULES if rule.column == field.name]
        columns[field.name] = pandera.Column(checks=checks, nullable=field.nullable)
    arrival = pandera.Check(_arrives_after, name=ARRIVAL, error=ARRIVAL, ignore_na=False)
    return pandera.DataFrameSchema(columns, checks=[arrival], strict=True, ordered=True)


def broken_rules(transactions: pd.DataFrame) -> dict[str, list[int]]:
    """Return each broken rule with the positions of the offending rows (none where a column is at fault as a whole).

    Validation is lazy: one pass finds every broken rule. A null where the schema has none breaks `NOT_NULL`.
    """
    rows = transactions.reset_index(drop=True)
    try:
        transaction_schema().validate(rows, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        return _by_rule(errors.failure_cases)
    return {}


def _by_rule(failures: pd.DataFrame) -> dict[str, list[int]]:
    broken = {}
    for (column, check), cases in failures.groupby(["column", "check"], sort=False):
        rule = ARRIVAL if check == ARRIVAL else f"{column} {NOT_NULL if check == 'not_nullable' else check}"
        broken[rule] = sorted(set(cases["index"].dropna().astype("int64")))
    return broken


def _of_type(kind: pa.DataType) -> Any:
    def fits(values: pd.Series) -> bool:
        column = _column(values)
        # A column without a value has no type of its own.
        return column is not None and (column.type == kind or column.null_count == len(column))

    return pandera.Check(fits, error=f"must be {kind}")


def _check(rule: Rule, kind: pa.DataType) -> Any:
    def keeps(values: pd.Series) -> pd.Series:
        column = _column(values)
        if column is None or column.type != kind:
            return pd.Series(True, index=values.index)  # the type's own check reports it
        return pd.Series(~pc.fill_null(rule.broken(column), False).to_numpy(zero_copy_only=False), index=values.index)

    return pandera.Check(keeps, error=rule.text)


def _column(values: pd.Series) -> pa.Array | None:
    try:
        return to_arrow(values)
    except InvalidColumn:
        return None


def _arrives_after(rows: pd.DataFrame) -> pd.Series:
    return ~(rows["ingested_at"] < rows["timestamp"])
