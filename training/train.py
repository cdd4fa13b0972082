"""One round of training: every candidate on the same rows, the best registered, its fallback beside it.

The candidates are compared, calibrated, and the thresholds set, on an earlier fold; the test days are looked at once,
for the report. `python -m training.train --dataset handbook --train-start 2018-07-25 --out reports/train.json`
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from feature_repo.settings import Settings
from feature_repo.store import feature_store
from feature_repo.vector import FALLBACK_SERVICE
from training import comparison, evidence, model_card, plots, registry
from training.costs import Terms
from training.dataset import TrainingSet
from training.evidence import Judged
from training.fitting import Fitted, fit
from training.lineage import DataSetDigest, feature_lineage, git_revision
from training.measured import Segment, by_segment
from training.models import CANDIDATES
from training.request_model import ALGORITHM, request_columns, request_only
from training.split import Protocol
from training.versions import Versions

CHOSEN_BY = ("auc_roc", "average_precision", "card_precision_100")
"""The champion has the best mean rank over these, on the earlier fold: one metric alone is too noisy to choose by."""

Parameters = Mapping[str, Mapping[str, Any]]
"""For a candidate the parameters that take the place of its settled ones."""


class UnknownCandidate(ValueError):
    """A name that no candidate has."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Candidate '{name}' does not exist; there are {', '.join(CANDIDATES)}.")


@dataclass(frozen=True)
class Round:
    """The outcome of a round: every candidate, the best, its registered version, and likewise the fallback."""

    protocol: Protocol
    fitted: dict[str, Fitted]
    champion: str
    version: str
    test: TrainingSet
    train_rows: int
    fallback: Fitted
    fallback_version: str
    segments: dict[str, Segment]
    seconds: dict[str, float]


def run(
    current: Settings,
    dataset: str,
    protocol: Protocol,
    data: TrainingSet,
    progress: Callable[[str], None] = print,
    *,
    names: Sequence[str] = (),
    tuned: Parameters | None = None,
    features: Settings | None = None,
) -> Round:
    """Fit every candidate, log each as a run, register the best by the earlier fold, and the fallback.

    The best's version has no alias: `training.promote` gives it one, or not, by what the gates find; the fallback that
    was trained with it follows it into service, and only the very first is there at once. `names` are the candidates to
    fit (default: all), `tuned` their parameters. `features` are the settings of the Feast store that the data come
    from, where it is not the platform's own.
    """
    terms, chosen_from = Terms.of(current), tuple(names) or tuple(CANDIDATES)
    for name in (*chosen_from, *(tuned or {})):
        if name not in CANDIDATES:
            raise UnknownCandidate(name)
    store = feature_store(features or current)
    fitted: dict[str, Fitted] = {}
    for name in chosen_from:
        progress(f"fitting {name}")
        fitted[name] = fit(name, data, protocol, terms, parameters=(tuned or {}).get(name))
    progress("fitting the model over the request alone")
    alone = request_only(data, request_columns(store))
    fallback = fit(ALGORITHM, alone, protocol, terms, FALLBACK_SERVICE)
    explained = {name: found for name, found in fitted.items() if CANDIDATES[name].explained}
    champion = choose({name: candidate.chosen_on for name, candidate in (explained or fitted).items()})
    train, test = data.where(protocol.train(data.rows)), data.where(protocol.test(data.rows))
    best = fitted[champion]
    segments = by_segment(test.rows, best.test_scores, best.cuts, terms.matrix)
    progress("logging to MLflow")
    began, seen, revision = time.perf_counter(), digests(dataset, data, protocol), git_revision()
    with registry.training_run(current, dataset, protocol_parameters(protocol), seen) as log:
        feature_lineage(store, current, data)
        for name, candidate in fitted.items():
            pictures = plots.pictures(candidate, test.rows, terms)
            log.candidate(
                name,
                parameters=model_card.parameters_of(candidate),
                metrics=_logged(candidate),
                pictures=pictures,
                exported=registry.Exported(candidate.graph, candidate.contract, candidate.sample),
                tables={"thresholds.json": candidate.by_threshold},
            )
            if name == champion:
                drawn = pictures
        log.metrics(best.test | {f"request_only_{k}": v for k, v in fallback.test.items()})
        log.note(comparison.note(fitted, champion))
        of_fallback = Judged(fallback, protocol, terms, seen, {}, test.rows, revision)
        alone_train = alone.where(protocol.train(alone.rows))
        spare = current.fallback_model_name
        first = None if registry.CHAMPION in Versions(current, spare).aliases() else registry.CHAMPION
        fallback_version = _register(log, spare, of_fallback, alone_train, first)
        of_best = Judged(best, protocol, terms, seen, segments, test.rows, revision)
        version = _register(log, current.model_name, of_best, train, None, drawn)
        log.pair(current.model_name, version, fallback_version)
    seconds = {name: candidate.seconds for name, candidate in fitted.items()}
    seconds |= {"request only": fallback.seconds, "MLflow": time.perf_counter() - began}
    return Round(
        protocol, fitted, champion, version, test, len(train.rows), fallback, fallback_version, segments, seconds
    )


