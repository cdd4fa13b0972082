"""One candidate, fitted twice and judged: what it is chosen by, how it decides, and how it does on the test days.

The labels of a model's last training days are known only when it goes live, so nothing later than its fit is left to
calibrate it on. Its twin is fitted one fold earlier, in the same way; on that fold's test days (this one's training
days) the twin is judged, its probabilities are calibrated and the thresholds set, and both go over to the model. The
test days are looked at once, for the report.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.contract import ModelContract
from feature_repo.parity_sample import ParitySample
from feature_repo.vector import FEATURE_SERVICE
from training import costs, evidence
from training.calibrate import calibrated, taken_over
from training.dataset import TrainingSet
from training.evaluate import Scores, metrics_of
from training.export import Parity, check_parity, to_onnx
from training.intervals import Interval
from training.measured import measure
from training.models import CANDIDATES
from training.speed import Speed, inference
from training.split import Protocol


@dataclass(frozen=True)
class Fitted:
    """A candidate fitted on the training days, with what is known of it.

    `chosen_on` are the metrics of its twin on the earlier fold, `test` its own on the test days, and `intervals` the
    same with the bounds of each. `uncalibrated` are the test days' scores before calibration, `by_threshold` says what
    thresholds catch and cost there.
    """

    name: str
    model: Any
    graph: bytes
    contract: ModelContract
    chosen_on: dict[str, float]
    test: dict[str, float]
    intervals: dict[str, Interval]
    test_scores: Scores
    uncalibrated: Scores
    by_threshold: pd.DataFrame
    parity: Parity
    sample: ParitySample
    speed: Speed
    fit_seconds: float
    seconds: float
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bare(self) -> Any:
        """The fitted estimator before calibration."""
        return self.model.model

    @property
    def cuts(self) -> costs.Cuts:
        """From where on it reviews and declines."""
        return self.contract.review_from, self.contract.decline_from


def scores_of(model: Any, vectors: npt.NDArray[np.float32]) -> Scores:
    """Fraud probabilities, row by row."""
    return np.asarray(model.predict_proba(vectors)[:, 1], np.float64)


def fit(
    name: str,
    data: TrainingSet,
    protocol: Protocol,
    terms: costs.Terms,
    feature_service: str = FEATURE_SERVICE,
    parameters: Mapping[str, Any] | None = None,
) -> Fitted:
    """Fit one candidate on the earlier fold, to judge and calibrate it and set its thresholds, then on its own days.

    `parameters` take the place of the candidate's settled ones. Raises `ParityError` where its graph differs from it.
    """
    began = time.perf_counter()
    own = dict(parameters or {})
    fold = protocol.earlier()
    earlier, later = data.where(fold.train(data.rows)), data.where(fold.test(data.rows))
    twin = CANDIDATES[name](data.columns, **own).fit(earlier.vectors, earlier.rows["is_fraud"])
    true = calibrated(twin, later.vectors, later.rows["is_fraud"].to_numpy(), evidence.CALIBRATION)
    judged = scores_of(true, later.vectors)
    train, test = data.where(protocol.train(data.rows)), data.where(protocol.test(data.rows))
    fitting = time.perf_counter()
    bare = CANDIDATES[name](data.columns, **own).fit(train.vectors, train.rows["is_fraud"])
    fit_seconds = time.perf_counter() - fitting
    model = taken_over(true, bare)
    scores = scores_of(model, test.vectors)
    graph = to_onnx(model, len(data.columns), train.vectors)
    cuts = costs.choose(later.rows, judged, terms.matrix, terms.capacity(later.rows))
    found = measure(test.rows, scores, cuts, terms.matrix)
    return Fitted(
        name=name,
        model=model,
        graph=graph,
        contract=ModelContract(
            feature_service=feature_service,
            columns=data.columns,
            review_from=cuts[0],
            decline_from=cuts[1],
            medium_from=costs.medium_from(later.rows, judged, terms.matrix, cuts[0]),
            algorithm=name,
            trained_until=protocol.train_end.isoformat(),
        ),
        chosen_on=metrics_of(later.rows, judged),
        test={metric: interval.value for metric, interval in found.items()} | metrics_of(test.rows, scores),
        intervals=found,
        test_scores=scores,
        uncalibrated=scores_of(bare, test.vectors),
        by_threshold=costs.by_threshold(test.rows, scores, cuts, terms.matrix, terms.capacity(test.rows)),
        parity=check_parity(graph, test.vectors, scores, cuts),
        sample=evidence.sample(graph, test, scores),
        speed=inference(graph, test.vectors),
        fit_seconds=fit_seconds,
        seconds=time.perf_counter() - began,
        parameters=own,
    )
