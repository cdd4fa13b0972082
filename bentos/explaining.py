"""Reasons for the models in service, and on demand the whole explanation of a decision on record.

A model that cannot be explained serves all the same; its answers give no reasons, and the log says why.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from bentos.explainer import Explainer
from bentos.features import Floats32
from bentos.model import LoadedModel
from bentos.reasons import Reason, Reasons
from bentos.trees import NotExplainable
from feature_repo import parity_sample
from feature_repo.contract import ONNX_FILE

logger = logging.getLogger("bentoml.service.tollgate.models")

Mode = Literal["off", "flagged", "all"]


class Explainers:
    """The explainers of the versions that serve or served; `mode` says which answers carry reasons."""

    def __init__(self, mode: Mode) -> None:
        self._mode = mode
        self._made: dict[tuple[str, str], tuple[Explainer, Reasons] | None] = {}

    def prepare(self, model: LoadedModel) -> None:
        """Make a model's explainer, before the model serves."""
        key = model.name, model.version
        if key in self._made or model.folder is None:
            return
        try:
            explainer, reasons = explainer_of(model.folder, model.contract.columns)
            if explainer.quick:
                sample = parity_sample.loads((model.folder / parity_sample.PARITY_FILE).read_bytes())
                explainer.check(sample.vectors, sample.probabilities)
            self._made[key] = explainer, reasons
        except NotExplainable as error:
            logger.warning("Model '%s' version %s gives no reasons: %s", *key, error)
            self._made[key] = None

    def __call__(self, model: LoadedModel, vectors: Floats32, decisions: Sequence[str]) -> list[list[Reason]]:
        """The reasons of rows that one model has scored, none where it has no quick explainer."""
        found = self._made.get((model.name, model.version))
        nothing: list[list[Reason]] = [[] for _ in decisions]
        if self._mode == "off" or found is None or not found[0].quick:
            return nothing
        explainer, reasons = found
        adverse = [decision != "approve" for decision in decisions]
        if self._mode == "all":
            return reasons.give(explainer.contributions(vectors), vectors, adverse)
        places = np.flatnonzero(adverse)
        if len(places):
            some = vectors[places]
            given = reasons.give(explainer.contributions(some), some, [True] * len(places))
            for place, one in zip(places.tolist(), given, strict=True):
                nothing[place] = one
        return nothing


def explainer_of(folder: Path, columns: Sequence[str]) -> tuple[Explainer, Reasons]:
    """The explainer of a version's files; raises `NotExplainable`."""
    return Explainer.of((folder / ONNX_FILE).read_bytes(), columns), Reasons.of(columns)
