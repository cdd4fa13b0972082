"""One seat of the line-up: it follows an alias of a registered model and keeps the last version that was fit to sit.

Invariant: a version sits only when its contract, its warm-up and its parity sample are in order; one that is refused is
not tried again while the alias stays on it, and whoever sat before stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from bentos.answers import Role
from bentos.evidence import InvalidModel, WarmUpFailed
from bentos.lineup_card import Refused
from bentos.model import LoadedModel, ModelFiles, load
from bentos.registry import NoModel, Registry
from feature_repo.contract import ContractMismatch
from monitoring.metrics import metrics

logger = logging.getLogger("bentoml.service.tollgate.models")

REFUSALS = (ContractMismatch, InvalidModel, NoModel)

Prepare = Callable[[LoadedModel], object]
"""Called with a model before it serves, for what must be ready by then; what it raises refuses the version."""


@dataclass(frozen=True)
class Place:
    """What a seat asks of a model: its role and alias, the feature service and columns the code has for it."""

    role: Role
    alias: str
    feature_service: str
    columns: Sequence[str]
    review_threshold: float | None


class Seat:
    """A seat and who sits on it; for one thread, `model` may be read by others."""

    def __init__(self, place: Place, registry: Registry, prepare: Prepare, now: Callable[[], datetime]) -> None:
        self.place, self.registry = place, registry
        self._prepare, self._now = prepare, now
        self.model: LoadedModel | None = None
        self.refused: Refused | None = None
        self.error: Exception | None = None
        """Why the version behind the alias was refused; None where it was not."""

    def follow(self, version: str, beside: Iterable[LoadedModel | None] = ()) -> None:
        """Seat a version unless it sits already or was refused. `beside` are models that may be the same version.

        Raises `RegistryUnreachable` where it cannot be fetched now.
        """
        current = self.model
        if current is not None and current.version == version and current.source == "registry":
            self.refused = self.error = None
            return
        if self.refused is not None and self.refused.version == version:
            return
        try:
            files = self.registry.version(version)
            same = next((one for one in beside if _is(one, files)), None)
            model = self._load(files) if same is None else replace(same, role=self.place.role)
            self._ready(model)
        except REFUSALS as error:
            self._refuse(version, error)
            return
        self.refused = self.error = None
        self.model = model
        if self.place.role != "challenger":
            self.registry.remember(files, self.place.alias)

    def sit_from_cache(self) -> None:
        """Seat the version that was last served; raises `NoModel`, or why it is refused."""
        model = self._load(self.registry.last_served(self.place.alias))
        self._ready(model)
        self.model = model

    def leave(self) -> None:
        """Nobody is to sit here."""
        self.model = self.refused = self.error = None

    def _load(self, files: ModelFiles) -> LoadedModel:
        return load(
            files,
            role=self.place.role,
            feature_service=self.place.feature_service,
            columns=self.place.columns,
            review_threshold=self.place.review_threshold,
            now=self._now(),
        )

    def _ready(self, model: LoadedModel) -> None:
        try:
            self._prepare(model)
        except Exception as error:  # whatever it is, the model could not serve
            raise WarmUpFailed(f"Model '{model.name}' version {model.version}: cannot be prepared: {error}") from error

    def _refuse(self, version: str, error: Exception) -> None:
        reason = getattr(error, "reason", "contract")
        self.error = error
        self.refused = Refused(name=self.registry.name, version=version, reason=reason, message=str(error))
        metrics.model_refusals.labels(reason=reason).inc()
        stays = "none serves" if self.model is None else f"version {self.model.version} stays"
        role = self.place.role
        logger.error("Version %s of '%s' is refused as %s, %s: %s", version, self.registry.name, role, stays, error)


def _is(model: LoadedModel | None, files: ModelFiles) -> bool:
    return model is not None and (model.name, model.version, model.source) == (files.name, files.version, "registry")
