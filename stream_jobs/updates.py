"""Fresh features told to whoever listens: one message for each entity whose state has changed, on `feature-updates`.

Off unless `FRAUD_FEATURE_UPDATES=true`. A message leaves once the state is readable online and before its records are
acknowledged, so that after a crash some come twice and none is missing. Nothing of the platform depends on them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson

from feature_repo.settings import Settings
from feature_repo.window_batch import Stored, plain_of
from feature_repo.window_state import finish, from_us, header, to_list
from feature_repo.windows import WindowSpec
from stream_jobs.transports.configured import transport


class FeatureUpdates:
    """Sends the finished features of entities, as of just after the last event of each."""

    def __init__(self, current: Settings) -> None:
        self._publisher = transport(current, current.consumer_group, current.feature_updates_stream).publisher()

    def publish(self, view: str, spec: WindowSpec, entities: Sequence[str], states: Sequence[Stored]) -> None:
        """Return when the log has a message for each entity; the features are those of the view, null as null."""
        plain = [plain_of(state) for state in states]
        heads = [header(spec, state) for state in plain]
        at = np.array([(head.stamp if head.last_event is None else head.last_event) + 1 for head in heads], np.int64)
        found = finish(spec, plain, at)
        columns = [to_list(found[name]) for name in spec.names]
        bodies = [
            orjson.dumps(
                {
                    "view": view,
                    spec.join_key: entity,
                    "as_of": from_us(instant).isoformat(),
                    "features": dict(zip(spec.names, values, strict=True)),
                }
            )
            for entity, instant, *values in zip(entities, at.tolist(), *columns, strict=True)
        ]
        self._publisher.publish(bodies, [None] * len(bodies), [entity.encode() for entity in entities])
