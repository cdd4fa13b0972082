"""The model over the request alone: what decides when the stored features are away.

It is fitted on the same payments, by the same protocol, with thresholds set in the same way as the champion's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from feature_repo.vector import FALLBACK_SERVICE, columns
from training.dataset import TrainingSet

ALGORITHM = "xgboost"
"""The candidate it is: seven columns leave little to choose between, and its scores are explained exactly."""


def request_columns(store: Any) -> tuple[str, ...]:
    """The columns of the fallback's feature service, as the registry has it."""
    return columns(store.get_feature_service(FALLBACK_SERVICE))


def request_only(data: TrainingSet, wanted: Sequence[str]) -> TrainingSet:
    """The same rows with these columns alone; raises KeyError where the data lack one."""
    missing = [name for name in wanted if name not in data.columns]
    if missing:
        raise KeyError(
            f"Feature service '{FALLBACK_SERVICE}' has {', '.join(missing)}, which the champion's service lacks; "
            "a request-time feature must be in both."
        )
    places = [data.columns.index(name) for name in wanted]
    return TrainingSet(data.rows, data.vectors[:, places].copy(), tuple(wanted))
