"""What becomes of the version that a round of training has made: by the gates, and never past them in silence."""

from __future__ import annotations

from feature_repo.settings import Settings
from training.promote import Conditions, Outcome, first_champion_or_challenge
from training.train import Round
from training.verdicts import Verdict
from training.versions import utc_now
from training.window import of_test_days

NOBODY_ELSE = "The platform is made from nothing: without this version payments would be scored by the request alone."


def introduce(current: Settings, made: Round, features: Settings | None = None, *, needed: bool = False) -> Outcome:
    """Judge the version on the round's own test days; the first becomes champion if it passes, else the challenger.

    With `needed` a first version becomes champion whatever blocks it, on record as overridden with the reason; what the
    service itself would refuse cannot be overridden. `features` as in `train.run`. Raises as `promote.promote` does.
    """
    seen = of_test_days(made.test, made.protocol, utc_now())
    reason = NOBODY_ELSE if needed else ""
    conditions = Conditions(window=seen, features=features, override=needed, reason=reason)
    return first_champion_or_challenge(current, made.version, conditions)


def told(outcome: Outcome) -> str:
    """What came of it, in a line: the action, and the gates that held it back with what each lacks."""
    verdict: Verdict = outcome.verdict
    action = "waits for its promotion" if outcome.event is None else outcome.event.action
    if verdict.passed:
        return f"{action}: {len(verdict.gates)} of {len(verdict.gates)} gates passed"
    held = "; ".join(f"{gate.name}: {gate.evidence}" for gate in verdict.held_by)
    return f"{action}, {verdict} ({held})"
