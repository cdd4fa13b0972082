"""A round of training, from history through Feast to a registered champion that the service accepts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import yaml
from feast.mlflow_integration.client import FeastMlflowClient

from bentos.model import LoadedModel
from bentos.registry import Registry
from bentos.seats import Seats
from feature_repo.contract import METADATA_KEY, ContractMismatch, ModelContract
from feature_repo.parity_sample import ROWS as ROWS_OF_SAMPLE
from feature_repo.settings import Settings
from feature_repo.store import apply, feature_store
from feature_repo.vector import FALLBACK_SERVICE, FEATURE_SERVICE, columns
from training import backfill, batch, train
from training.costs import Terms, by_threshold
from training.dataset import TrainingSet, training_set
from training.datasets import synthetic
from training.evidence import EVIDENCE_FILE, REFERENCE_FILE
from training.first import introduce
from training.lineage import git_revision
from training.models import CANDIDATES
from training.promote import Conditions, promote, rollback
from training.request_model import request_only
from training.split import Protocol, default_protocol
from training.train import Round, choose
from training.versions import Versions

ROWS, DAYS = 20_000, 75
PLOTS = {"roc.png", "precision_recall.png", "calibration.png", "confusion.png", "costs.png"}
TERMS = Terms.of(Settings())
SAY_NOTHING = {"logistic_regression", "hist_gradient_boosting"}
"""Candidates that don't say which columns they lean on."""


class World:
    """A small history in a folder of its own, its training set, and what MLflow holds of the rounds over it."""

    def __init__(self, home: Path, mlflow_url: str) -> None:
        self.settings = Settings(home=home, mlflow_url=mlflow_url, model_name="round-under-test")
        data = synthetic.load(ROWS, seed=11, days=DAYS)
        rows = data.transactions
        self.protocol: Protocol = default_protocol(data.name, rows["timestamp"])
        self.store = apply(self.settings)
        first, last = self.protocol.earlier().train_start, self.protocol.test_end
        backfill.load(rows, self.settings, "history")
        batch.publish(self.settings, batch.midnights(first, last), data.profiles, "history")
        self.data: TrainingSet = training_set(self.store, self.settings, first, last)
        self.columns = columns(self.store.get_feature_service(FEATURE_SERVICE))
        self.request_columns = columns(self.store.get_feature_service(FALLBACK_SERVICE))

    def seats(self, ordered: Sequence[str] | None = None) -> Seats:
        """The models as the service would seat them now, over these columns."""
        wanted = (self.columns if ordered is None else ordered, self.request_columns)
        seats = Seats(self.settings, *wanted, prepare=lambda model: None, now=lambda: datetime.now(UTC))
        seats.take()
        return seats

    def champion(self) -> LoadedModel:
        found = self.seats().champion.model
        assert found is not None
        return found

    def train(self) -> Round:
        """A round, and its version the champion, as on a platform made from nothing."""
        made = train.run(self.settings, "synthetic", self.protocol, self.data, lambda _: None)
        introduce(self.settings, made, needed=True)
        return made

    def mlflow(self, endpoint: str, **asked: Any) -> Any:
        """What the tracking server answers over REST: no client of ours or MLflow's in between."""
        url = f"{self.settings.mlflow_url}/api/2.0/mlflow/{endpoint}"
        searching = endpoint.endswith("search")
        answer = httpx.post(url, json=asked) if searching else httpx.get(url, params=asked)
        return answer.raise_for_status().json()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str) -> World:
    return World(tmp_path_factory.mktemp("training"), mlflow_server)


@pytest.fixture(scope="module")
def outcome(world: World) -> Round:
    return world.train()


@pytest.fixture(scope="module")
def runs(world: World, outcome: Round) -> dict[str, Any]:
    """MLflow's runs of the round by name: the run that made the registered version, and those below it."""
    asked = {"name": world.settings.model_name, "version": outcome.version}
    version = world.mlflow("model-versions/get", **asked)["model_version"]
    parent = world.mlflow("runs/get", run_id=version["run_id"])["run"]
    below = f"tags.mlflow.parentRunId = '{version['run_id']}'"
    found = world.mlflow("runs/search", experiment_ids=[parent["info"]["experiment_id"]], filter=below)["runs"]
    return {run["info"]["run_name"]: run for run in (parent, *found)}


