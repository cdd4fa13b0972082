"""The command line of promotion: what it prints, and with which code it ends."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table

from feature_repo.settings import Settings, settings
from training import promote
from training.promote import CLAIMS, Conditions, Outcome, Overtaken, Refused
from training.registry import CHALLENGER, CHAMPION
from training.turn import Busy
from training.verdicts import Gate, Verdict
from training.versions import Event, RegistryFailed, Versions
from training.window import DAYS

DONE, BLOCKED, WRONG = 0, 1, 2

COLOURS = {"pass": "green", "block": "red", "missing": "yellow", "untried": "dim"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands; returns the exit code."""
    given = _parser().parse_args(arguments)
    # A registry that is away is told within seconds, where MLflow's own patience is minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    try:
        code: int = given.run(settings(), given, console)
    except Overtaken as error:
        print(error, file=sys.stderr)
        code = BLOCKED
    except (Refused, Busy, RegistryFailed) as error:
        print(error, file=sys.stderr)
        return WRONG
    return int(given.skip_code) if code == BLOCKED else code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.promote", description=promote.__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, told: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=told, description=told)
        made.set_defaults(run=run, skip_code=BLOCKED)
        made.add_argument("--json", action="store_true", help="print JSON")
        return made

    one = command("promote", _promote, "judge a version against the champion and make it champion if it passes")
    one.add_argument("--version", help="default: the challenger")
    one.add_argument("--dry-run", action="store_true", help="judge it, and leave everything as it is")
    one.add_argument(
        "--dataset", help="data set in whose own store the window lies, as `training.train --dataset` named it"
    )
    one.add_argument("--days", type=int, default=DAYS, help="days of the window, at most (default: %(default)s)")
    one.add_argument("--until", type=_midnight, help="last day of the window is the one before (YYYY-MM-DD, UTC)")
    one.add_argument("--claim", action="append", default=[], choices=CLAIMS, help="it must surely be better in this")
    one.add_argument("--override", action="store_true", help="promote it although it is blocked; needs --reason")
    one.add_argument("--reason", default="", help="why; it is recorded")
    one.add_argument("--skip-code", type=int, default=BLOCKED, metavar="N", help="exit code where it is blocked")
    two = command("rollback", _rollback, "make the champion before this one champion again; asks for no evidence")
    which = two.add_mutually_exclusive_group()
    which.add_argument("--to", metavar="VERSION", help="another one that was champion")
    which.add_argument("--undo", action="store_true", help="take the last rollback back")
    two.add_argument("--reason", default="", help="why; it is recorded")
    command("history", _history, "who served when, by whose hand and why")
    three = command("show", _show, "the last verdict on a version")
    three.add_argument("--version", help="default: the challenger, else the champion")
    return parser


def _midnight(text: str) -> datetime:
    try:
        return datetime.fromisoformat(f"{text}T00:00:00+00:00")
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day; must be YYYY-MM-DD") from None


def _promote(current: Settings, given: argparse.Namespace, console: Console) -> int:
    conditions = Conditions(
        dataset=given.dataset,
        days=given.days,
        until=given.until,
        claims=tuple(given.claim),
        override=given.override,
        reason=given.reason,
    )
    outcome = promote.promote(current, given.version, conditions, dry_run=given.dry_run)
    if given.json:
        event = None if outcome.event is None else outcome.event.model_dump(mode="json")
        told = outcome.verdict.model_dump(mode="json") | {"passed": outcome.verdict.passed, "event": event}
        console.print_json(json.dumps(told))
    else:
        show(outcome.verdict, console)
        _tell(outcome, given.dry_run, console)
    return DONE if outcome.event is not None or (given.dry_run and outcome.verdict.passed) else BLOCKED


def _tell(outcome: Outcome, dry_run: bool, console: Console) -> None:
    verdict, event = outcome.verdict, outcome.event
    if event is not None and event.action == "overridden":
        console.print(f"\n[bold white on red] OVERRIDDEN [/] {verdict}; {event.by}: {event.reason}")
    if event is not None:
        console.print(f"\nVersion {event.version} is champion, in the place of {event.left or 'nobody'}.")
    elif dry_run:
        console.print(f"\nTried only: {verdict}; nothing was changed.")
    else:
        console.print(f"\nVersion {verdict.version} is {verdict}. Champion stays {verdict.champion or 'nobody'}.")


def show(verdict: Verdict, console: Console) -> None:
    """The verdict as a table of its gates, and what to do about those that do not pass."""
    table = Table(
        title=f"{verdict.model}: version {verdict.version} against {verdict.against}", title_justify="left", expand=True
    )
    table.add_column("gate", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("evidence", ratio=1)
    for gate in verdict.gates:
        table.add_row(gate.name, f"[{COLOURS[gate.word]}]{gate.word}[/]", _evidence(gate))
    console.print(table)
    for gate in verdict.gates:
        if gate.way_out:
            console.print(f"[bold]{gate.name}[/]: {gate.way_out}")


def _evidence(gate: Gate) -> str:
    from rich.markup import escape

    return escape(gate.evidence) + f"\n[dim]{escape(gate.rule)}[/]"


def _rollback(current: Settings, given: argparse.Namespace, console: Console) -> int:
    event = promote.rollback(current, given.to, undo=given.undo, reason=given.reason)
    if given.json:
        console.print_json(event.model_dump_json())
    else:
        console.print(f"Version {event.version} is champion again, in the place of {event.left}.")
    return DONE


def _history(current: Settings, given: argparse.Namespace, console: Console) -> int:
    versions = Versions(current)
    events, aliases = versions.events(), versions.aliases()
    if given.json:
        told = {"aliases": aliases, "events": [event.model_dump(mode="json") for event in events]}
        console.print_json(json.dumps(told))
        return DONE
    table = Table(title=f"{versions.name}: {_seats(aliases)}", title_justify="left", expand=True)
    for name in ("when (UTC)", "version", "what", "in place of", "by"):
        table.add_column(name, no_wrap=True)
    table.add_column("why; verdict", ratio=1)
    for event in events:
        table.add_row(*_line(event))
    console.print(table)
    return DONE


def _seats(aliases: dict[str, str]) -> str:
    return f"champion {aliases.get(CHAMPION, 'nobody')}, challenger {aliases.get(CHALLENGER, 'nobody')}"


def _line(event: Event) -> tuple[str, ...]:
    from rich.markup import escape

    loud = "[bold white on red]" if event.action == "overridden" else "[/]"[:0]
    what = f"{loud}{event.action}[/]" if loud else event.action
    left = (event.left or "nobody") if event.changed else ""
    why = "; ".join(part for part in (event.reason, event.verdict) if part)
    return f"{event.at:%Y-%m-%d %H:%M:%S}", event.version, what, left, event.by, escape(why)


def _show(current: Settings, given: argparse.Namespace, console: Console) -> int:
    versions = Versions(current)
    aliases = versions.aliases()
    version = given.version or aliases.get(CHALLENGER) or aliases.get(CHAMPION)
    if version is None:
        raise Refused(
            f"Model '{versions.name}' has neither a challenger nor a champion; name a version with --version."
        )
    verdict = versions.last_verdict(version)
    if verdict is None:
        raise Refused(f"Version {version} of '{versions.name}' was never judged; `promote --dry-run` judges it.")
    if given.json:
        console.print_json(verdict.model_dump_json())
    else:
        show(verdict, console)
        console.print(f"\n{verdict.judged_at:%Y-%m-%d %H:%M:%S} UTC: {verdict}.")
    return DONE
