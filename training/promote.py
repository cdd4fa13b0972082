"""Promote a challenger that holds its own, take a champion back, and tell what happened.

`python -m training.promote promote [--version V] [--dry-run]`, `rollback [--to V | --undo] [--reason TEXT]`,
`history`, `show [--version V]`. Exit codes: 0 done, 1 blocked by evidence, 2 wrong use or no answer from MLflow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from feature_repo.settings import Settings
from feature_repo.store import feature_store
from feature_repo.vector import FEATURE_SERVICE, columns
from monitoring import job_results
from training import gates, history
from training.case import SAVED, Case
from training.datasets.synthetic import ROWS
from training.graphs import BrokenVersion, Graph
from training.registry import CHALLENGER, CHAMPION
from training.split import Protocol
from training.turn import turn
from training.verdicts import MissingEvidence, Verdict
from training.versions import Action, Event, Versions, someone, utc_now
from training.weighted import METRICS
from training.window import DAYS, Window, later_window

CLAIMS = (*METRICS, SAVED)
"""What a challenger may be said to be better in."""

Role = Literal["champion", "fallback", "nobody"]


class Refused(ValueError):
    """What was asked for cannot be done, whatever the evidence."""


class Overtaken(RuntimeError):
    """The champion changed while a version was judged against it: its evidence is of another comparison."""


@dataclass(frozen=True)
class Outcome:
    """What came of it: the verdict, and the event where the version became champion; null where it did not."""

    verdict: Verdict
    event: Event | None


@dataclass(frozen=True)
class Conditions:
    """How to judge: the window or how to find one, what is claimed, and whether what blocks is overridden, and why."""

    window: Window | None = None
    dataset: str | None = None
    """Data set in whose own store the window lies (`training.history`); null: the platform's."""
    days: int = DAYS
    until: datetime | None = None
    claims: tuple[str, ...] = ()
    features: Settings | None = None
    """Settings of the Feast store whose service names the columns, where it is not the platform's own."""
    override: bool = False
    reason: str = ""

    def check(self) -> None:
        """Raise `Refused` where the conditions contradict themselves."""
        unknown = [name for name in self.claims if name not in CLAIMS]
        if unknown:
            raise Refused(f"Claim {', '.join(unknown)} is no metric; must be one of {', '.join(CLAIMS)}.")
        if self.override and not self.reason.strip():
            raise Refused("An override is recorded with its reason; give it with --reason.")


def promote(
    current: Settings,
    version: str | None = None,
    conditions: Conditions = Conditions(),
    *,
    dry_run: bool = False,
    now: Callable[[], datetime] = utc_now,
) -> Outcome:
    """Judge a version (default: the challenger) and make it champion if it passes; with `dry_run` judge it alone.

    The verdict is stored with the version either way. Raises `Refused`, `Overtaken`, `turn.Busy` or `RegistryFailed`.
    """
    conditions.check()
    versions = Versions(current)
    aliases = versions.aliases()
    champion, asked = aliases.get(CHAMPION), version or aliases.get(CHALLENGER)
    if asked is None:
        raise Refused(f"Model '{versions.name}' has no challenger; name a version with --version.")
    if asked == champion:
        raise Refused(f"Version {asked} of '{versions.name}' is the champion already.")
    verdict = judge(current, versions, asked, champion, conditions, now())
    if dry_run:
        return Outcome(verdict, None)
    versions.keep(verdict)
    action: Action = "promoted" if verdict.passed else "overridden" if conditions.override else "blocked"
    if action == "overridden" and verdict.refused_by_service:
        raise Refused(
            f"Version {asked} of '{versions.name}' is blocked by {', '.join(verdict.refused_by_service)}. That cannot "
            "be overridden: the service would refuse the version, and one that starts anew would have no champion."
        )
    event = Event(
        at=now(),
        action=action,
        version=asked,
        left=champion,
        by=someone(),
        reason=conditions.reason,
        verdict=str(verdict),
    )
    if not event.changed:
        versions.record(event)
        return Outcome(verdict, None)
    with turn(versions):
        serving = versions.aliases().get(CHAMPION)
        if serving != champion:
            raise Overtaken(
                f"Version {asked} of '{versions.name}' was judged against champion {champion or 'nobody'}; meanwhile "
                f"{serving or 'nobody'} serves. Nothing was changed; promote it again to have it judged anew."
            )
        versions.seat(event)
    return Outcome(verdict, event)


def judge(
    current: Settings, versions: Versions, version: str, champion: str | None, conditions: Conditions, now: datetime
) -> Verdict:
    """The verdict on a version, against the champion, or the model over the request alone where there is none."""
    wanted = served_columns(feature_store(conditions.features or current))
    with versions.files(version) as challenger, _rival(current, versions, champion, wanted) as (rival, role):
        found = conditions.window or _window(current, [challenger, rival], conditions, now)
        case = Case(challenger, rival, role, wanted, FEATURE_SERVICE, found, current, conditions.claims)
        return gates.judge(case, champion, now)


