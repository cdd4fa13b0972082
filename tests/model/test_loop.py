"""The loop on a history: a drift leads to one round; what it made serves only where gates and a setting say so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from feature_repo.settings import Settings
from monitoring import job_results
from tests.model.test_retrain import current, go, one_candidate  # noqa: F401 - fixtures
from training import gates_data, loop
from training.versions import Event, RegistryFailed, Versions

NOW = datetime.now(UTC)


@pytest.fixture
def drifted(current: Settings) -> Settings:  # noqa: F811 - the fixture
    """A champion of long ago, whose columns have drifted."""
    champion = go(current, "--force", "--train-days", "13")["version"]
    Versions(current).seat(
        Event(
            at=NOW - timedelta(days=60), action="promoted", version=champion, left=None, by="us", reason="", verdict=""
        )
    )
    against = {"training": {"share": 0.5, "drifted": ["amount"], "columns": [{}, {}]}}
    job_results.write(current.home, "drift", [], {"champion": champion, "against": against}, NOW)
    return current.model_copy(update={"loop_train_days": 14, "loop_test_days": 7})


def test_a_drift_leads_to_one_round_and_its_version_waits_or_is_promoted_by_the_gates(
    drifted: Settings, monkeypatch: pytest.MonkeyPatch
):
    versions = Versions(drifted)
    champion = versions.aliases()["champion"]
    found = loop.run(drifted, NOW)
    [deed] = found["did"]
    assert (deed["action"], deed["outcome"]) == ("retrain", "challenger")
    made = deed["version"]
    assert versions.aliases() == {"champion": champion, "challenger": made}, "nobody asked the loop to promote"
    later = loop.run(drifted, NOW + timedelta(hours=1))
    assert (later["decided"], later["because"].split(";")[0]) == ("nothing", f"a round was done {NOW:%F %H:%M}")
    assert later["last_round"] == found["last_round"]
    counted = {one.labels["reason"]: one.value for one in job_results.counts(drifted.home)}
    assert counted == {"force": 1.0, "drift": 1.0}

    promotes = drifted.model_copy(update={"loop_promotes": True})

    def away(*_: object, **__: object) -> None:
        raise RegistryFailed("MLflow is away")

    with monkeypatch.context() as broken:
        broken.setattr(loop, "promote", away)
        assert loop.run(promotes, NOW)["did"][0]["failed"] == "RegistryFailed: MLflow is away"
    assert versions.aliases()["champion"] == champion
    [deed] = loop.run(promotes, NOW)["did"]
    assert (deed["action"], deed["version"], deed["promoted"]) == ("promote", made, True)
    assert versions.aliases() == {"champion": made}
    last = versions.events()[-1]
    assert (last.action, last.version, last.left, last.verdict) == ("promoted", made, champion, "pass")
    assert loop.run(promotes, NOW)["decided"] == "nothing", "the drift was the champion's before it"


def test_what_the_gates_hold_back_is_neither_challenger_nor_promoted(
    drifted: Settings, monkeypatch: pytest.MonkeyPatch
):
    before = Versions(drifted).aliases()
    monkeypatch.setattr(gates_data, "LEAST_FRAUDS", 10_000)
    found = loop.run(drifted.model_copy(update={"loop_promotes": True}), NOW)
    [deed] = found["did"]
    assert (deed["outcome"], "10000 and" in deed["held_back_by"][0]) == ("blocked", True)
    assert Versions(drifted).aliases() == before
    assert loop.run(drifted, NOW + timedelta(hours=1))["decided"] == "nothing", "not again at once"