def pairs(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {entry["key"]: entry["value"] for entry in entries}


def test_every_candidate_is_a_run_below_the_round_s(outcome: Round, runs: dict[str, Any]):
    assert set(runs) == {"round on synthetic", *CANDIDATES}
    assert {run["info"]["status"] for run in runs.values()} == {"FINISHED"}


def test_the_round_s_run_says_on_what_it_was_trained(world: World, runs: dict[str, Any]):
    given = pairs(runs["round on synthetic"]["data"]["params"])
    assert given["dataset"] == "synthetic"
    assert given["train_start"] == str(world.protocol.train_start)
    assert (given["train_days"], given["delay_days"]) == (str(world.protocol.train_days), "7")


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_candidate_s_run_holds_its_metrics_of_both_folds(name: str, outcome: Round, runs: dict[str, Any]):
    logged = pairs(runs[name]["data"]["metrics"])
    for metric, value in outcome.fitted[name].test.items():
        assert logged[metric] == pytest.approx(value)
    for metric, value in outcome.fitted[name].chosen_on.items():
        assert logged[f"earlier_fold_{metric}"] == pytest.approx(value)
    assert outcome.fitted[name].test["auc_roc"] > 0.6, "better than chance, or the features say nothing"


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_candidate_s_pictures_are_artifacts(name: str, world: World, runs: dict[str, Any]):
    listed = world.mlflow("artifacts/list", run_id=runs[name]["info"]["run_id"], path="plots")["files"]
    found = {Path(file["path"]).name: int(file["file_size"]) for file in listed}
    assert set(found) == (PLOTS if name in SAY_NOTHING else PLOTS | {"importance.png"})
    assert min(found.values()) > 5_000, "an empty picture is smaller"


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_candidate_s_run_holds_the_bounds_of_its_metrics(name: str, outcome: Round, runs: dict[str, Any]):
    logged = pairs(runs[name]["data"]["metrics"])
    for metric, interval in outcome.fitted[name].intervals.items():
        assert interval.value == pytest.approx(outcome.fitted[name].test[metric])
        assert logged[f"interval/{metric}_low"] <= logged[metric] + 1e-9 or metric in ("ece", "brier", "log_loss")
        assert logged[f"interval/{metric}_low"] < logged[f"interval/{metric}_high"]


def test_every_run_says_on_which_rows_by_their_digests(world: World, outcome: Round, runs: dict[str, Any]):
    asked = ("training", "testing", "choosing")
    for run in runs.values():
        seen = {each["dataset"]["name"]: each["dataset"]["digest"] for each in run["inputs"]["dataset_inputs"]}
        assert set(seen) == {f"synthetic {context}" for context in asked}
        assert seen == {
            f"synthetic {d.context}": d.digest for d in train.digests("synthetic", world.data, world.protocol)
        }
    changed = world.data.vectors.copy()
    changed[np.flatnonzero(world.protocol.test(world.data.rows))[0], 0] += 1
    other = train.digests("synthetic", TrainingSet(world.data.rows, changed, world.data.columns), world.protocol)
    before = train.digests("synthetic", world.data, world.protocol)
    assert [a.digest == b.digest for a, b in zip(before, other, strict=True)] == [True, False, True]


def test_the_round_s_run_is_tagged_as_feast_tags_it_and_with_the_code_s_revision(world: World, runs: dict[str, Any]):
    tags = pairs(runs["round on synthetic"]["data"]["tags"])
    assert tags["feast.feature_service"] == FEATURE_SERVICE
    assert tags["feast.feature_count"] == str(len(world.columns))
    assert "card_windows:card_count_1h" in tags["feast.feature_refs"]
    assert tags["git_revision"] == git_revision()
    assert "| **" in tags["mlflow.note.content"], "the candidates side by side, the best in bold"


def test_feast_finds_the_version_s_feature_service(world: World, outcome: Round):
    store = feature_store(world.settings)
    store.config.mlflow_config = {"enabled": True, "tracking_uri": world.settings.mlflow_url}
    assert FeastMlflowClient(store).resolve_features(f"models:/{world.settings.model_name}/champion") == FEATURE_SERVICE


def artifacts(world: World, name: str, version: str) -> Path:
    import mlflow

    mlflow.set_tracking_uri(world.settings.mlflow_url)
    into = world.settings.home / f"fetched-{name}-{version}"
    return Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=str(into)))