def served_columns(store: Any) -> tuple[str, ...]:
    """The columns that a champion is fed, in their order."""
    return columns(store.get_feature_service(FEATURE_SERVICE))


@contextlib.contextmanager
def _rival(
    current: Settings, versions: Versions, champion: str | None, wanted: Sequence[str]
) -> Iterator[tuple[Graph | None, Role]]:
    """The champion; where there is none, or the code can no longer feed it, the model over the request alone."""
    with contextlib.ExitStack() as stack:
        if champion is not None:
            graph = stack.enter_context(versions.files(champion))
            with contextlib.suppress(BrokenVersion):
                if not set(graph.contract.columns) <= set(wanted):
                    champion = None
            if champion is not None:
                yield graph, "champion"
                return
        alone = Versions(current, current.fallback_model_name)
        fallback = alone.aliases().get(CHAMPION)
        if fallback is None:
            yield None, "nobody"
        else:
            yield stack.enter_context(alone.files(fallback)), "fallback"


def _window(current: Settings, graphs: Sequence[Graph | None], conditions: Conditions, now: datetime) -> Window | str:
    """The window later than all have seen; else why there is none."""
    try:
        seen = [datetime.fromisoformat(graph.contract.trained_until) for graph in graphs if graph is not None]
        asked = (max(seen), now, conditions.days, conditions.until)
        if conditions.dataset is None:
            return later_window(feature_store(current), current, *asked)
        kept = history.prepare(current, conditions.dataset, ROWS, lambda text: None)

        def profiles(begin: datetime, end: datetime) -> None:
            kept.publish_profiles(Protocol(begin, 1, 0, (end - begin).days))

        return later_window(kept.store, kept.settings, *asked, before=profiles)
    except (MissingEvidence, BrokenVersion, LookupError, FileNotFoundError) as error:
        return str(error)


def rollback(
    current: Settings,
    to: str | None = None,
    *,
    undo: bool = False,
    reason: str = "",
    cause: str = "manual",
    now: Callable[[], datetime] = utc_now,
) -> Event:
    """Make the champion before this one champion again, without asking for evidence; returns what was recorded.

    `to` names another one that was champion once; `undo` takes the last rollback back; `cause` is a label of
    `fraud_rollbacks_total`, where `reason` is for people. Raises `Refused` where there is
    nobody to go back to, `turn.Busy` or `RegistryFailed`.
    """
    versions = Versions(current)
    with turn(versions):
        champion, events = versions.aliases().get(CHAMPION), versions.events()
        if champion is None:
            raise Refused(f"Model '{versions.name}' has no champion; there is nothing to take back.")
        target = _undone(versions.name, champion, events) if undo else to or previous(champion, events)
        if target is None or target == champion:
            raise Refused(
                f"Version {champion} of '{versions.name}' is champion, and no other is known to have been before it. "
                "`history` tells what is known; name a version with --to."
            )
        if not undo and target not in _once_champions(events):
            raise Refused(
                f"Version {target} of '{versions.name}' was never champion; a rollback asks for no evidence and goes "
                f"to one that was: {', '.join(sorted(_once_champions(events))) or 'none'}. Promote it instead."
            )
        event = Event(
            at=now(),
            action="rollback undone" if undo else "rolled back",
            version=target,
            left=champion,
            by=someone(),
            reason=reason,
            verdict="none asked for",
        )
        versions.seat(event)
    if not undo:
        job_results.add(current.home, "rollbacks", reason=cause)
    return event


def previous(champion: str, events: Sequence[Event]) -> str | None:
    """Whose place the champion took when it was promoted; null where nothing is known of it."""
    for event in reversed(events):
        if event.version == champion and event.action in ("promoted", "overridden"):
            return event.left
    others = [event.version for event in events if event.changed and event.version != champion]
    return others[-1] if others else None


def _undone(name: str, champion: str, events: Sequence[Event]) -> str | None:
    changes = [event for event in events if event.changed]
    if not changes or changes[-1].action != "rolled back" or changes[-1].version != champion:
        raise Refused(f"The last change of '{name}' was no rollback; there is none to undo.")
    return changes[-1].left


def _once_champions(events: Sequence[Event]) -> set[str]:
    changes = [event for event in events if event.changed]
    return {event.version for event in changes} | {event.left for event in changes if event.left is not None}


def first_champion_or_challenge(current: Settings, version: str, conditions: Conditions = Conditions()) -> Outcome:
    """What to do with a version that training has registered: the first becomes champion if it passes, as `promote`.

    Where somebody serves already it becomes the challenger, to be seen in shadow, and is judged: the verdict is stored,
    the champion stays until somebody promotes it. Raises as `promote` does.
    """
    versions = Versions(current)
    if versions.aliases().get(CHAMPION) is None:
        return promote(current, version, conditions)
    outcome = promote(current, version, conditions, dry_run=True)
    versions.keep(outcome.verdict)
    versions.challenge(version)
    return outcome


if __name__ == "__main__":
    import sys

    from training.promote_command import main

    sys.exit(main())
