"""Closes the loop: what the jobs found leads to a rollback, a round of retraining, a promotion, or nothing.

`python -m training.loop [--at INSTANT] [--dry-run]` leaves what it saw, decided and did in
`FRAUD_HOME/monitoring/loop.json` (`monitoring.job_results`). Exit code 0 when it ran, whatever it decided and whatever
the gates said; 1 where it could not do what it decided, which it tries again at its next run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feature_repo.schema import LABEL_DELAY
from feature_repo.settings import Settings, settings
from feature_repo.sources import MissingTable
from monitoring import job_results
from monitoring.job_command import instant
from training import retrain, triggers, turn
from training.export import ParityError
from training.loop_decision import DRIFT, Breach, Decision, LastRound, Seen, Terms, decide
from training.marks import Busy, Marks, alone
from training.models_registry import NoPromise, Registry
from training.promote import Conditions, Overtaken, Refused, promote, rollback
from training.registry import CHALLENGER, CHAMPION
from training.round_steps import Round
from training.split import Protocol
from training.validate import DataQualityError
from training.versions import RegistryFailed, Versions
from training.window import of_test_days

JOB = "loop"
DELAY_DAYS = LABEL_DELAY.days

MISSING = (RegistryFailed, NoPromise, LookupError, MissingTable, OSError)
FAILURES = (*MISSING, Refused, Overtaken, turn.Busy, triggers.UnreadableReport, ParityError)
"""What may come between a decision and its deed; each says in its words what to do."""

Told = Callable[[str], None]
Did = dict[str, Any]


def look(current: Settings, at: datetime) -> Seen:
    """What is known at `at`; raises `RegistryFailed` and `job_results.InvalidResult`."""
    versions = Versions(current)
    aliases = versions.aliases()
    quality, drift, own = (job_results.read(current.home, job) for job in ("quality", "drift", JOB))
    kept = own.details.get("last_round") if own is not None else None
    return Seen(
        at=at,
        name=versions.name,
        champion=aliases.get(CHAMPION),
        challenger=aliases.get(CHALLENGER),
        events=versions.events() if aliases else (),
        quality=quality,
        drift=drift,
        last_round=None if kept is None else LastRound.model_validate(kept),
    )


def run(current: Settings, at: datetime, *, dry_run: bool = False, told: Told = print) -> dict[str, Any]:
    """Look, decide and act, then once more where a round was done, whose version may be due for promotion.

    Writes and returns the job's details, after each deed anew. With `dry_run` nothing is done or written. Raises
    `marks.Busy` where another loop runs, and what `look` raises; what else goes wrong is in the details (`failed`).
    """
    with alone(current.home / JOB):
        seen = look(current, at)
        decision, did = decide(seen, Terms.of(current)), []
        if dry_run:
            return _details(seen, decision, [])
        first = decision
        while True:
            did.append(act(current, seen, decision, told))
            last = did[-1].pop("last_round", None) or seen.last_round
            seen = replace(seen, last_round=last)
            details = _details(seen, first, did)
            job_results.write(current.home, JOB, [], details, at)
            if decision.action != "retrain" or "failed" in did[-1]:
                return details
            seen = replace(look(current, at), last_round=last)
            decision = decide(seen, Terms.of(current))
            if decision.action != "promote":
                return details


def act(current: Settings, seen: Seen, decision: Decision, told: Told) -> Did:
    """Do what was decided; returns what came of it, `failed` where it could not be done."""
    deed: Did = {"action": decision.action, "because": decision.because}
    told(f"{decision.action}: {decision.because}")
    try:
        if decision.action == "rollback":
            event = rollback(
                current, decision.version, reason=decision.because, cause="live_quality", now=lambda: seen.at
            )
            deed |= {"champion": event.version, "left": event.left}
        elif decision.action == "retrain":
            deed |= again(current, seen, decision.breaches, told)
        elif decision.action == "promote":
            deed |= seat(current, seen, told)
    except Busy as error:  # somebody's own round of retraining: this one is not needed now
        deed["busy"] = str(error)
    except DataQualityError as error:
        deed["unfit"] = str(error)
    except _failures() as error:
        deed["failed"] = f"{type(error).__name__}: {error}"
    for word in ("busy", "unfit", "failed"):
        if word in deed:
            told(f"{word}: {deed[word]}")
    return deed


def again(current: Settings, seen: Seen, breaches: Sequence[Breach], told: Told) -> Did:
    """A round of retraining, on the breaches as its triggers' evidence, or what is left of one that was interrupted."""
    outcome = retrain.run(current, asked(current, breaches), told, now=lambda: seen.at)
    kept: Did = {name: outcome[name] for name in ("outcome", "round", "version", "test") if name in outcome}
    if "round" not in outcome:
        return kept
    last = LastRound(
        at=seen.at,
        round=outcome["round"],
        version=str(outcome["version"]),
        passed=outcome["code"] == retrain.DONE,
        train_start=datetime.fromisoformat(outcome["train_start"]).replace(tzinfo=UTC),
        train_days=current.loop_train_days,
        test_days=current.loop_test_days,
    )
    gates = [f"{gate['name']}: {gate['evidence']}" for gate in outcome["gates"] if gate["word"] in ("block", "missing")]
    return kept | {"held_back_by": gates, "last_round": last}