def test_a_version_takes_along_all_that_it_was_judged_by(world: World, outcome: Round):
    folder = artifacts(world, world.settings.model_name, outcome.version)
    best = outcome.fitted[outcome.champion]
    said = json.loads((folder / EVIDENCE_FILE).read_text())
    assert said["metrics"]["auc_roc"][0] == pytest.approx(best.test["auc_roc"])
    assert said["metrics"]["auc_roc"][1] < said["metrics"]["auc_roc"][0] < said["metrics"]["auc_roc"][2]
    assert said["cuts"]["review_from"] == best.contract.review_from
    assert said["protocol"]["train_end"] == str(world.protocol.train_end)
    assert said["parity"] == {"rows": len(outcome.test.rows), "flips": 0} | {
        "largest_difference": best.parity.largest_difference
    }
    assert set(said["calibration"]) == {"method", "on", "before", "after"}
    assert said["segments"]["channel=online"]["rows"] == (outcome.test.rows["channel"] == "online").sum()
    reference = pd.read_parquet(folder / REFERENCE_FILE)
    assert list(reference.columns) == [*world.columns, "score", "is_fraud"]
    assert len(reference) == outcome.train_rows
    assert reference["is_fraud"].sum() == world.data.rows["is_fraud"][world.protocol.train(world.data.rows)].sum()
    given = best.model.predict_proba(reference[list(world.columns)].to_numpy(np.float32))[:, 1]
    np.testing.assert_allclose(reference["score"], given, atol=1e-4)


def test_a_version_takes_its_card_along(world: World, outcome: Round):
    folder = artifacts(world, world.settings.model_name, outcome.version)
    best = outcome.fitted[outcome.champion]
    markdown, page = ((folder / name).read_text() for name in ("card.md", "card.html"))
    for text in (
        "Intended use",
        "Limits",
        "Lineage",
        "channel=online",
        f"{best.test['auc_roc']:.3f}",
        outcome.champion,
    ):
        assert text in markdown
        assert text in page
    assert page.count("data:image/png;base64") >= len(PLOTS)


def test_thresholds_are_set_on_the_earlier_fold_and_the_risk_follows_the_costs(world: World, outcome: Round):
    for fitted in (*outcome.fitted.values(), outcome.fallback):
        assert 0 < fitted.contract.medium_from <= fitted.contract.review_from <= fitted.contract.decline_from <= 1
    name = "logistic_regression"
    free = Terms(replace(TERMS.matrix, recovered=1.0, chargeback_fee=0.0))
    other = train.fit(name, world.data, world.protocol, free)
    assert other.cuts == (1.0, 1.0), "where a fraud costs nothing, stopping one saves nothing"
    assert other.test["cost_saved"] == 0
    table = by_threshold(outcome.test.rows, other.test_scores, other.cuts, free.matrix, 0)
    assert table.loc["review_from", "stopped_per_day"] == 0


def test_calibration_keeps_the_order_of_the_scores(outcome: Round):
    for fitted in outcome.fitted.values():
        order = np.argsort(fitted.uncalibrated, kind="stable")
        assert (np.diff(fitted.test_scores[order]) >= -1e-9).all()


