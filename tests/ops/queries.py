"""What a query of Prometheus names: its metrics and labels, read well enough for the queries that are written here."""

from __future__ import annotations

import re
from collections.abc import Iterator

from monitoring.metrics import Catalogue, declared

_TEXT = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'[^']*'")
_MATCHERS = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_GROUPING = re.compile(r"\b(by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_NAME = re.compile(r"(?<![\w:$.])([a-zA-Z_:][\w:]*)(?!\s*\()(?![\w:])")
_WORDS = {"and", "or", "unless", "bool"}
OF_TARGETS = {"job", "instance"}
SUFFIXES = ("_bucket", "_count", "_sum")


def exported() -> dict[str, set[str]]:
    """The series that the catalogue makes, each with its labels."""
    found: dict[str, set[str]] = {"up": set()}
    for one in declared(Catalogue):
        names = [one.name + suffix for suffix in SUFFIXES] if one.kind == "histogram" else [one.name]
        found |= {name: set(one.labels) | ({"le"} if name.endswith("_bucket") else set()) for name in names}
    return found


def metrics_of(query: str) -> set[str]:
    """The names of the series that a query selects."""
    bare = _GROUPING.sub("", _TEXT.sub("", query))
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\boffset\s+\w+", "", bare)
    return {name for name in _NAME.findall(bare) if name not in _WORDS}


def matchers_of(query: str) -> Iterator[tuple[str, str]]:
    """Each series with a label that is asked of it."""
    for name, inside in _MATCHERS.findall(query):
        for label in re.findall(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)", _TEXT.sub("", inside)):
            yield name, label


def unknown(query: str, recorded: set[str]) -> set[str]:
    """What a query names that no catalogue and no recording rule makes: series, and `series{label}`."""
    series = exported()
    wrong = {name for name in metrics_of(query) if name not in series and name not in recorded}
    labelled = [(name, label) for name, label in matchers_of(query) if name in series]
    return wrong | {f"{name}{{{label}}}" for name, label in labelled if label not in series[name] | OF_TARGETS}
