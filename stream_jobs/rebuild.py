"""The online store made anew from history: after a loss of Redis, or a change of a windowed view.

    python -m stream_jobs.rebuild [--as-of 2018-08-08T00:00:00Z]

The stream job must not run meanwhile: one that `make up` started is stopped and started again, any other is yours to
stop. What it has acknowledged and history has not is given to it again, so nothing is missing; what the states have
already changes nothing.
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from feature_repo import sources
from feature_repo.past_events import read_events
from feature_repo.schema import EARLIEST
from feature_repo.settings import Settings, settings
from feature_repo.sources import MissingTable
from feature_repo.store import feature_store, put_online
from feature_repo.window_history import History
from monitoring.processes import down, up
from stream_jobs.engine import Plan
from stream_jobs.transports.configured import transport
from stream_jobs.velocity import STREAM_SOURCE

WRITE_STATES = 2_000
"""States written in one round trip."""


def rebuild(current: Settings, as_of: datetime, progress: Progress) -> dict[str, int]:
    """Make every view's online values anew; returns the number of entities of each view that the stream feeds.

    Those views get all that history has, whenever it is from; the others what `feast materialize` finds up to `as_of`.
    States of entities that history doesn't know go when the new ones are in place. Raises `MissingTable`.
    """
    plan = Plan(lambda: feature_store(current), STREAM_SOURCE)
    # First, so that a rebuild that is broken off leaves the stream job more to do, never less.
    transport(current, current.consumer_group).rewind(current.history_group)
    done = {name: _rebuild_view(plan, name, current, progress) for name in plan.specs}
    _materialize(plan, as_of, progress)
    return done


def _rebuild_view(plan: Plan, name: str, current: Settings, progress: Progress) -> int:
    task = progress.add_task(f"  {name}: reading history", total=None)
    history, until = _history(plan, name, current)
    progress.update(task, description=f"  {name}", total=len(history.entities))
    done: list[str] = []
    for part in history.rebuilt(until):
        for begin in range(0, len(part.entities), WRITE_STATES):
            few = slice(begin, begin + WRITE_STATES)
            plan.write(name, part.entities[few], part.states[few], part.stamps[few])
            progress.advance(task, len(part.entities[few]))
        done += part.entities
    forgotten = plan.states[name].forget_others(done)
    if forgotten:
        progress.console.print(f"  {name}: {forgotten:,} states removed, of entities that history doesn't know")
    return len(done)


def _history(plan: Plan, name: str, current: Settings) -> tuple[History, int]:
    """What a view's states are made of, and the instant (µs) before which all of it lies."""
    spec, source = plan.specs[name], plan.views[name].batch_source
    stamp = sources.stored_name(source, source.timestamp_field)
    with sources.scan(source, current.offline_path, [stamp], None, None) as instants:
        latest = max((pc.max(batch.column(0)).cast(pa.int64()).as_py() or 0 for batch in instants), default=0)
    events = read_events(source, current.offline_path, spec, latest - spec.retention, latest + 1)
    return History.of(spec, events, source.timestamp_field, source.created_timestamp_column or None), latest + 1


def _materialize(plan: Plan, as_of: datetime, progress: Progress) -> None:
    names = [view.name for view in plan.store.list_feature_views() if view.online]
    names += [view.name for view in plan.store.list_stream_feature_views() if view.name not in plan.specs]
    task = progress.add_task(f"  {', '.join(names)}", total=None)
    put_online(plan.store, EARLIEST, as_of, names)
    progress.update(task, total=1, completed=1)


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text} has no offset")
    return at


def main() -> None:
    """Rebuild with the process's settings; say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--as-of", type=_instant, help="for batch views, RFC 3339 with an offset; default: now")
    arguments = parser.parse_args()
    current, console = settings(), Console(highlight=False)
    stopped = down(current, ("stream",))
    began = time.perf_counter()
    layout = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*layout, console=console) as progress:
            done = rebuild(current, arguments.as_of or datetime.now(UTC), progress)
    except MissingTable as error:
        raise SystemExit(str(error)) from None
    finally:
        if stopped:
            up(current, stopped)
    counted = ", ".join(f"{count:,} of {name}" for name, count in done.items())
    seconds = time.perf_counter() - began
    console.print(f"Rebuilt {counted} in {seconds:.1f} s. The stream job goes on from here.", soft_wrap=True)


if __name__ == "__main__":
    main()
