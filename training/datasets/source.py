"""Reading the columns of a file: CSV or Parquet, with errors that say what the file holds instead.

Text stays text: a CSV's identifiers keep their leading zeros, and the country `NA` is Namibia, not null.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

SUFFIXES = (".csv", ".parquet")


class UnreadableSource(ValueError):
    """A file is missing, of another format, or lacks columns; the message says what is there and what to do."""


def column_names(path: Path) -> list[str]:
    """Return the column names of a CSV or Parquet file without reading its rows."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UnreadableSource(f"File {str(path)!r}: has the suffix {suffix!r}; must be {' or '.join(SUFFIXES)}.")
    if not path.is_file():
        raise UnreadableSource(f"File {str(path)!r}: does not exist; give the path of a CSV or Parquet file.")
    try:
        if suffix == ".parquet":
            return list(pq.read_schema(path).names)
        return list(pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns)
    except (pa.ArrowInvalid, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UnreadableSource(f"File {str(path)!r}: cannot be read as {suffix[1:]}: {error}.") from None


def read_columns(path: Path, columns: Collection[str], *, as_text: Collection[str] = ()) -> pd.DataFrame:
    """Read the named columns; in a CSV those of `as_text` are taken literally and only the empty field is null.

    Raises `UnreadableSource` listing the columns that the file lacks and those it has.
    """
    present = column_names(path)
    absent = [column for column in columns if column not in present]
    if absent:
        raise UnreadableSource(
            f"File {str(path)!r}: lacks the column(s) {', '.join(absent)}; it has {', '.join(present) or 'none'}."
        )
    if path.suffix.lower() == ".parquet":
        return pq.read_table(path, columns=list(columns)).to_pandas()
    types = {column: str for column in columns if column in as_text}
    try:
        return pd.read_csv(
            path,
            usecols=list(columns),
            dtype=types,
            keep_default_na=False,
            na_values=[""],
            encoding="utf-8-sig",
            low_memory=False,
        )
    except (UnicodeDecodeError, pd.errors.ParserError) as error:
        raise UnreadableSource(f"File {str(path)!r}: cannot be read as csv: {error}.") from None