def test_a_version_may_wait_for_its_promotion(world: World, outcome: Round):
    before = world.champion().version
    waiting = world.settings.model_copy(update={"request_model_name": "waiting-request"})
    again = train.run(
        waiting, "synthetic", world.protocol, world.data, lambda _: None,
        names=["logistic_regression"], tuned={"logistic_regression": {"C": 0.5}},
    )  # fmt: skip
    assert int(again.version) > int(outcome.version)
    assert world.champion().version == before
    assert again.fitted["logistic_regression"].bare[-1].C == 0.5
    with pytest.raises(train.UnknownCandidate, match="'nobody' does not exist; there are logistic_regression"):
        train.run(waiting, "synthetic", world.protocol, world.data, lambda _: None, names=["nobody"])


def test_the_registered_champion_promises_the_code_s_columns(world: World, outcome: Round):
    alias = {"name": world.settings.model_name, "alias": "champion"}
    version = world.mlflow("registered-models/alias", **alias)["model_version"]
    assert version["version"] == outcome.version
    files = Registry(world.settings.mlflow_url, world.settings.model_name, world.settings.home).fetch("champion")
    document = yaml.safe_load((files.folder / "MLmodel").read_text())
    promised = ModelContract.model_validate(document["metadata"][METADATA_KEY])
    assert promised.columns == world.columns == outcome.test.columns
    assert promised.feature_service == FEATURE_SERVICE
    assert promised.algorithm == outcome.champion
    assert promised == outcome.fitted[outcome.champion].contract
    assert promised.trained_until == world.protocol.train_end.isoformat()
    (shape,) = json.loads(document["signature"]["inputs"])
    assert shape["tensor-spec"]["shape"] == [-1, len(world.columns)]


def test_the_service_accepts_the_champion_and_gives_the_trained_model_s_scores(world: World, outcome: Round):
    loaded = world.champion()
    assert loaded.version == outcome.version
    trained = outcome.fitted[outcome.champion]
    np.testing.assert_allclose(loaded.score(outcome.test.vectors), trained.test_scores, atol=1e-4)
    own = trained.model.predict_proba(outcome.test.vectors)[:, 1]
    np.testing.assert_allclose(own, trained.test_scores, atol=1e-12)  # a forest's threads add up in any order
    for score in (0.0, trained.contract.review_from, trained.contract.decline_from, 1.0):
        assert loaded.contract.decide(score) == trained.contract.decide(score)


def test_the_service_refuses_the_champion_for_other_columns(world: World, outcome: Round):
    with pytest.raises(ContractMismatch, match="their order differs"):
        world.seats(world.columns[::-1])


def test_the_fallback_sees_the_request_alone_and_the_service_accepts_it(world: World, outcome: Round):
    loaded = world.seats().fallback.model
    assert loaded is not None
    assert (loaded.name, loaded.version) == ("round-under-test-request", outcome.fallback_version)
    assert loaded.contract == outcome.fallback.contract
    assert (loaded.contract.feature_service, loaded.contract.columns) == (FALLBACK_SERVICE, world.request_columns)
    alone = request_only(outcome.test, world.request_columns)
    np.testing.assert_allclose(loaded.score(alone.vectors), outcome.fallback.test_scores, atol=1e-4)
    assert outcome.fallback.test["auc_roc"] > 0.55, "better than chance, or an answer without features says nothing"


def test_a_version_takes_scores_of_every_height_along(outcome: Round):
    for fitted in (outcome.fitted[outcome.champion], outcome.fallback):
        scores = fitted.test_scores
        sample = fitted.sample.probabilities
        assert len(sample) == ROWS_OF_SAMPLE + 1
        assert sample.max() == pytest.approx(scores.max(), abs=1e-4)
        assert sample[:-1].min() == pytest.approx(scores.min(), abs=1e-4)
        assert np.isnan(fitted.sample.vectors[-1]).all(), "a payment of which nothing is known"


def test_a_request_feature_that_the_champion_lacks_is_named(world: World):
    with pytest.raises(KeyError, match="has shoe_size, which the champion's service lacks"):
        request_only(world.data, ["amount", "shoe_size"])


