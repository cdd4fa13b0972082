"""How long a graph takes to score, one payment and many, on one thread as the service runs it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from feature_repo.contract import ONNX_INPUT, ONNX_OUTPUT

ROUNDS = 100
MANY = 1_000
"""Rows of a large batch, the most that the service takes at once."""


@dataclass(frozen=True)
class Speed:
    """Medians: microseconds for one row alone, and for each of many rows together."""

    one_row_us: float
    row_of_many_us: float


def inference(graph: bytes, vectors: npt.NDArray[np.float32], many: int = MANY, rounds: int = ROUNDS) -> Speed:
    """Measure a graph on rows of `vectors` (float32, rows × columns): one `rounds` times, `many` a tenth as often."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    rows = np.resize(vectors, (max(many, rounds), vectors.shape[1]))
    alone = [rows[place : place + 1] for place in range(rounds)]
    together = [rows[:many]] * max(rounds // 10, 1)
    return Speed(one_row_us=_median(session, alone), row_of_many_us=_median(session, together) / many)


def _median(session: ort.InferenceSession, batches: list[npt.NDArray[np.float32]]) -> float:
    session.run([ONNX_OUTPUT], {ONNX_INPUT: batches[0]})  # the first run makes room for what comes
    spent = []
    for batch in batches:
        began = time.perf_counter_ns()
        session.run([ONNX_OUTPUT], {ONNX_INPUT: batch})
        spent.append(time.perf_counter_ns() - began)
    return float(np.median(spent)) / 1_000
