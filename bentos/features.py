"""The online read: the features of payments as the model's vectors, in one request to the online store.

A row depends on its own payment and the stores' contents alone, whatever else is read with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from redis.exceptions import RedisError

from bentos.errors import Unavailable
from bentos.payments import Asked
from feature_repo.context import AT
from feature_repo.schema import MERCHANT_CATEGORIES, category_or_other
from feature_repo.settings import Settings
from feature_repo.store import repo_config
from feature_repo.transformations import state_field
from feature_repo.vector import FEATURE_SERVICE, columns, to_vector
from feature_repo.window_state import incomplete
from feature_repo.windows import WindowedFeature, WindowSpec, is_windowed, spec_of_view

Floats32 = npt.NDArray[np.float32]

_LATEST = WindowedFeature("seconds_since_last", "", 0)
AGES = tuple(_LATEST.name(entity) for entity in ("card", "merchant"))
"""The features that tell how long before the payment the state's latest event was."""


class UnknownFeatureService(LookupError):
    """The Feast registry does not hold the feature service that the code serves."""


@dataclass(frozen=True)
class FeatureRows:
    """Vectors of shape (payments, columns), null as NaN, and each payment's feature age in seconds or None.

    `incomplete` says of which payments a window lacks events that its state had no room for; `stale` that the stream
    has not brought the stored features up to date for too long.
    """

    vectors: Floats32
    ages: tuple[float | None, ...]
    incomplete: tuple[bool, ...]
    stale: bool = False

    def row(self, place: int) -> FeatureRows:
        """One payment's."""
        one = slice(place, place + 1)
        return FeatureRows(self.vectors[one], self.ages[one], self.incomplete[one], self.stale)


class FeatureReader(Protocol):
    """Whatever reads vectors; `columns` is their order, `feature_service` where it comes from."""

    @property
    def feature_service(self) -> str: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    def read(self, payments: Sequence[Asked]) -> FeatureRows:
        """The features of each payment at its own instant. Raises `Unavailable` where the store doesn't answer."""
        ...


class FeastReader:
    """Reads through `FeatureStore.get_online_features`. Safe to call from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._store = online_store(settings)
        self._service = feature_service(self._store, settings)
        self._windowed = windowed_views(self._store, self._service)
        self.feature_service: str = self._service.name
        self.columns = columns(self._service)

    def read(self, payments: Sequence[Asked]) -> FeatureRows:
        """See `FeatureReader`."""
        rows = [entity_row(payment) for payment in payments]
        keys = [{spec.join_key: row[spec.join_key] for spec in self._windowed.values()} for row in rows]
        wanted = [f"{view}:{state_field(view)}" for view in self._windowed]
        try:
            features = self._store.get_online_features(features=self._service, entity_rows=rows).to_dict()
            states = self._store.get_online_features(features=wanted, entity_rows=keys).to_dict() if wanted else {}
        except RedisError as error:
            raise Unavailable("feature_store", error) from error
        known = [features[name] for name in AGES if name in features]
        at = [row[AT] for row in rows]
        return FeatureRows(
            to_vector(features, self.columns),
            tuple(youngest(ages) for ages in zip(*known, strict=True)),
            any_incomplete([(spec, states[state_field(view)]) for view, spec in self._windowed.items()], at),
        )


def entity_row(asked: Asked) -> dict[str, Any]:
    """What Feast asks for: the join keys and the fields of the request source."""
    payment = asked.payment
    return {
        "card_id": payment.card_id,
        "merchant_id": payment.merchant_id,
        AT: asked.at,
        "amount": payment.amount,
        "merchant_category": category_or_other(payment.merchant_category),
        "country": payment.country,
        "channel": payment.channel,
    }


def is_unknown_category(asked: Asked) -> bool:
    """Whether the category is outside the vocabulary, so that it was mapped to `other`."""
    category = asked.payment.merchant_category
    return category is not None and category not in MERCHANT_CATEGORIES


def youngest(ages: Sequence[float | None]) -> float | None:
    """The smallest age that is known."""
    return min((age for age in ages if age is not None), default=None)


def any_incomplete(states: Sequence[tuple[WindowSpec, Sequence[bytes | None]]], at: Sequence[int]) -> tuple[bool, ...]:
    """Of which rows a state, of any view, lacks events inside a window that ends at the row's instant (µs)."""
    found = [False] * len(at)
    for spec, column in states:
        for row, state in enumerate(column):
            if state is not None and incomplete(spec, state, at[row]):
                found[row] = True
    return tuple(found)


def windowed_views(store: Any, service: Any) -> dict[str, WindowSpec]:
    """The windowed views that a feature service's on-demand views finish, by name."""
    found = {}
    for projection in service.feature_view_projections:
        for source in store.get_on_demand_feature_view(projection.name).source_feature_view_projections:
            view = stored_view(store, source)
            if is_windowed(view):
                found[view.name] = spec_of_view(view)
    return found


def stored_view(store: Any, name: str) -> Any:
    """A view that the online store holds."""
    from feast.errors import FeatureViewNotFoundException

    try:
        return store.get_feature_view(name)
    except FeatureViewNotFoundException:
        return store.get_stream_feature_view(name)


def online_store(settings: Settings) -> Any:
    """A Feast store that waits for Redis no longer than a payment may."""
    from feast import FeatureStore
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    # Feast calls its stream views experimental each time it reads one, and puts filters of its own in place on import.
    warnings.filterwarnings("ignore", message="Stream feature views are experimental", category=RuntimeWarning)
    config = repo_config(settings)
    online = config.online_store
    limit = settings.feature_timeout
    online.connection_string += f",socket_timeout={limit},socket_connect_timeout={limit}"
    store = FeatureStore(config=config)
    # redis-py retries three times and waits up to seconds in between; a payment is better told at once. Feast's
    # connection string has no word for it, and its provider is the only way to the client.
    store._get_provider().online_store._get_client(online).set_retry(Retry(NoBackoff(), 0))
    return store


def feature_service(store: Any, settings: Settings, name: str = FEATURE_SERVICE) -> Any:
    """The feature service that the code serves. Raises `UnknownFeatureService` where it was never applied."""
    from feast.errors import FeatureServiceNotFoundException

    try:
        return store.get_feature_service(name)
    except FeatureServiceNotFoundException:
        raise UnknownFeatureService(
            f"Feature service '{name}' is not in the Feast registry of profile '{settings.profile}'. "
            "Run `feast apply` in feature_repo/ first."
        ) from None
