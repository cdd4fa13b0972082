"""Decisions on record, over HTTP: what was decided and why, as it was at the time.

`GET /decisions/{transaction_id}` and `GET /decisions/{transaction_id}/explanation`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from msgspec.structs import asdict

from bentos.answers import Contribution, DecisionRecord, Explanation, Reason
from bentos.decisions import DecisionLog
from bentos.errors import Refused, quote
from bentos.explainer import Explainer
from bentos.explaining import explainer_of
from bentos.reasons import Reasons
from bentos.trees import NotExplainable
from feature_repo.settings import Settings
from monitoring.decision_log import LoggedDecision

EXPLANATION = "/explanation"


class Records:
    """`columns` are those of each feature service that this code serves."""

    def __init__(self, log: DecisionLog, columns: Mapping[str, Sequence[str]], settings: Settings) -> None:
        self._log, self._columns, self._cache = log, columns, settings.home / "models"

    async def get(self, rest: str) -> bytes:
        """The JSON for `{transaction_id}` or `{transaction_id}/explanation`; raises `Refused`, `Unavailable`."""
        name = rest.removesuffix(EXPLANATION)
        explained, found = name != rest, await self._log.find(name)
        if found is None and explained:  # or the identifier itself ends so
            explained, name, found = False, rest, await self._log.find(rest)
        if found is None:
            message = (
                f"No decision on {quote(name)!r} is on record here. Decisions are found until they can't be repeated."
            )
            raise Refused(404, "unknown_decision", message)
        if not explained:
            return self._record(found)
        return await asyncio.get_running_loop().run_in_executor(None, self._explanation, found)

    def _record(self, found: LoggedDecision) -> bytes:
        record = DecisionRecord(
            entry=found.entry,
            request=orjson.loads(found.request),
            answer=orjson.loads(found.answer),
            feature_service=found.feature_service,
            features=dict(zip(self._columns_of(found), _values(found.vector), strict=True)),
        )
        return record.model_dump_json().encode()

    def _explanation(self, found: LoggedDecision) -> bytes:
        columns = self._columns_of(found)
        try:
            explainer, reasons = _explainer(self._cache / found.model_name / found.model_version, tuple(columns))
        except (NotExplainable, OSError) as error:
            message = f"Model '{found.model_name}' version {found.model_version} cannot be explained: {error}"
            raise Refused(404, "no_explanation", message) from None
        vectors = np.ascontiguousarray(found.vector[None, :])
        given = explainer.contributions(vectors)
        order = np.argsort(-np.abs(given[0]), kind="stable")
        values, weights = _values(found.vector), given[0].tolist()
        adverse = found.decision != "approve" or found.control_group
        told = Explanation(
            transaction_id=found.transaction_id,
            model_name=found.model_name,
            model_version=found.model_version,
            output=explainer.output,
            base=explainer.base,
            contributions=tuple(
                Contribution(feature=columns[place], value=values[place], contribution=weights[place])
                for place in order.tolist()
            ),
            reasons=tuple(Reason(**asdict(one)) for one in reasons.give(given, vectors, [adverse])[0]),
        )
        return told.model_dump_json().encode()

    def _columns_of(self, found: LoggedDecision) -> Sequence[str]:
        columns = self._columns.get(found.feature_service, ())
        if len(columns) == len(found.vector):
            return columns
        return [f"column_{place}" for place in range(len(found.vector))]


@lru_cache(maxsize=16)
def _explainer(folder: Path, columns: tuple[str, ...]) -> tuple[Explainer, Reasons]:
    return explainer_of(folder, columns)


def _values(vector: Any) -> list[float | None]:
    return [None if value != value else value for value in vector.tolist()]
