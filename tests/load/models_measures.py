"""The candidates fitted on the training days of a split and judged on its test days; means over several splits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tests.load.models_sets import Comparison
from training.dataset import TrainingSet
from training.evaluate import metrics_of
from training.models import CANDIDATES
from training.request_model import ALGORITHM, request_only
from training.split import Protocol

REQUEST_ONLY = f"{ALGORITHM}, request only"
"""What the payment itself says, without a stored feature: the peer where nobody has published one."""

Metrics = dict[str, float]
Note = Callable[[str], None]


Parameters = Mapping[str, Mapping[str, Any]]
"""For a candidate what takes the place of its settled parameters."""


def judged(name: str, data: TrainingSet, protocol: Protocol, tuned: Parameters | None = None) -> Metrics:
    """One candidate as it comes or as tuned, fitted on the training days, in the metrics of the test days."""
    train, test = data.where(protocol.train(data.rows)), data.where(protocol.test(data.rows))
    model = CANDIDATES[name](data.columns, **(tuned or {}).get(name, {})).fit(train.vectors, train.rows["is_fraud"])
    return metrics_of(test.rows, np.asarray(model.predict_proba(test.vectors)[:, 1], np.float64))


def compared(
    what: Comparison, protocol: Protocol, names: Iterable[str], note: Note, tuned: Parameters | None = None
) -> dict[str, Metrics]:
    """Every named candidate on one split, and the one over the request alone."""
    inside = (what.data.rows["timestamp"] >= protocol.train_start) & (what.data.rows["timestamp"] < protocol.test_end)
    data = what.data.where(inside)
    found: dict[str, Metrics] = {}
    for name in names:
        found[name] = judged(name, data, protocol, tuned)
        note(f"{what.dataset} from {protocol.train_start:%m-%d}, {name}: {_said(found[name])}")
    found[REQUEST_ONLY] = judged(ALGORITHM, request_only(data, what.request_columns), protocol)
    return found


def spread(runs: Sequence[Mapping[str, Metrics]]) -> dict[str, dict[str, list[float]]]:
    """[mean, standard deviation] over the runs, for each model and metric; the deviation is that of the runs given."""
    return {
        model: {metric: _pair([run[model][metric] for run in runs]) for metric in metrics}
        for model, metrics in runs[0].items()
    }


def _pair(values: Sequence[float]) -> list[float]:
    return [float(np.mean(values)), float(np.std(values))]


def means(spreads: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Metrics]:
    """The means alone."""
    return {model: {metric: pair[0] for metric, pair in metrics.items()} for model, metrics in spreads.items()}


def _said(metrics: Metrics) -> str:
    return f"AUC {metrics['auc_roc']:.3f}, AP {metrics['average_precision']:.3f}"