def test_no_candidate_sees_the_test_days_or_a_label_of_the_delay(world: World, outcome: Round):
    """Turning every label after the training days round changes no model and no threshold."""
    rows = world.data.rows
    after = rows["timestamp"] >= world.protocol.train_end
    turned = rows.assign(is_fraud=rows["is_fraud"].where(~after, 1 - rows["is_fraud"]).astype("int8"))
    name = "logistic_regression"
    other = train.fit(name, TrainingSet(turned, world.data.vectors, world.data.columns), world.protocol, TERMS)
    assert other.contract == outcome.fitted[name].contract
    asked = world.data.vectors[:500]
    np.testing.assert_array_equal(other.model.predict_proba(asked), outcome.fitted[name].model.predict_proba(asked))
    assert other.chosen_on == outcome.fitted[name].chosen_on
    assert other.test != outcome.fitted[name].test


def test_the_same_seed_gives_the_same_round_which_challenges_and_takes_its_fallback_along(world: World, outcome: Round):
    again = world.train()
    assert again.champion == outcome.champion
    for name in CANDIDATES:
        # A forest's threads add up in any order, which can part scores that are equal but for their last bit.
        near = 1e-4 if name == "random_forest" else 0
        assert again.fitted[name].test == pytest.approx(outcome.fitted[name].test, abs=near)
        assert again.fitted[name].chosen_on == pytest.approx(outcome.fitted[name].chosen_on, abs=near)
        first, second = outcome.fitted[name].contract, again.fitted[name].contract
        assert second.review_from == pytest.approx(first.review_from)
        assert second.decline_from == pytest.approx(first.decline_from)
    assert int(again.version) > int(outcome.version)
    assert world.champion().version == outcome.version, "who serves stays until somebody promotes the other"
    versions, spare = Versions(world.settings), Versions(world.settings, world.settings.fallback_model_name)
    assert versions.aliases() == {"champion": outcome.version, "challenger": again.version}
    assert versions.last_verdict(again.version) is not None
    assert spare.aliases() == {"champion": outcome.fallback_version}
    event = promote(world.settings, again.version, Conditions(override=True, reason="a test of seats")).event
    assert event is not None
    assert event.left == outcome.version
    assert spare.aliases() == {"champion": again.fallback_version}
    rollback(world.settings)
    assert spare.aliases() == {"champion": outcome.fallback_version}


def measured(auc: float, average: float, cards: float) -> dict[str, float]:
    return {"auc_roc": auc, "average_precision": average, "card_precision_100": cards, "precision_at_90_recall": 0.0}


def test_the_best_mean_rank_is_chosen_and_not_the_best_in_one_metric():
    """Ranks: a 1, 3, 3; b 2, 2, 1; c 3, 1, 2. b has the best mean (5/3)."""
    candidates = {"a": measured(0.99, 0.1, 0.1), "b": measured(0.8, 0.5, 0.3), "c": measured(0.7, 0.6, 0.2)}
    assert choose(candidates) == "b"


def test_of_equal_mean_ranks_the_higher_average_precision_is_chosen():
    """Ranks: a 1, 2, 1.5; b 2, 1, 1.5: equal."""
    candidates = {"a": measured(0.9, 0.5, 0.3), "b": measured(0.8, 0.6, 0.3)}
    assert choose(candidates) == "b"
    assert choose(dict(reversed(candidates.items()))) == "b"


def test_the_training_set_is_in_time_order_and_each_payment_is_there_once(world: World):
    rows = world.data.rows
    assert rows["timestamp"].is_monotonic_increasing
    assert rows["transaction_id"].is_unique
    assert len(rows) == len(world.data.vectors)
    begin, end = world.protocol.earlier().train_start, world.protocol.test_end
    assert begin <= rows["timestamp"].min()
    assert rows["timestamp"].max() < end
    assert world.data.columns == world.columns


def test_a_period_without_history_is_refused(world: World):
    begin = datetime(2001, 1, 1, tzinfo=UTC)
    with pytest.raises(LookupError, match=r"No labelled transaction lies in \[2001-01-01, 2001-01-02\)"):
        training_set(world.store, world.settings, begin, begin + timedelta(days=1))
