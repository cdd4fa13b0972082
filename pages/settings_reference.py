"""The settings as Markdown, from the settings object itself, in its own order and under its own groups."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from feature_repo.settings import ROOT, Settings

HEAD = """# Settings

Made at build time of [`feature_repo/settings.py`](../../feature_repo/settings.py). Each is an environment variable;
`FRAUD_SECRETS` names a folder in which a file `fraud_redis_url` stands for `FRAUD_REDIS_URL`, and so for each. A
variable wins over a file.

A duration is ISO 8601 (`PT5M`, `P7D`); `null` says "none" where that is among the values. What changes the model's
meaning is no setting: it is code ([concepts](../concepts.md)).
"""

GROUPS = {
    "profile": "Where things are",
    "redis_url": "Stores and registry",
    "challenger_weight": "Challenger and shadow",
    "host": "The service",
    "chargeback_fee": "What decisions cost",
    "control_share": "The control group",
    "api_keys": "Access",
    "metrics": "Metrics, monitor, jobs",
    "loop_every": "The closed loop",
    "traces_endpoint": "Traces",
    "transport": "The stream",
}
"""The first setting of each group."""

DURATION = TypeAdapter(timedelta)
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def page() -> str:
    """The reference: one table for each group of settings."""
    missing = sorted(set(GROUPS) - set(Settings.model_fields))
    if missing:
        raise KeyError(f"{__name__}.GROUPS begins groups at {missing}, which are no settings any more; name others.")
    return HEAD + "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        if name in GROUPS:
            yield f"\n## {GROUPS[name]}\n\n| variable | default | values | meaning |\n|---|---|---|---|"
        if not field.description:
            raise ValueError(
                f"Setting FRAUD_{name.upper()}: has no description; give its Field one in feature_repo/settings.py."
            )
        meaning = field.description.replace("|", "\\|")
        yield f"| `FRAUD_{name.upper()}` | {_default(field)} | {_values(field)} | {meaning} |"


def _default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, Path) and value.is_relative_to(ROOT):
        value = f"{value.relative_to(ROOT)}/"
    if isinstance(value, timedelta):
        value = DURATION.dump_python(value, mode="json")
    if value is None:
        return "none"
    if isinstance(value, bool):
        value = str(value).lower()
    return "empty" if value == "" else f"`{value}`"


def _values(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(rule, name)}"
        for rule in field.metadata
        for name, sign in BOUNDS.items()
        if getattr(rule, name, None) is not None
    ]
    return ", ".join([_kind(field.annotation), *bounds])


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{each}`" for each in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(_kind(each) for each in get_args(annotation))
    names = {
        NoneType: "null", bool: "true or false", timedelta: "duration", Path: "path", str: "text", int: "whole number",
        float: "number",
    }  # fmt: skip
    return names.get(annotation, re.sub(r"\W", " ", inspect.formatannotation(annotation)))
