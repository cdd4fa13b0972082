"""The traffic tags in force: the last valid value of each, or the setting's where the registry has none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from monitoring.controls import SHADOW_TAG, WEIGHT_TAG, InvalidControl, shadow_of, weight_of
from monitoring.metrics import metrics

logger = logging.getLogger("bentoml.service.tollgate.models")

T = TypeVar("T")


class Control(Generic[T]):
    """One tag. `refused` says what is wrong with its value now, if anything."""

    def __init__(self, tag: str, parse: Callable[[str], T], setting: T) -> None:
        self._tag, self._parse, self._setting = tag, parse, setting
        self._seen: str | None = None
        self.value = setting
        self.refused: str | None = None

    def read(self, tags: Mapping[str, str]) -> None:
        """Take the tag's value over, unless it is none; a tag that is gone gives the setting back."""
        text = tags.get(self._tag)
        if text == self._seen:
            return
        self._seen, self.refused = text, None
        try:
            self.value = self._setting if text is None else self._parse(text)
        except InvalidControl as error:
            self.refused = f"{error} {self.value} stays in force."
            metrics.control_refusals.labels(tag=self._tag).inc()
            logger.error("%s", self.refused)


class TrafficTags:
    """Both controls of the traffic between champion and challenger."""

    def __init__(self, weight: float, shadow: bool) -> None:
        self._weight = Control(WEIGHT_TAG, weight_of, weight)
        self._shadow = Control(SHADOW_TAG, shadow_of, shadow)

    @property
    def weight(self) -> float:
        """The share of payments that a challenger answers."""
        return self._weight.value

    @property
    def shadow(self) -> bool:
        """Whether a challenger scores in shadow."""
        return self._shadow.value

    @property
    def refused(self) -> tuple[str, ...]:
        """What is wrong with the tags as they are now."""
        return tuple(text for text in (self._weight.refused, self._shadow.refused) if text is not None)

    def read(self, tags: Mapping[str, str]) -> None:
        """Take over what the registered model's tags say."""
        self._weight.read(tags)
        self._shadow.read(tags)