def asked(current: Settings, breaches: Sequence[Breach]) -> argparse.Namespace:
    """The round's command line: each breach as a file of evidence, as it was when it was decided upon."""
    folder = current.home / job_results.FOLDER / JOB
    folder.mkdir(parents=True, exist_ok=True)
    words = ["--train-days", str(current.loop_train_days), "--delay-days", str(DELAY_DAYS)]
    words += ["--test-days", str(current.loop_test_days)]
    worst = min((one for one in breaches if one.metric != DRIFT), key=lambda one: one.value - one.bound, default=None)
    if worst is not None:
        file = _evidence(folder / "performance.json", {worst.metric: worst.value})
        words += ["--performance", str(file), "--metric", worst.metric, "--margin", str(current.loop_margin)]
    for one in breaches:
        if one.metric == DRIFT:
            file = _evidence(folder / "drift.json", {"share": one.value, "drifted": one.drifted})
            words += ["--drift", str(file), "--drift-limit", str(one.bound)]
    return retrain.arguments(words)


def _evidence(file: Path, content: dict[str, Any]) -> Path:
    file.write_text(json.dumps(content, indent=1) + "\n")
    return file


def seat(current: Settings, seen: Seen, told: Told) -> Did:
    """Promote the last round's version by the gates, judged anew on the round's own test days."""
    last = seen.last_round
    if last is None:
        raise Refused("There is no round whose version could be promoted.")
    protocol = Protocol(last.train_start, last.train_days, DELAY_DAYS, last.test_days)
    this = Round(current, protocol, Marks(current.home / "retraining", last.round), Registry(current), told)
    window = of_test_days(this.tested(), protocol, seen.at)
    reason = f"round {last.round} of {last.at:%F}"
    outcome = promote(current, last.version, Conditions(window=window, reason=reason), now=lambda: seen.at)
    found: Did = {"version": last.version, "verdict": str(outcome.verdict)}
    found["promoted"] = outcome.event is not None
    return found | {"last_round": last.model_copy(update={"settled": True})}


def _failures() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException

    return (*FAILURES, MlflowException)


def _details(seen: Seen, decision: Decision, did: Sequence[Did]) -> dict[str, Any]:
    return {
        "champion": seen.champion,
        "challenger": seen.challenger,
        "decided": decision.action,
        "because": decision.because,
        "breaches": [asdict(one) for one in decision.breaches],
        "unread": list(decision.unread),
        "did": list(did),
        "last_round": None if seen.last_round is None else seen.last_round.model_dump(mode="json"),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.loop", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--at", type=instant, help="the instant it is, ISO 8601 with an offset; default: now")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and why")
    given = parser.parse_args(arguments)
    try:
        found = run(settings(), given.at or datetime.now(UTC), dry_run=given.dry_run)
    except Busy as error:
        print(error)
        return 0
    except (RegistryFailed, job_results.InvalidResult) as error:
        print(f"The loop could not run. {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if given.dry_run:
        print(f"{found['decided']}: {found['because']}")
    return 1 if any("failed" in deed for deed in found["did"]) else 0


if __name__ == "__main__":
    sys.exit(main())
