"""A user's own CSV or Parquet file, with a mapping from the schema's fields to the file's columns.

The mapping comes from the caller or from `<name>.mapping.toml` (or `.json`) beside the file: one entry per field,
`card_id = "pan_token"`, and `assume_utc = true` where the file's times have no offset and are in UTC. A field without
an entry is read from the column of its own name, where there is one.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from feature_repo.schema import REQUIRED_FIELDS
from training.datasets.dataset import Dataset, conform, conform_unlabelled
from training.datasets.profiles import PROFILE_FIELDS, conform_profiles
from training.datasets.rules import LABEL, LABELLED_SCHEMA, REQUIRED_COLUMNS
from training.datasets.source import column_names, read_columns

ASSUME_UTC = "assume_utc"
FIELDS = (*LABELLED_SCHEMA.names, *PROFILE_FIELDS)
PARSED = ("amount", "is_fraud", "birth_year")
"""The fields that are numbers in a CSV; every other one is text there."""


class InvalidMapping(ValueError):
    """A mapping names an unknown field or column, or leaves a required field without one."""


def load(path: Path, mapping: dict[str, str] | None = None, assume_utc: bool = False) -> Dataset:
    """Load a labelled history from a file; home_country, account_opened and birth_year, if any, become the profiles.

    Raises `UnreadableSource`, `InvalidMapping` or `InvalidDataset`, each with what was found and what is needed.
    """
    rows, profiles, assume_utc = _mapped(path, REQUIRED_COLUMNS, mapping, assume_utc)
    return conform(rows, name=path.stem, origin="file", profiles=profiles, assume_utc=assume_utc)


def load_unlabelled(path: Path) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Load payments whose labels nobody knows yet: the columns of `HISTORY_SCHEMA`, and the profiles as in `load`.

    A label in the file is left out. Raises as `load` does.
    """
    rows, profiles, assume_utc = _mapped(path, REQUIRED_FIELDS, None, False)
    return conform_unlabelled(rows, name=path.stem, assume_utc=assume_utc), profiles


def _mapped(
    path: Path, required: Sequence[str], mapping: dict[str, str] | None, assume_utc: bool
) -> tuple[pd.DataFrame, pd.DataFrame | None, bool]:
    """The file's rows under our names, the profiles among them, and whether an instant without an offset is UTC."""
    present = column_names(path)
    if mapping is None:
        mapping, declared = _beside(path)
        assume_utc = assume_utc or declared
    if LABEL not in required:
        mapping = {field: column for field, column in mapping.items() if field != LABEL}
    sources = _resolve(mapping, present, path, required)
    literal = [source for field, source in sources.items() if field not in PARSED]
    raw = read_columns(path, list(dict.fromkeys(sources.values())), as_text=literal)
    rows = pd.DataFrame({field: raw[source] for field, source in sources.items()})
    profiles = None
    if any(field in sources for field in PROFILE_FIELDS):
        known = rows[["card_id", *(field for field in PROFILE_FIELDS if field in sources)]]
        profiles = conform_profiles(known, name=path.stem, assume_utc=assume_utc)
    return rows, profiles, assume_utc


def _resolve(mapping: Mapping[str, str], present: list[str], path: Path, required: Sequence[str]) -> dict[str, str]:
    sources = {field: field for field in FIELDS if field in present} | dict(mapping)
    problems = [f"{field!r} is no field of the schema" for field in mapping if field not in FIELDS]
    problems += [
        f"{f!r} is mapped to {c!r}, which is no column of the file" for f, c in mapping.items() if c not in present
    ]
    problems += [f"{field!r} is required and has no column" for field in required if field not in sources]
    if problems:
        raise InvalidMapping(
            f"Mapping of {str(path)!r}: {'; '.join(problems)}. The file has the columns {', '.join(present)}; "
            f"the fields are {', '.join(FIELDS)}. Map each required field to a column in {_file(path, '.toml').name!r}."
        )
    return sources


def _file(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.stem}.mapping{suffix}")


def _beside(path: Path) -> tuple[dict[str, str], bool]:
    readers = {".toml": tomllib.loads, ".json": json.loads}
    found = [_file(path, suffix) for suffix in readers if _file(path, suffix).is_file()]
    if not found:
        return {}, False
    if len(found) > 1:
        raise InvalidMapping(
            f"Data set {str(path)!r}: has two mappings, {found[0].name} and {found[1].name}; keep one."
        )
    try:
        entries: Any = readers[found[0].suffix](found[0].read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidMapping(f"Mapping {str(found[0])!r}: cannot be read: {error}.") from None
    if not isinstance(entries, dict):
        raise InvalidMapping(f"Mapping {str(found[0])!r}: must be one table of field = column.")
    assume_utc = entries.pop(ASSUME_UTC, False)
    wrong = [field for field, column in entries.items() if not isinstance(column, str)]
    if wrong or not isinstance(assume_utc, bool):
        raise InvalidMapping(
            f"Mapping {str(found[0])!r}: {', '.join(wrong) or ASSUME_UTC} has a value of the wrong kind; "
            f'must be field = "column" and {ASSUME_UTC} = true or false.'
        )
    return entries, assume_utc
