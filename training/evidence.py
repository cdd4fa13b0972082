"""The evidence a registered version takes along: payments of every degree of suspicion, with its graph's own scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feature_repo.parity_sample import ParitySample, chosen_rows
from training.dataset import TrainingSet
from training.export import onnx_scores


def sample(graph: bytes, data: TrainingSet, scores: npt.NDArray[np.float64]) -> ParitySample:
    """Rows chosen by their scores, and one of which nothing is known."""
    unknown = np.full((1, len(data.columns)), np.nan, np.float32)
    vectors = np.concatenate([data.vectors[chosen_rows(scores)], unknown])
    return ParitySample(data.columns, vectors, onnx_scores(graph, vectors))
