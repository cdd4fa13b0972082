"""One round of training: every candidate on the same rows, the best registered as champion, its fallback beside it.

The candidates are compared, and the thresholds set, on an earlier fold; the test days are looked at once, for the
report. `python -m training.train --train-start 2018-07-25 --train-days 7 --delay-days 7 --test-days 7`
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console

from feature_repo import sources
from feature_repo.contract import ModelContract
from feature_repo.parity_sample import ParitySample
from feature_repo.settings import Settings, settings
from feature_repo.store import feature_store
from feature_repo.vector import FALLBACK_SERVICE, FEATURE_SERVICE
from training import evidence, registry
from training.dataset import TrainingSet, training_set
from training.evaluate import Scores, metrics_of, thresholds
from training.export import Parity, check_parity, to_onnx
from training.models import CANDIDATES
from training.plots import figures, importance
from training.request_model import ALGORITHM, request_columns, request_only
from training.split import Protocol, default_protocol

CHOSEN_BY = ("auc_roc", "average_precision", "card_precision_100")
"""The champion has the best mean rank over these, on the earlier fold: one metric alone is too noisy to choose by."""

REVIEW_SHARE = 0.01
"""Share of payments that people can look at."""

DECLINE_PRECISION = 0.9
"""Share of frauds among the payments from which on a decline is right."""


@dataclass(frozen=True)
class Fitted:
    """A candidate fitted on the training days, with what is known of it."""

    name: str
    model: Any
    graph: bytes
    contract: ModelContract
    chosen_on: dict[str, float]
    test: dict[str, float]
    test_scores: Scores
    parity: Parity
    sample: ParitySample
    seconds: float


@dataclass(frozen=True)
class Round:
    """The outcome of a round: every candidate, the champion, its registered version, and likewise the fallback."""

    protocol: Protocol
    fitted: dict[str, Fitted]
    champion: str
    version: str
    test: TrainingSet
    train_rows: int
    fallback: Fitted
    fallback_version: str


def _scores(model: Any, vectors: npt.NDArray[np.float32]) -> Scores:
    return np.asarray(model.predict_proba(vectors)[:, 1], np.float64)


def fit(name: str, data: TrainingSet, protocol: Protocol, feature_service: str = FEATURE_SERVICE) -> Fitted:
    """Fit one candidate twice: on the earlier fold to judge it and set its thresholds, then on the training days."""
    began = time.perf_counter()
    fold = protocol.earlier()
    earlier, later = data.where(fold.train(data.rows)), data.where(fold.test(data.rows))
    judge = CANDIDATES[name](data.columns).fit(earlier.vectors, earlier.rows["is_fraud"])
    judged = _scores(judge, later.vectors)
    cuts = thresholds(later.rows["is_fraud"].to_numpy(), judged, REVIEW_SHARE, DECLINE_PRECISION)
    train, test = data.where(protocol.train(data.rows)), data.where(protocol.test(data.rows))
    model = CANDIDATES[name](data.columns).fit(train.vectors, train.rows["is_fraud"])
    scores = _scores(model, test.vectors)
    graph = to_onnx(model, len(data.columns), train.vectors)
    return Fitted(
        name=name,
        model=model,
        graph=graph,
        contract=ModelContract(
            feature_service=feature_service,
            columns=data.columns,
            review_from=cuts[0],
            decline_from=cuts[1],
            algorithm=name,
            trained_until=protocol.train_end.isoformat(),
        ),
        chosen_on=metrics_of(later.rows, judged),
        test=metrics_of(test.rows, scores),
        test_scores=scores,
        parity=check_parity(graph, test.vectors, scores, cuts),
        sample=evidence.sample(graph, test, scores),
        seconds=time.perf_counter() - began,
    )


def run(
    current: Settings, dataset: str, protocol: Protocol, data: TrainingSet, progress: Callable[[str], None] = print
) -> Round:
    """Fit every candidate, log each as a run, register the best by the earlier fold as `champion`, and the fallback."""
    fitted: dict[str, Fitted] = {}
    for name in CANDIDATES:
        progress(f"fitting {name}")
        fitted[name] = fit(name, data, protocol)
    progress("fitting the model over the request alone")
    alone = request_only(data, request_columns(feature_store(current)))
    fallback = fit(ALGORITHM, alone, protocol, FALLBACK_SERVICE)
    champion = choose({name: candidate.chosen_on for name, candidate in fitted.items()})
    test = data.where(protocol.test(data.rows))
    train_rows = int(protocol.train(data.rows).sum())
    fraud = test.rows["is_fraud"].to_numpy()
    progress("logging to MLflow")
    with registry.training_run(current, dataset, protocol_parameters(protocol)) as log:
        for name, candidate in fitted.items():
            cuts = (candidate.contract.review_from, candidate.contract.decline_from)
            pictures = figures(name, fraud, candidate.test_scores, cuts)
            bars = importance(data.columns, candidate.model)
            log.candidate(
                name,
                parameters={k: str(v) for k, v in candidate.model.get_params().items() if "__" not in k},
                metrics=candidate.test
                | {f"earlier_fold_{k}": v for k, v in candidate.chosen_on.items()}
                | {"fit_seconds": candidate.seconds, "onnx_largest_difference": candidate.parity.largest_difference},
                pictures=pictures | ({"importance.png": bars} if bars else {}),
            )
        log.metrics({f"request_only_{k}": v for k, v in fallback.test.items()})
        fallback_version = _register(log, current.fallback_model_name, fallback)
        version = _register(log, current.model_name, fitted[champion])
    return Round(protocol, fitted, champion, version, test, train_rows, fallback, fallback_version)


def _register(log: registry.TrainingLog, name: str, best: Fitted) -> str:
    return log.register(name, best.graph, best.contract, best.sample)


def choose(metrics: dict[str, dict[str, float]]) -> str:
    """The name with the best mean rank over `CHOSEN_BY`; of equals the one with the higher average precision."""
    frame = pd.DataFrame(metrics).T
    ranks = frame[list(CHOSEN_BY)].rank(ascending=False).mean(axis=1)
    return str(min(frame.index, key=lambda name: (ranks[name], -frame.loc[name, "average_precision"])))


def protocol_parameters(protocol: Protocol) -> dict[str, str]:
    """The protocol as flat parameters."""
    return {name: str(value) for name, value in asdict(protocol).items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="history", help="a name for the report")
    parser.add_argument("--train-start", type=lambda text: datetime.fromisoformat(text + "T00:00:00+00:00"))
    for name in ("train", "delay", "test"):
        parser.add_argument(f"--{name}-days", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write the metrics here as JSON")
    return parser.parse_args()


def main() -> None:
    """Train on what the offline store holds."""
    arguments, current, console = _arguments(), settings(), Console()
    store = feature_store(current)
    if arguments.train_start:
        days = (arguments.train_days, arguments.delay_days, arguments.test_days)
        protocol = Protocol(arguments.train_start, *days)
    else:
        source = store.get_data_source("transactions")
        stamps = sources.read(source, current.offline_path, ["timestamp"]).to_pandas()["timestamp"]
        protocol = default_protocol(arguments.dataset, pd.Series(stamps))
    data = training_set(store, current, protocol.earlier().train_start, protocol.test_end)
    outcome = run(current, arguments.dataset, protocol, data, lambda text: console.print(f"… {text}"))
    report = {"champion": outcome.champion, "version": outcome.version, "fallback_version": outcome.fallback_version}
    report["models"] = {name: candidate.test for name, candidate in outcome.fitted.items()}  # type: ignore[assignment]
    report["fallback"] = outcome.fallback.test  # type: ignore[assignment]
    console.print_json(json.dumps(report))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
