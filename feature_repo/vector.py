"""The model's input vector: which feature stands where, and the one place where float64 becomes float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.context import number

FEATURE_SERVICE = "fraud_v2"
"""The feature service whose features, in its order, are the model's columns."""

FALLBACK_SERVICE = "fraud_request_v1"
"""Request-time features alone: what remains when the online store doesn't answer."""


def columns(service: Any) -> tuple[str, ...]:
    """The ordered columns of a Feast feature service."""
    return tuple(f.name for projection in service.feature_view_projections for f in projection.features)


def to_vector(features: Mapping[str, Any], ordered: Sequence[str]) -> npt.NDArray[np.float32]:
    """Rows × columns in float32, null as NaN; raises KeyError naming what is missing."""
    missing = [name for name in ordered if name not in features]
    if missing:
        raise KeyError(f"Features {', '.join(missing)} are not among those retrieved; the model needs them.")
    found = [features[name] for name in ordered]
    given = [column if isinstance(column, np.ndarray) else number(column) for column in found]
    return np.ascontiguousarray(np.array(given, np.float32).T)
