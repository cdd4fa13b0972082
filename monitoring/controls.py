"""How traffic is shared between champion and challenger: tags of the registered model, which win over the settings.

A tag that is no value is refused, never guessed at.
"""

from __future__ import annotations

import math
from typing import Final

WEIGHT_TAG: Final = "tollgate.challenger_weight"
SHADOW_TAG: Final = "tollgate.shadow"
BACK_TAG: Final = "tollgate.challenger_back"
"""Any new value brings a challenger back that a guard took out; `monitoring.traffic` writes the instant."""

SWITCH = {"on": True, "off": False}


class InvalidControl(ValueError):
    """A tag whose value is none."""


def weight_of(text: str) -> float:
    """The share of payments that the challenger answers, in [0, 1]; raises `InvalidControl`."""
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0.0 <= weight <= 1.0:
        raise InvalidControl(
            f"Tag '{WEIGHT_TAG}' has value {text!r}; must be a number from 0 to 1. "
            "Set it with `python -m monitoring.traffic --weight 0.1`."
        )
    return weight


def shadow_of(text: str) -> bool:
    """Whether the challenger scores in shadow; raises `InvalidControl`."""
    if text not in SWITCH:
        raise InvalidControl(
            f"Tag '{SHADOW_TAG}' has value {text!r}; must be `on` or `off`. "
            "Set it with `python -m monitoring.traffic --shadow on`."
        )
    return SWITCH[text]