def _register(
    log: registry.TrainingLog,
    name: str,
    judged: Judged,
    train: TrainingSet,
    alias: str | None,
    pictures: Mapping[str, bytes] | None = None,
) -> str:
    best, card = judged.fitted, model_card.card(judged, name, pictures)
    files = {
        evidence.EVIDENCE_FILE: evidence.document(judged),
        evidence.REFERENCE_FILE: evidence.reference(train, best.graph),
        model_card.MARKDOWN_FILE: card.markdown().encode(),
        model_card.HTML_FILE: card.html().encode(),
    }
    if pictures:
        log.files(dict(pictures), "plots")
        log.files({file: files[file] for file in (model_card.MARKDOWN_FILE, model_card.HTML_FILE)})
    return log.register(name, best.graph, best.contract, best.sample, alias, files, card.summary)


def _logged(fitted: Fitted) -> dict[str, float]:
    """A candidate's figures as metrics of its run."""
    bounds = {
        f"interval/{name}_{end}": getattr(each, end)
        for name, each in fitted.intervals.items()
        for end in ("low", "high")
    }
    return (
        fitted.test
        | {name: value for name, value in bounds.items() if value == value}
        | {f"earlier_fold_{name}": value for name, value in fitted.chosen_on.items()}
        | {"fit_seconds": fitted.fit_seconds, "onnx_largest_difference": fitted.parity.largest_difference}
        | {f"speed/{name}": value for name, value in asdict(fitted.speed).items()}
    )


def digests(dataset: str, data: TrainingSet, protocol: Protocol) -> tuple[DataSetDigest, ...]:
    """The three data sets of a round: what candidates are chosen, trained and tested on."""
    fold = protocol.earlier()
    choosing = fold.train(data.rows) | fold.test(data.rows)
    parts = {
        "training": (protocol.train(data.rows), protocol.train_start, protocol.train_end),
        "testing": (protocol.test(data.rows), protocol.test_start, protocol.test_end),
        "choosing": (choosing, fold.train_start, fold.test_end),
    }
    return tuple(
        DataSetDigest.of(dataset, name, data.where(mask), begin, end) for name, (mask, begin, end) in parts.items()
    )


def choose(metrics: dict[str, dict[str, float]]) -> str:
    """The name with the best mean rank over `CHOSEN_BY`; of equals the one with the higher average precision."""
    frame = pd.DataFrame(metrics).T
    ranks = frame[list(CHOSEN_BY)].rank(ascending=False).mean(axis=1)
    return str(min(frame.index, key=lambda name: (ranks[name], -frame.loc[name, "average_precision"])))


def protocol_parameters(protocol: Protocol) -> dict[str, str]:
    """The protocol as flat parameters."""
    return {name: str(value) for name, value in asdict(protocol).items()}


if __name__ == "__main__":
    from training.command import main

    main()
