"""The workflows run by a real Airflow: the project's own commands on a real platform, to each of their ends."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from feature_repo.settings import Settings
from feature_repo.store import apply
from monitoring import job_results
from tests import tiny_model
from tests.ops.airflow import Airflow
from tests.ops.stage import Stage
from training import backfill, batch
from training.datasets import synthetic
from training.generate import generate
from training.promote import served_columns
from training.registry import CHAMPION
from training.scenarios import CardTesting, CompromisedMerchant, Foreign, OffHours, Scenarios, VelocityBurst
from training.versions import Versions

DAYS = 90
FRAUDS = Scenarios(
    card_testing=CardTesting(share=0.3),
    off_hours=OffHours(share=0.3),
    foreign=Foreign(share=0.25),
    velocity_burst=VelocityBurst(share=0.05),
    compromised_merchant=CompromisedMerchant(share=0.1),
)
"""On many cards, few on each: so short a history has cards enough for the gates."""

STEPS = ["data", "validate", "train", "gate", "promote"]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    return Airflow(tmp_path_factory.mktemp("airflow"))


@pytest.fixture(scope="module")
def jobs(watched: Stage, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The watched platform's settings with its history, and a folder of its own for what jobs find."""
    home = tmp_path_factory.mktemp("jobs")
    (home / "offline").symlink_to(watched.settings.offline_folder)
    own = {"home": home, "registry_url": watched.settings.registry}
    return watched.settings.model_copy(update=own)


@dataclass(frozen=True)
class Weeks:
    """A history to train on, and a champion whom no version of it can be held against."""

    settings: Settings
    champion: str

    def aliases(self) -> dict[str, str]:
        return Versions(self.settings).aliases()


@pytest.fixture(scope="module")
def weeks(mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Weeks:
    current = Settings(
        home=tmp_path_factory.mktemp("weeks"),
        mlflow_url=mlflow_server,
        model_name="by-airflow",
        insult_cost=50.0,  # where so many payments are fraud, few others may be declined
    )
    data = synthetic.adapt(generate(30_000, seed=3, days=DAYS, fraud_share=0.035, scenarios=FRAUDS))
    store = apply(current)
    backfill.load(data.transactions, current, "history")
    begin, end = data.transactions["timestamp"].min().to_pydatetime(), data.transactions["timestamp"].max()
    batch.publish(current, batch.midnights(begin, end.to_pydatetime())[1:], data.profiles, "history")
    files = tiny_model.files(tiny_model.contract(served_columns(store)))
    return Weeks(current, tiny_model.publish(current.mlflow_url, current.model_name, files))


def test_the_hour_s_workflows_do_their_jobs(airflow: Airflow, jobs: Settings):
    assert airflow.run("tollgate_publish", jobs).tasks == {"publish": "success"}
    ran = airflow.run("tollgate_watch", jobs)
    assert (ran.state, ran.tasks) == ("success", dict.fromkeys(("drift", "quality", "skew"), "success")), ran.said
    found = {job: job_results.read(jobs.home, job) for job in ran.tasks}
    assert all(result is not None for result in found.values())
    assert found["skew"].details["audited"] > 0


def test_nothing_is_done_in_a_week_in_which_nothing_is_due(airflow: Airflow, weeks: Weeks):
    ran = airflow.run("tollgate_retrain", weeks.settings)
    assert (ran.state, ran.tasks) == ("success", dict.fromkeys(STEPS, "skipped")), ran.said


def test_a_version_that_the_gate_holds_back_ends_the_run_without_a_failure(airflow: Airflow, weeks: Weeks):
    ran = airflow.run("tollgate_retrain", weeks.settings, due="--force")
    done = dict.fromkeys(STEPS[:3], "success")
    assert (ran.state, ran.tasks) == ("success", done | {"gate": "skipped", "promote": "skipped"}), ran.said
    assert weeks.aliases() == {CHAMPION: weeks.champion}
    verdict = Versions(weeks.settings).last_verdict("2")
    assert verdict is not None
    assert "window" in verdict.blocked_by


def test_a_round_that_goes_wrong_fails_and_promotes_nobody(airflow: Airflow, weeks: Weeks):
    nowhere = weeks.settings.model_copy(update={"model_name": "other", "home": weeks.settings.home / "empty"})
    ran = airflow.run("tollgate_retrain", nowhere)
    assert ran.state == "failed"
    assert ran.tasks["data"] == "failed"
    assert set(ran.tasks.values()) == {"failed", "upstream_failed"}, ran.said


def test_the_loop_looks_and_does_nothing_where_nothing_is_known(airflow: Airflow, weeks: Weeks):
    ran = airflow.run("tollgate_loop", weeks.settings)
    assert (ran.state, ran.tasks) == ("success", {"loop": "success"}), ran.said
    decided = job_results.read(weeks.settings.home, "loop")
    assert decided is not None
    assert (decided.details["decided"], decided.details["champion"]) == ("nothing", weeks.champion)
