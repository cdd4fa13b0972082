"""Readers that turn one column of a source into the Arrow type of the schema, or say which rows forbid it.

A reader never guesses: a number is no timestamp, a float is no identifier, and a timestamp without an offset is
refused unless the caller says that it is UTC.
"""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.schema import TIMESTAMP

_WITH_OFFSET = r"\d{2}:\d{2}.*([Zz]|[+-]\d{2}:?\d{2})$"


class InvalidColumn(ValueError):
    """A column cannot be read. `rule` says why; `broken` marks the offending rows, or is None for all of them."""

    def __init__(self, rule: str, broken: pa.Array | None = None) -> None:
        self.rule = rule
        self.broken = broken
        super().__init__(rule)


def to_arrow(values: pd.Series) -> pa.Array:
    """Return the column as one Arrow array, NaN and NaT as null.

    Raises `InvalidColumn` where the values are of mixed types.
    """
    try:
        column = pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        kinds = sorted(set(values.map(lambda value: type(value).__name__)))
        raise InvalidColumn(f"must hold values of one type, and holds {', '.join(kinds)}") from None
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def read_text(values: pd.Series) -> pa.Array:
    """Return text; integers become their digits. Floats are refused: 2**53 + 1 would have lost its last digit."""
    column = to_arrow(values)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
        return column.cast(pa.string())
    if column.null_count == len(column):
        return pa.nulls(len(column), pa.string())
    raise InvalidColumn(f"must be text or whole numbers, and is {kind}")


def read_number(values: pd.Series) -> pa.Array:
    """Return float64; text is read as decimal numbers."""
    column = to_arrow(values)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        numbers = pa.array(pd.to_numeric(values, errors="coerce"), from_pandas=True)
        return _all_read(column, numbers.cast(pa.float64()), "must be a number")
    if pa.types.is_boolean(column.type) or pa.types.is_temporal(column.type):
        raise InvalidColumn(f"must be a number, and is {column.type}")
    return column.cast(pa.float64())


def read_label(values: pd.Series) -> pa.Array:
    """Return int8 from booleans or the numbers 0 and 1."""
    column = to_arrow(values)
    if pa.types.is_boolean(column.type):
        return column.cast(pa.int8())
    numbers = read_number(values)
    unclear = pc.invert(pc.is_in(numbers, pa.array([0.0, 1.0])))
    broken = pc.and_(pc.is_valid(numbers), unclear)
    if pc.any(broken).as_py():
        raise InvalidColumn("must be 0 or 1", broken)
    return numbers.cast(pa.int8())


def read_instant(values: pd.Series, *, assume_utc: bool) -> pa.Array:
    """Return UTC instants in microseconds (finer digits are cut off) from datetimes or ISO 8601 text.

    `assume_utc` takes an instant without an offset as UTC; without it such an instant is refused.
    """
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.cat.categories.dtype)
    column = to_arrow(values)
    if pa.types.is_timestamp(column.type):
        if column.type.tz is None and not assume_utc and column.null_count < len(column):
            raise InvalidColumn("must carry a UTC offset (or say that the source is in UTC: assume_utc)")
        # Arrow keeps instants with a zone in UTC, so a naive one read as UTC and an aware one end alike.
        return column.cast(pa.timestamp("us", tz=column.type.tz), safe=False).cast(TIMESTAMP)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        if column.null_count == len(column):
            return pa.nulls(len(column), TIMESTAMP)
        raise InvalidColumn(f"must be a datetime or ISO 8601 text, and is {column.type}")
    if not assume_utc:
        bare = pc.fill_null(pc.invert(pc.match_substring_regex(column, _WITH_OFFSET)), False)
        if pc.any(bare).as_py():
            raise InvalidColumn("must carry a UTC offset (or say that the source is in UTC: assume_utc)", bare)
    parsed = pd.to_datetime(values, format="ISO8601", utc=True, errors="coerce").dt.as_unit("us")
    return _all_read(column, pa.array(parsed, type=TIMESTAMP), "must be an ISO 8601 instant")


def _all_read(source: pa.Array, result: pa.Array, rule: str) -> pa.Array:
    broken = pc.and_(pc.is_valid(source), pc.is_null(result))
    if pc.any(broken).as_py():
        raise InvalidColumn(rule, broken)
    return result
