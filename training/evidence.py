"""The evidence a registered version takes along: payments with its graph's own scores, and all it was judged by.

`parity.json`, `evidence.json`, `reference.parquet`, `card.md` and `card.html` lie beside the graph. Whoever promotes a
version reads them; nothing in them has to be computed again to be believed.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contract import EVIDENCE_FILE as EVIDENCE_FILE
from feature_repo.contract import LABEL, SCORE
from feature_repo.contract import REFERENCE_FILE as REFERENCE_FILE
from feature_repo.parity_sample import ParitySample, chosen_rows
from training.calibrate import Method
from training.dataset import TrainingSet
from training.evaluate import truth_of
from training.export import onnx_scores
from training.intervals import Interval
from training.lineage import DataSetDigest
from training.measured import Segment
from training.split import Protocol

if TYPE_CHECKING:
    from training.costs import Terms
    from training.fitting import Fitted

CALIBRATION: Method = "sigmoid"
"""Two numbers, which a few hundred frauds settle; it keeps the order of the scores, and with it the ranking."""

REFERENCE_ROWS = 20_000
"""Training vectors that a version takes along, for the drift of what it is asked about."""


def sample(graph: bytes, data: TrainingSet, scores: npt.NDArray[np.float64]) -> ParitySample:
    """Rows chosen by their scores, and one of which nothing is known."""
    unknown = np.full((1, len(data.columns)), np.nan, np.float32)
    vectors = np.concatenate([data.vectors[chosen_rows(scores)], unknown])
    return ParitySample(data.columns, vectors, onnx_scores(graph, vectors))


def reference(train: TrainingSet, graph: bytes, rows: int = REFERENCE_ROWS) -> bytes:
    """At most `rows` training vectors, evenly spread over the training days, with scores and labels, as Parquet."""
    places = np.unique(np.linspace(0, len(train.rows) - 1, min(rows, len(train.rows))).round().astype(int))
    vectors = train.vectors[places]
    columns = {name: vectors[:, place] for place, name in enumerate(train.columns)}
    columns |= {SCORE: onnx_scores(graph, vectors), LABEL: train.rows["is_fraud"].to_numpy()[places]}
    table = pa.table(columns)
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def as_json(values: dict[str, Interval]) -> dict[str, list[float | None]]:
    """Metrics as [value, low, high]; what is unknown is null."""
    return {name: [_number(x) for x in (each.value, each.low, each.high)] for name, each in values.items()}


def segments_as_json(found: dict[str, Segment]) -> dict[str, dict[str, Any]]:
    """Segments with their counts, and their metrics as [value, low, high]."""
    return {name: {"rows": each.rows, "frauds": each.frauds, **as_json(each.figures)} for name, each in found.items()}


@dataclass(frozen=True)
class Judged:
    """A fitted model with all it was judged by; `rows` are those of the test days."""

    fitted: Fitted
    protocol: Protocol
    terms: Terms
    data: tuple[DataSetDigest, ...]
    segments: dict[str, Segment]
    rows: pd.DataFrame
    revision: str

    @property
    def calibration(self) -> dict[str, dict[str, float]]:
        """How true the probabilities are on the test days, before and after calibration; lower is better."""
        fraud = self.rows["is_fraud"].to_numpy()
        scores = {"before": self.fitted.uncalibrated, "after": self.fitted.test_scores}
        return {when: truth_of(fraud, given) for when, given in scores.items()}


def document(judged: Judged) -> bytes:
    """Everything a version was judged by, as JSON: protocol, data, metrics, segments, cuts, calibration, parity."""
    fitted, terms = judged.fitted, judged.terms
    said = {
        "algorithm": fitted.name,
        "parameters": {name: str(value) for name, value in fitted.parameters.items()},
        "git_revision": judged.revision,
        "feature_service": fitted.contract.feature_service,
        "columns": list(fitted.contract.columns),
        "protocol": protocol_as_json(judged.protocol),
        "data": [each.as_json() for each in judged.data],
        "cuts": cuts_as_json(fitted),
        "costs": asdict(terms.matrix) | {"review_capacity": terms.review_capacity},
        "metrics": as_json(fitted.intervals),
        "earlier_fold": fitted.chosen_on,
        "segments": segments_as_json(judged.segments),
        "calibration": {"method": CALIBRATION, "on": "earlier_fold", **judged.calibration},
        "parity": asdict(fitted.parity),
        "speed": asdict(fitted.speed),
        "fit_seconds": fitted.fit_seconds,
    }
    return (json.dumps(said, indent=1) + "\n").encode()


def cuts_as_json(fitted: Fitted) -> dict[str, float | None]:
    """The thresholds of a model."""
    contract = fitted.contract
    return {name: getattr(contract, name) for name in ("medium_from", "review_from", "decline_from")}


def protocol_as_json(protocol: Protocol) -> dict[str, Any]:
    """The periods of a protocol, those of the earlier fold too; an end is the first instant after it."""
    fold = protocol.earlier()
    instants = {name: str(getattr(protocol, name)) for name in ("train_start", "train_end", "test_start", "test_end")}
    earlier = {name: str(getattr(fold, name)) for name in ("train_start", "train_end", "test_start", "test_end")}
    days = {name: getattr(protocol, name) for name in ("train_days", "delay_days", "test_days")}
    return instants | days | {"earlier_fold": earlier}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
