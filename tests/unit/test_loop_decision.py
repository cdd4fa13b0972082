"""What the loop decides, as a table of situations: pure, no server."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from feature_repo.settings import Settings
from monitoring.job_results import JobResult
from training import triggers
from training.loop import asked
from training.loop_decision import DRIFT, LastRound, Seen, Terms, decide
from training.triggers import METRICS
from training.versions import Action, Event

NOW = datetime(2024, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TERMS = Terms.of(Settings())
PROMOTES = replace(TERMS, promotes=True)
PROMISED = {"average_precision": 0.5, "precision": 0.6, "recall": 0.4}


def quality(champion: str = "2", labelled: float = 1.0, at: datetime = NOW, **own: Any) -> JobResult:
    """A full week as promised, but for what is given."""
    told = PROMISED | {"frauds": 200, "precision_interval": [0.5, 0.7], "recall_interval": [0.3, 0.5]}
    told |= {"from": "2024-05-17T00:00:00Z", "to": "2024-05-24T00:00:00Z"} | own
    details = {
        "champion": champion,
        "promised": PROMISED,
        "all": {"full": {"labelled_share": labelled}},
        "versions": {f"m {champion}": {"full": told}},
    }
    return JobResult("quality", at, [], details)


def drifted(share: float = 0.5, champion: str = "2", at: datetime = NOW) -> JobResult:
    found = {"share": share, "drifted": ["amount"], "columns": [{}, {}]}
    return JobResult("drift", at, [], {"champion": champion, "against": {"training": found}})


def happened(action: Action, version: str, left: str | None, days_ago: float) -> Event:
    return Event(at=NOW - days_ago * DAY, action=action, version=version, left=left, by="", reason="", verdict="")


FIRST, SECOND = happened("promoted", "1", None, 90), happened("promoted", "2", "1", 20)
WORSE = quality(recall=0.2, recall_interval=[0.1, 0.3])
SOUND = Seen(NOW, "m", "2", None, (FIRST, SECOND), quality(), drifted(0.1))


def done(**given: Any) -> LastRound:
    of = {"at": NOW - 2 * DAY, "round": "r", "version": "3", "passed": True}
    return LastRound(**(of | {"train_start": NOW - 60 * DAY, "train_days": 28, "test_days": 14} | given))


BACK = happened("rolled back", "1", "2", 3)
BACK_TO_1 = replace(SOUND, champion="1", events=(FIRST, SECOND, BACK))

SITUATIONS: dict[str, tuple[Seen, Terms, str, str | None]] = {
    "all is as promised": (SOUND, TERMS, "nothing", None),
    "nobody serves": (replace(SOUND, champion=None), TERMS, "nothing", None),
    "worse than promised, soon after its promotion": (replace(SOUND, quality=WORSE), TERMS, "rollback", "1"),
    "an overridden promotion counts as one": (
        replace(SOUND, quality=WORSE, events=(FIRST, happened("overridden", "2", "1", 20))),
        TERMS,
        "rollback",
        "1",
    ),
    "worse, and the world drifted too": (replace(SOUND, quality=WORSE, drift=drifted()), TERMS, "rollback", "1"),
    "worse, long after its promotion": (
        replace(SOUND, quality=WORSE, events=(FIRST, happened("promoted", "2", "1", 29))),
        TERMS,
        "retrain",
        None,
    ),
    "worse, and nobody was before": (
        replace(SOUND, quality=WORSE, events=(happened("promoted", "2", None, 20),)),
        TERMS,
        "retrain",
        None,
    ),
    "worse, and nothing is on record": (replace(SOUND, quality=WORSE, events=()), TERMS, "retrain", None),
    "worse, and champion by a rollback": (
        replace(BACK_TO_1, quality=quality("1", recall=0.2, recall_interval=[0.1, 0.3])),
        TERMS,
        "retrain",
        None,
    ),
    "worse, and its rollback was undone by somebody": (
        replace(SOUND, quality=WORSE, events=(FIRST, SECOND, BACK, happened("rollback undone", "2", "1", 2))),
        TERMS,
        "retrain",
        None,
    ),
    "worse, and promoted again after its rollback": (
        replace(SOUND, quality=WORSE, events=(FIRST, SECOND, BACK, happened("promoted", "2", "1", 2))),
        TERMS,
        "retrain",
        None,
    ),
    "worse, and who was before was taken back": (
        Seen(
            NOW,
            "m",
            "3",
            None,
            (FIRST, SECOND, happened("rolled back", "1", "2", 9), happened("promoted", "3", "2", 5)),
            quality("3", recall=0.2, recall_interval=[0.1, 0.3]),
            drifted(0.1, "3"),
        ),
        TERMS,
        "retrain",
        None,
    ),
    "blocked since does not hide the promotion": (
        replace(SOUND, quality=WORSE, events=(FIRST, SECOND, happened("blocked", "3", "2", 1))),
        TERMS,
        "rollback",
        "1",
    ),
    "worse by less than the margin": (
        replace(SOUND, quality=quality(recall=0.36, recall_interval=[0.33, 0.39])),
        TERMS,
        "nothing",
        None,
    ),
    "worse, but not surely": (
        replace(SOUND, quality=quality(recall=0.2, recall_interval=[0.0, 0.41])),
        TERMS,
        "nothing",
        None,
    ),
    "no interval, and frauds enough": (
        replace(SOUND, quality=quality(average_precision=0.4, frauds=100)),
        TERMS,
        "rollback",
        "1",
    ),
    "no interval, and too few frauds": (
        replace(SOUND, quality=quality(average_precision=0.4, frauds=99)),
        TERMS,
        "nothing",
        None,
    ),
    "an undefined figure is no breach": (
        replace(SOUND, quality=quality(recall=None, recall_interval=None, average_precision=None)),
        TERMS,
        "nothing",
        None,
    ),
    "labels that are due have not come": (
        replace(SOUND, quality=quality(labelled=0.98, recall=0.2, recall_interval=[0.1, 0.3])),
        TERMS,
        "nothing",
        None,
    ),
    "the quality of another champion": (
        replace(SOUND, quality=quality("1", recall=0.2, recall_interval=[0.1, 0.3])),
        TERMS,
        "nothing",
        None,
    ),
    "an old result": (
        replace(SOUND, quality=quality(at=NOW - 7 * DAY / 24, recall=0.2, recall_interval=[0.1, 0.3])),
        TERMS,
        "nothing",
        None,
    ),
    "a result from later": (
        replace(SOUND, quality=quality(at=NOW + DAY, recall=0.2, recall_interval=[0.1, 0.3])),
        TERMS,
        "nothing",
        None,
    ),
    "no job has run": (replace(SOUND, quality=None, drift=None), TERMS, "nothing", None),
    "drift alone": (replace(SOUND, drift=drifted()), TERMS, "retrain", None),
    "drift at the limit": (replace(SOUND, drift=drifted(0.3)), TERMS, "retrain", None),
    "drift below the limit": (replace(SOUND, drift=drifted(0.29)), TERMS, "nothing", None),
    "drift from another champion's rows": (replace(SOUND, drift=drifted(champion="1")), TERMS, "nothing", None),
    "drift that could not be compared": (
        replace(SOUND, drift=JobResult("drift", NOW, [], {"champion": "2", "against": {"training": "too few rows"}})),
        TERMS,
        "nothing",
        None,
    ),
    "drift, but a round was done lately": (
        replace(SOUND, drift=drifted(), challenger="3", last_round=done()),
        TERMS,
        "nothing",
        None,
    ),
    "drift, and the last round is long ago": (
        replace(SOUND, drift=drifted(), challenger="3", last_round=done(at=NOW - 7 * DAY)),
        TERMS,
        "retrain",
        None,
    ),
    "a round's challenger, and the loop promotes": (
        replace(SOUND, challenger="3", last_round=done()),
        PROMOTES,
        "promote",
        "3",
    ),
    "a round's challenger, and the loop does not promote": (
        replace(SOUND, challenger="3", last_round=done()),
        TERMS,
        "nothing",
        None,
    ),
    "a round that the gates blocked": (
        replace(SOUND, challenger="3", last_round=done(passed=False)),
        PROMOTES,
        "nothing",
        None,
    ),
    "a round that is settled": (
        replace(SOUND, challenger="3", last_round=done(settled=True)),
        PROMOTES,
        "nothing",
        None,
    ),
    "another challenger than the round's": (
        replace(SOUND, challenger="4", last_round=done()),
        PROMOTES,
        "nothing",
        None,
    ),
    "a round of long ago": (
        replace(SOUND, challenger="3", last_round=done(at=NOW - 8 * DAY)),
        PROMOTES,
        "nothing",
        None,
    ),
    "a challenger that was taken back": (
        replace(BACK_TO_1, quality=quality("1"), challenger="2", last_round=done(version="2")),
        PROMOTES,
        "nothing",
        None,
    ),
    "a rollback goes before a promotion": (
        replace(SOUND, quality=WORSE, challenger="3", last_round=done()),
        PROMOTES,
        "rollback",
        "1",
    ),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_what_follows_of_a_situation(name: str):
    seen, terms, action, version = SITUATIONS[name]
    decision = decide(seen, terms)
    assert (decision.action, decision.version) == (action, version), decision.because
    assert decision.because


def test_the_reason_has_the_figures_and_a_result_that_says_nothing_is_named():
    decision = decide(replace(SOUND, quality=WORSE, drift=drifted(champion="1")), TERMS)
    expected = "recall is 0.200 [0.100, 0.300], promised 0.400, on 200 frauds of 2024-05-17 to 2024-05-24"
    assert decision.because == expected
    assert decision.unread == ("drift: its result is of version 1, the champion is version 2",)
    kept = decide(replace(SOUND, quality=WORSE, events=(FIRST, happened("promoted", "2", "1", 29))), TERMS)
    assert kept.because == f"{expected} (version 2 was promoted 2024-05-03, more than 28 days ago)"


def test_after_a_rollback_nothing_more_happens_until_the_jobs_have_seen_it():
    before = decide(replace(SOUND, quality=WORSE, drift=drifted()), TERMS)
    assert before.action == "rollback"
    after = replace(BACK_TO_1, quality=WORSE, drift=drifted())
    assert decide(after, TERMS).action == "nothing"


def test_the_triggers_of_a_round_fire_on_the_evidence_that_decided(tmp_path: Any):
    current = Settings(home=tmp_path)
    seen = replace(SOUND, quality=quality(recall=0.2, recall_interval=[0.1, 0.3], precision=0.5), drift=drifted())
    decision = decide(replace(seen, events=(FIRST,), champion="2"), TERMS)
    assert [one.metric for one in decision.breaches] == ["recall", DRIFT]
    given = asked(current, decision.breaches)
    assert given.metric in METRICS
    assert triggers.drift(given.drift, given.drift_limit).fired
    value = triggers.measured(given.performance, given.metric, "2")
    assert triggers.performance(value, PROMISED[given.metric], given.metric, given.margin).fired
    assert (given.train_days, given.delay_days, given.test_days, given.force) == (28, 7, 14, False)
