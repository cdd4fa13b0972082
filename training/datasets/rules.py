"""The rules of `feature_repo.schema` as checks over whole columns.

Every bound, pattern and vocabulary is read from the `Transaction` model, so a column passes here exactly when each of
its values would pass there; only the rules that live in code there (earliest instant, category vocabulary) are bound
to the same constants. Null is not judged by a rule: whether a field may be null is `REQUIRED_FIELDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.schema import EARLIEST, HISTORY_SCHEMA, MERCHANT_CATEGORIES, REQUIRED_FIELDS, TIMESTAMP, Transaction

LABEL = "is_fraud"
LABELLED_SCHEMA = HISTORY_SCHEMA.append(pa.field(LABEL, pa.int8(), nullable=False))
"""One row of `Dataset.transactions`: the event log's fields and the label."""

REQUIRED_COLUMNS = (*REQUIRED_FIELDS, LABEL)
"""What a source must bring; `ingested_at` falls back to the event time and the rest to null."""

Mask = Callable[[pa.Array], pa.Array]


@dataclass(frozen=True)
class Rule:
    """One rule of one column: `broken` maps a column to booleans, true where a value breaks it, null where null."""

    column: str
    text: str
    broken: Mask


def _unlike(pattern: str) -> Mask:
    return lambda values: pc.invert(pc.match_substring_regex(values, pattern))


def _outside(choices: list[Any] | tuple[Any, ...]) -> Mask:
    # `is_in` calls null "not in the set"; a rule must leave null alone.
    return lambda values: pc.if_else(
        pc.is_valid(values), pc.invert(pc.is_in(values, pa.array(choices, type=values.type))), None
    )


_CONSTRAINTS: dict[str, Callable[[Any], tuple[str, Mask]]] = {
    "minLength": lambda n: (f"must have at least {n} character(s)", lambda v: pc.less(pc.utf8_length(v), n)),
    "maxLength": lambda n: (f"must have at most {n} characters", lambda v: pc.greater(pc.utf8_length(v), n)),
    "pattern": lambda p: (f"must match {p}", _unlike(p)),
    "enum": lambda choices: (f"must be one of {', '.join(choices)}", _outside(choices)),
    "exclusiveMinimum": lambda low: (f"must be > {low:g}", lambda v: pc.less_equal(v, float(low))),
    "maximum": lambda high: (f"must be <= {high:,.0f}", lambda v: pc.greater(v, float(high))),
}
_ANNOTATIONS = {"title", "description", "examples", "default", "type", "format", "anyOf"}


def _declared(column: str, schema: dict[str, Any]) -> Iterator[Rule]:
    for keyword, argument in schema.items():
        if keyword in _CONSTRAINTS:
            text, broken = _CONSTRAINTS[keyword](argument)
            yield Rule(column, text, broken)
        elif keyword == "anyOf":
            for branch in argument:
                yield from _declared(column, branch)
        elif keyword not in _ANNOTATIONS:
            raise NotImplementedError(
                f"Transaction field {column!r} has the constraint {keyword!r}, which has no column check; "
                f"add one to {__name__}."
            )


def _all() -> tuple[Rule, ...]:
    rules = [
        rule
        for column, schema in Transaction.model_json_schema()["properties"].items()
        for rule in _declared(column, schema)
    ]
    earliest = pa.scalar(EARLIEST, TIMESTAMP)
    for column in ("timestamp", "ingested_at"):
        rules.append(Rule(column, f"must not be before {EARLIEST:%Y-%m-%d}", lambda v: pc.less(v, earliest)))
    known = f"must be one of the {len(MERCHANT_CATEGORIES)} merchant categories"
    rules.append(Rule("merchant_category", known, _outside(MERCHANT_CATEGORIES)))
    rules.append(Rule(LABEL, "must be 0 or 1", _outside((0, 1))))
    return tuple(rules)


RULES = _all()
