"""What follows of what the jobs found: take the champion back, train again, promote what a round made, or nothing.

Pure: what is known goes in, a decision comes out. Invariant: nobody who was taken back is made champion again, and who
was made champion by a rollback is not taken back in turn, so that the loop never goes to and fro.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from feature_repo.settings import Settings
from monitoring.job_results import JobResult
from monitoring.quality_job import COMPLETE
from training.promote import previous
from training.versions import Event

WATCHED = ("average_precision", "precision", "recall")
"""Figures of live quality that are held against their promise, all with labels that are due."""

DRIFT = "drift"

Action = Literal["nothing", "rollback", "retrain", "promote"]


class LastRound(BaseModel):
    """The round of retraining that the loop did last, as it remembers it; `settled` once it is promoted or refused."""

    model_config = ConfigDict(frozen=True)

    at: AwareDatetime
    round: str
    version: str
    passed: bool
    settled: bool = False
    train_start: AwareDatetime
    train_days: int
    test_days: int


@dataclass(frozen=True)
class Terms:
    """When the loop acts; see the settings of these names."""

    promotes: bool
    margin: float
    least_frauds: int
    drift_share: float
    stale_after: timedelta
    probation: timedelta
    again: timedelta

    @classmethod
    def of(cls, current: Settings) -> Terms:
        """Those of the settings."""
        return cls(**{name: getattr(current, f"loop_{name}") for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Seen:
    """What is known at an instant: who serves, what happened to the versions, what the jobs found, the last round."""

    at: datetime
    name: str
    champion: str | None
    challenger: str | None
    events: Sequence[Event]
    quality: JobResult | None
    drift: JobResult | None
    last_round: LastRound | None = None


@dataclass(frozen=True)
class Breach:
    """One figure out of its bounds: a metric of live quality or `DRIFT`, its value, and the bound; why, for people."""

    metric: str
    value: float
    bound: float
    because: str
    drifted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decision:
    """What to do and why; `version` is who is promoted or who is gone back to, `unread` says which results say nothing.

    `breaches` are listed whatever is done about them.
    """

    action: Action
    because: str
    breaches: tuple[Breach, ...] = ()
    version: str | None = None
    unread: tuple[str, ...] = ()


def decide(seen: Seen, terms: Terms) -> Decision:
    """The one thing to do next."""
    if seen.champion is None:
        return Decision("nothing", "there is no champion")
    unread = tuple(f"{job}: {why}" for job in ("quality", "drift") if (why := unusable(seen, job, terms)))
    short = shortfalls(seen, terms) if unusable(seen, "quality", terms) is None else ()
    moved = drift(seen, terms) if unusable(seen, "drift", terms) is None else ()
    breaches = (*short, *moved)
    if short:
        target, why = back_to(seen, terms)
        if target is not None:
            return Decision("rollback", "; ".join(one.because for one in short), breaches, target, unread)
    else:
        why = "live quality is not below its promise" if not unread else "; ".join(unread)
    waiting = promotable(seen, terms)
    if waiting is not None:
        because = f"version {waiting.version} of round {waiting.round} passed its gates"
        return Decision("promote", because, breaches, waiting.version, unread)
    if not breaches:
        return Decision("nothing", why, (), None, unread)
    if seen.last_round is not None and seen.at < seen.last_round.at + terms.again:
        because = f"a round was done {seen.last_round.at:%F %H:%M}; the next is at the earliest {terms.again} later"
        return Decision("nothing", because, breaches, None, unread)
    because = "; ".join(one.because for one in breaches) + (f" ({why})" if short else "")
    return Decision("retrain", because, breaches, None, unread)


def unusable(seen: Seen, job: Literal["quality", "drift"], terms: Terms) -> str | None:
    """Why a job's result says nothing of this champion now; None where it does."""
    found: JobResult | None = getattr(seen, job)
    if found is None:
        return "has not run"
    if found.at > seen.at:
        return f"its result is of {found.at:%F %H:%M}, later than {seen.at:%F %H:%M}"
    if seen.at - found.at > terms.stale_after:
        return f"its result is of {found.at:%F %H:%M}, older than {terms.stale_after}"
    if found.details.get("champion") != seen.champion:
        return f"its result is of version {found.details.get('champion')}, the champion is version {seen.champion}"
    return None


def shortfalls(seen: Seen, terms: Terms) -> tuple[Breach, ...]:
    """Figures of the champion that are surely below what its own test promised, and by more than the margin.

    Surely: where the job gives an interval, all of it is below the promise; else there are enough frauds. None where
    labels that are due have not come.
    """
    details = seen.quality.details if seen.quality is not None else {}
    whole = details.get("all", {}).get("full", {})
    own = details.get("versions", {}).get(f"{seen.name} {seen.champion}", {}).get("full")
    if own is None or (whole.get("labelled_share") or 0.0) < COMPLETE:
        return ()
    found = []
    for metric in WATCHED:
        promised, value = details["promised"].get(metric), own.get(metric)
        if promised is None or value is None or value >= promised - terms.margin:
            continue
        interval = own.get(f"{metric}_interval")
        if interval[1] < promised if interval else own["frauds"] >= terms.least_frauds:
            found.append(Breach(metric, value, promised - terms.margin, _told(metric, value, promised, interval, own)))
    return tuple(found)


def _told(metric: str, value: float, promised: float, interval: Sequence[float] | None, own: dict[str, Any]) -> str:
    between = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    days = f"{own['from'][:10]} to {own['to'][:10]}"
    return f"{metric} is {value:.3f}{between}, promised {promised:.3f}, on {own['frauds']} frauds of {days}"


def drift(seen: Seen, terms: Terms) -> tuple[Breach, ...]:
    """The share of columns that drifted from the champion's training rows, where it is too large."""
    found = seen.drift.details.get("against", {}).get("training") if seen.drift is not None else None
    if not isinstance(found, dict) or found["share"] < terms.drift_share:  # a text says why there is no comparison
        return ()
    because = f"{found['share']:.0%} of {len(found['columns'])} columns drifted from the training rows"
    return (Breach(DRIFT, found["share"], terms.drift_share, because, tuple(found["drifted"])),)


def taken_back(events: Sequence[Event]) -> set[str]:
    """The versions that were champion until a rollback."""
    return {event.left for event in events if event.action == "rolled back" and event.left is not None}


def back_to(seen: Seen, terms: Terms) -> tuple[str | None, str]:
    """Who to go back to from a champion that falls short; else None, and why it stays."""
    champion = str(seen.champion)
    changes = [event for event in seen.events if event.changed]
    if not changes or changes[-1].version != champion:
        return None, f"nothing is known of how version {champion} became champion"
    last = changes[-1]
    if last.action not in ("promoted", "overridden"):
        return None, f"version {champion} is champion because somebody was taken back or put back ({last.action})"
    if champion in taken_back(seen.events):
        return None, f"version {champion} was taken back once"
    if seen.at - last.at > terms.probation:
        return None, f"version {champion} was promoted {last.at:%F}, more than {terms.probation.days} days ago"
    target = previous(champion, changes)
    if target is None:
        return None, f"nobody was champion before version {champion}"
    if target in taken_back(seen.events):
        return None, f"version {target}, which was before it, was taken back itself"
    return target, ""


def promotable(seen: Seen, terms: Terms) -> LastRound | None:
    """The last round, where its version is still the challenger, passed, and may be made champion by the loop."""
    last = seen.last_round
    if not terms.promotes or last is None or not last.passed or last.settled or last.version != seen.challenger:
        return None
    if seen.at > last.at + terms.again or last.version in taken_back(seen.events):
        return None
    return last
