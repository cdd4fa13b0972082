"""Who answers which payment, what a challenger may do before it is out, and what its shadow costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from bentos.challenger_guard import TIMED_ENOUGH, TIMED_EVERY, Allowance, ChallengerGuard
from bentos.lineup import Lineup, score
from bentos.model import InvalidScore, LoadedModel
from bentos.payments import Asked
from bentos.shadow import AT_ONCE, Shadow
from feature_repo.contract import ModelContract
from feature_repo.quick_json import Payment
from feature_repo.settings import Settings
from monitoring.metrics import metrics
from monitoring.shadow_log import ShadowScore, decode

IDS = [f"t{n}" for n in range(4_000)]
ALLOWANCE = Allowance(window=60.0, failures=2, failure_share=0.1, slow_factor=3.0, slow_from=0.001)


@dataclass
class Gives:
    """A session that gives one probability for every row; `error` is raised in its place."""

    probability: float = 0.2
    error: Exception | None = None
    runs: list[int] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
        (vectors,) = inputs.values()
        self.runs.append(len(vectors))
        self.meanwhile()
        if self.error:
            raise self.error
        return [np.tile(np.float32([1 - self.probability, self.probability]), (len(vectors), 1))]


def model(version: str, session: Any, review_from: float = 0.5) -> LoadedModel:
    contract = ModelContract(
        feature_service="fraud_v2",
        columns=("amount", "other"),
        review_from=review_from,
        decline_from=0.9,
        algorithm="by hand",
        trained_until="2026-01-01T00:00:00Z",
    )
    role: Any = "champion" if version == "1" else "challenger"
    return LoadedModel("fraud", version, role, contract, session, "registry", datetime(2026, 1, 1, tzinfo=UTC))


CHAMPION, CHALLENGER = model("1", Gives(0.25)), model("2", Gives(0.75))


def vectors(rows: int) -> Any:
    return np.zeros((rows, 2), np.float32)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Guarded:
    """A guard over a clock, and what it took out."""

    def __init__(self, allowance: Allowance = ALLOWANCE) -> None:
        self.clock, self.timer = Clock(), Clock()
        self.out: list[tuple[str, str, str]] = []
        self.guard = ChallengerGuard(allowance, self._take_out, self.clock, self.timer)

    def _take_out(self, challenger: LoadedModel, reason: str, detail: str) -> None:
        self.out.append((challenger.version, reason, detail))


def challenged(weight: float, ids: Sequence[str] = IDS) -> set[str]:
    return {one for one in ids if Lineup(CHAMPION, CHALLENGER, weight=weight).role_of(one) == "challenger"}


# --- Who answers -----------------------------------------------------------------------------------------------------


def test_the_weight_is_the_share_and_a_growing_one_gives_no_payment_back():
    before: set[str] = set()
    for weight in (0.0, 0.01, 0.1, 0.5, 0.99, 1.0):
        now = challenged(weight)
        assert before <= now
        assert len(now) / len(IDS) == pytest.approx(weight, abs=0.02)
        before = now
    assert before == set(IDS), "the whole at 1"


def test_a_payment_has_the_same_role_in_every_process():
    assert sorted(challenged(0.2, [f"t{n}" for n in range(20)])) == ["t11", "t18"]


def test_without_a_challenger_the_champion_answers_whatever_the_weight():
    assert {Lineup(CHAMPION, weight=1.0).role_of(one) for one in IDS} == {"champion"}


def test_each_payment_is_scored_by_the_model_whose_turn_it_is():
    lineup = Lineup(CHAMPION, CHALLENGER, weight=0.3)
    scores = score(lineup, IDS, vectors(len(IDS)), Guarded().guard)
    models = scores.models()
    assert {one for one, by in zip(IDS, models, strict=True) if by is CHALLENGER} == challenged(0.3)
    assert scores.probabilities.tolist() == [0.75 if by is CHALLENGER else 0.25 for by in models]


def test_a_batch_without_a_payment_of_the_challengers_is_one_run_of_the_champion():
    session = Gives()
    guarded = Guarded()
    for lineup in (Lineup(model("1", session)), Lineup(model("1", session), CHALLENGER, weight=1e-9)):
        assert score(lineup, IDS[:7], vectors(7), guarded.guard).challenged is None
    assert session.runs == [7, 7]


@pytest.mark.parametrize("session", [Gives(error=RuntimeError("no")), Gives(probability=np.nan), Gives(1.5)])
def test_what_the_challenger_fails_on_the_champion_answers(session: Gives):
    lineup = Lineup(CHAMPION, model("2", session), weight=0.5)
    before = metrics.challenger_failures._value.get()
    scores = score(lineup, IDS[:50], vectors(50), Guarded().guard)
    assert scores.models() == [CHAMPION] * 50
    assert scores.probabilities.tolist() == [0.25] * 50
    assert metrics.challenger_failures._value.get() == before + 1


def test_a_failing_champion_is_nobody_elses_business():
    lineup = Lineup(model("1", Gives(np.nan)), CHALLENGER, weight=0.5)
    with pytest.raises(InvalidScore, match="version 1"):
        score(lineup, IDS[:50], vectors(50), Guarded().guard)


# --- The guard -------------------------------------------------------------------------------------------------------


def failing(guarded: Guarded, runs: int, version: str = "2") -> None:
    for _ in range(runs):
        assert guarded.guard.run(CHAMPION, model(version, Gives(error=ValueError("broken"))), vectors(1)) is None


def test_failures_beyond_number_and_share_take_the_challenger_out():
    guarded = Guarded()
    failing(guarded, 2)
    assert guarded.out == []
    failing(guarded, 1)
    assert guarded.out == [("2", "failures", "3 of its 3 runs failed within 60 s, the last one: broken")]


def test_few_failures_among_many_runs_are_forgiven():
    guarded = Guarded()
    for _ in range(100):
        guarded.guard.run(CHAMPION, CHALLENGER, vectors(1))
    failing(guarded, 10)
    assert guarded.out == []
    failing(guarded, 3)
    assert [reason for _, reason, _ in guarded.out] == ["failures"] * 2, "from the 12th of 112 on"


def test_failures_are_forgotten_after_the_window():
    guarded = Guarded()
    for _ in range(10):
        failing(guarded, 2)
        guarded.clock.now += 61
    assert guarded.out == []


def test_another_version_begins_anew():
    guarded = Guarded()
    failing(guarded, 2)
    failing(guarded, 2, version="3")
    assert guarded.out == []


def timed(guarded: Guarded, own: float, champions: float, runs: int = TIMED_ENOUGH, apart: float = TIMED_EVERY) -> None:
    """Runs in which both models take these times."""

    def takes(seconds: float) -> Callable[[], None]:
        def pass_by() -> None:
            guarded.timer.now += seconds

        return pass_by

    both = model("1", Gives(meanwhile=takes(champions))), model("2", Gives(meanwhile=takes(own)))
    for _ in range(runs):
        assert guarded.guard.run(*both, vectors(3)) is not None
        guarded.clock.now += apart


def test_a_challenger_that_takes_several_times_as_long_is_out():
    guarded = Guarded()
    timed(guarded, 0.0061, 0.002, runs=TIMED_ENOUGH - 1)
    assert guarded.out == [], "not enough to say so"
    timed(guarded, 0.0061, 0.002, runs=1)
    detail = "its median run takes 6.10 ms, the champion's on the same rows 2.00 ms"
    assert guarded.out == [("2", "slow", detail)]


@pytest.mark.parametrize(("own", "champions"), [(0.0059, 0.002), (0.0009, 0.00001)])
def test_a_challenger_within_the_factor_or_below_what_matters_stays(own: float, champions: float):
    guarded = Guarded()
    timed(guarded, own, champions, runs=50)
    assert guarded.out == []


def test_one_slow_run_is_not_a_slow_challenger():
    guarded = Guarded()
    timed(guarded, 5.0, 0.001, runs=4)
    timed(guarded, 0.001, 0.001, runs=20)
    assert guarded.out == []


def test_the_champion_is_timed_now_and_then_only():
    guarded, session = Guarded(), Gives()
    for _ in range(100):
        guarded.guard.run(model("1", session), CHALLENGER, vectors(5))
        guarded.clock.now += TIMED_EVERY / 10
    assert len(session.runs) == pytest.approx(10, abs=1)


# --- The shadow ------------------------------------------------------------------------------------------------------


@dataclass
class Stream:
    """A Redis that keeps what is added; `error` is raised in its place."""

    error: Exception | None = None
    kept: list[ShadowScore] = field(default_factory=list)
    entries: int = 0

    def xadd(self, stream: str, fields: dict[str, Any], maxlen: int, approximate: bool) -> None:
        if self.error:
            raise self.error
        assert (stream, maxlen, approximate) == ("shadow", 5_000, True)
        encoded = {name: value.encode() if isinstance(value, str) else value for name, value in fields.items()}
        self.kept += decode({name.encode(): bytes(value) for name, value in encoded.items()})
        self.entries += 1

    def close(self) -> None: ...


@dataclass
class Answered:
    asked: Asked
    vector: Any
    model: LoadedModel
    probability: float


def answered(rows: int, by: LoadedModel = CHAMPION, first: int = 0) -> list[Answered]:
    asked = [Asked(Payment(f"t{first + n}", "2026-01-01T00:00:00Z", "c", "m", 1.0), 0) for n in range(rows)]
    return [Answered(one, np.zeros(2, np.float32), by, 0.25) for one in asked]


def shadow(stream: Stream, **changed: Any) -> Shadow:
    return Shadow(Settings(**changed), Guarded().guard, stream)


SHADOWED = Lineup(CHAMPION, CHALLENGER, shadow=True)


def counted() -> tuple[float, float, float, float]:
    """Scores, disagreements, dropped, unrecorded."""
    made = (metrics.shadow_scores, metrics.shadow_disagreements, metrics.shadow_dropped, metrics.shadow_unrecorded)
    return tuple(one._value.get() for one in made)  # type: ignore[return-value]


def grown(before: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(now - then for now, then in zip(counted(), before, strict=True))


def test_what_the_champion_answered_is_scored_and_recorded_by_the_challenger():
    stream, before = Stream(), counted()
    shadowing = shadow(stream)
    shadowing.take(SHADOWED, answered(3))
    shadowing.take(SHADOWED, answered(2, first=3))
    assert stream.kept == [], "not in the gate's thread"
    shadowing.score_waiting()
    assert stream.kept == [ShadowScore(f"t{n}", "2", 0.75) for n in range(5)]
    assert (stream.entries, grown(before)) == (1, (5, 5, 0, 0))


def test_what_leads_to_the_same_decision_is_no_disagreement():
    before = counted()
    shadowing = shadow(Stream())
    shadowing.take(Lineup(CHAMPION, model("2", Gives(0.75), review_from=0.8), shadow=True), answered(4))
    shadowing.score_waiting()
    assert grown(before) == (4, 0, 0, 0)


@pytest.mark.parametrize("by", [CHALLENGER, model("1", Gives())])
def test_what_another_model_answered_is_not_scored(by: LoadedModel):
    """The challenger's own answers, the fallback's, and those of a champion that has since been replaced."""
    stream, before = Stream(), counted()
    shadowing = shadow(stream)
    shadowing.take(SHADOWED, [*answered(2, by), *answered(1, first=7)])
    shadowing.score_waiting()
    assert stream.kept == [ShadowScore("t7", "2", 0.75)]
    assert grown(before) == (1, 1, 0, 0)


@pytest.mark.parametrize("lineup", [Lineup(CHAMPION), Lineup(CHAMPION, CHALLENGER, weight=0.5)])
def test_without_shadow_nothing_waits(lineup: Lineup):
    before = counted()
    shadowing = shadow(Stream(), shadow_waiting=1)
    shadowing.take(lineup, answered(5))
    assert grown(before) == (0, 0, 0, 0)


def test_too_many_are_dropped_and_counted_and_room_comes_back():
    stream, before = Stream(), counted()
    shadowing = shadow(stream, shadow_waiting=10)
    for first in (0, 6, 12):
        shadowing.take(SHADOWED, answered(6, first=first))
    assert grown(before) == (0, 0, 12, 0)
    shadowing.score_waiting()
    shadowing.take(SHADOWED, answered(10, first=100))
    shadowing.score_waiting()
    assert grown(before) == (16, 16, 12, 0)


def test_a_run_takes_so_many_and_a_larger_batch_is_not_cut():
    stream = Stream()
    shadowing = shadow(stream)
    for rows in (AT_ONCE - 1, 1, 1, AT_ONCE + 5):
        shadowing.take(SHADOWED, answered(rows))
    shadowing.score_waiting()
    assert stream.entries == 3


def test_a_stream_that_fails_costs_its_records_alone():
    before = counted()
    shadowing = shadow(Stream(ConnectionError("away")))
    shadowing.take(SHADOWED, answered(3))
    shadowing.score_waiting()
    assert grown(before) == (3, 3, 0, 3)


def test_a_challenger_that_fails_in_shadow_is_counted_against_it():
    guarded = Guarded()
    shadowing = Shadow(Settings(), guarded.guard, Stream())
    lineup = Lineup(CHAMPION, model("2", Gives(error=RuntimeError("no"))), shadow=True)
    for _ in range(3):
        shadowing.take(lineup, answered(2))
        shadowing.score_waiting()
    assert [reason for _, reason, _ in guarded.out] == ["failures"]


def test_what_waits_is_scored_before_the_end():
    stream = Stream()
    shadowing = shadow(stream)
    shadowing.start()
    shadowing.take(SHADOWED, answered(3))
    shadowing.close()
    assert len(stream.kept) == 3
