"""The three seats of the line-up and the registry they follow: champion, challenger, and the fallback of its own model.

Invariant: a registry that is out of reach changes nobody's seat.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import httpx

from bentos.lineup_card import Refused
from bentos.registry import NoModel, Registry, RegistryUnreachable
from bentos.seat import REFUSALS, Place, Prepare, Seat
from feature_repo.settings import Settings
from feature_repo.vector import FALLBACK_SERVICE, FEATURE_SERVICE
from monitoring.metrics import metrics

logger = logging.getLogger("bentoml.service.tollgate.models")

CHAMPION, CHALLENGER = "champion", "challenger"


class Seats:
    """Who sits where; for one thread, though others may read who sits."""

    def __init__(
        self,
        settings: Settings,
        columns: Sequence[str],
        fallback_columns: Sequence[str],
        prepare: Prepare,
        now: Callable[[], datetime],
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        cache, threshold = settings.home / "models", settings.review_threshold
        main = Registry(settings.mlflow_url, settings.model_name, cache, transport)
        request = Registry(settings.mlflow_url, settings.fallback_model_name, cache, transport)
        as_champion = Place("champion", CHAMPION, FEATURE_SERVICE, columns, threshold)
        as_challenger = Place("challenger", CHALLENGER, FEATURE_SERVICE, columns, threshold)
        as_fallback = Place("fallback", CHAMPION, FALLBACK_SERVICE, fallback_columns, None)
        self.champion = Seat(as_champion, main, prepare, now)
        self.challenger = Seat(as_challenger, main, prepare, now)
        self.fallback = Seat(as_fallback, request, prepare, now)
        self.reachable: bool | None = None
        self._absent: set[str] = set()

    @property
    def refused(self) -> tuple[Refused, ...]:
        """The versions that aliases point at and that are not served."""
        every = (self.champion.refused, self.challenger.refused, self.fallback.refused)
        return tuple(one for one in every if one is not None)

    def take(self) -> Mapping[str, str]:
        """Seat the first models, from the cache where the registry is out of reach; returns the model's tags.

        Raises `NoModel`, `ContractMismatch` or `InvalidModel` where no champion is fit to serve.
        """
        try:
            tags = self._look()
        except RegistryUnreachable as error:
            self._told(error)
            tags = {}
            if self.champion.model is None:
                self._champion_from_cache(error)
        else:
            self._told(None)
            if self.champion.model is None and self.champion.error is not None:
                self._champion_from_cache(self.champion.error)
        if self.fallback.model is None and (self.fallback.error or not self.reachable):
            self._fallback_from_cache()
        return tags

    def follow(self) -> Mapping[str, str] | None:
        """Seat what the aliases point at now; the model's tags, or None where they could not be had."""
        try:
            tags = self._look()
        except RegistryUnreachable as error:
            self._told(error)
            return None
        except NoModel as error:
            self._once(str(error))
            tags = None
        self._told(None)
        return tags

    def close(self) -> None:
        """End the connections."""
        self.champion.registry.close()
        self.fallback.registry.close()

    def _look(self) -> Mapping[str, str]:
        found = self.champion.registry.registered()
        first, second = found.aliases.get(CHAMPION), found.aliases.get(CHALLENGER)
        if first is None:
            raise NoModel(
                f"Model '{self.champion.registry.name}' has no version with the alias '{CHAMPION}'. "
                "Train and register a model, or give a version the alias."
            )
        beside = (self.challenger.model, self.champion.model)
        self.champion.follow(first, beside)
        if second is None or second == first:
            self.challenger.leave()
        else:
            self.challenger.follow(second, beside)
        self._look_for_fallback()
        return found.tags

    def _look_for_fallback(self) -> None:
        try:
            version = self.fallback.registry.registered().aliases.get(CHAMPION)
            if version is None:
                raise NoModel(f"Model '{self.fallback.registry.name}' has no version with the alias '{CHAMPION}'.")
            self.fallback.follow(version)
        except NoModel as error:
            serves = "none decides" if self.fallback.model is None else "the one in service decides"
            self._once(f"{error} When stored features are away, {serves}.")

    def _champion_from_cache(self, cause: Exception) -> None:
        try:
            self.champion.sit_from_cache()
        except NoModel as nothing:
            if not isinstance(cause, RegistryUnreachable):
                raise cause from None
            raise NoModel(f"{cause} {nothing} Start MLflow, or set FRAUD_MLFLOW_URL to where it is.") from cause
        except REFUSALS as refused:
            raise (refused if isinstance(cause, RegistryUnreachable) else cause) from None
        assert self.champion.model is not None
        version = self.champion.model.version
        logger.warning("%s Serving version %s from the cache, the last one served.", cause, version)

    def _fallback_from_cache(self) -> None:
        try:
            self.fallback.sit_from_cache()
        except REFUSALS as error:
            logger.warning("No fallback: %s", error)

    def _told(self, error: RegistryUnreachable | None) -> None:
        reachable = error is None
        metrics.registry_reachable.set(reachable)
        if self.reachable is not None and reachable != self.reachable:
            if error is not None:
                logger.warning("%s What is in service stays.", error)
            else:
                logger.warning("MLflow answers again.")
        self.reachable = reachable

    def _once(self, text: str) -> None:
        if text not in self._absent:
            self._absent.add(text)
            logger.warning("%s", text)
