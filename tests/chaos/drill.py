"""`make drill`: each part of the full profile lost in turn under a small load, restored, and the loss counted.

    python -m tests.chaos.drill [--only PART]... [--out reports/drill.json]

The clock of a loss runs from the moment the part goes until, for payments sent after it was restored: twenty in a row
are answered with all their features, one of them is in Postgres, the stream job has done what the topic held, and the
registry names its champion and hands out that model's files. Exit code 1 where that takes five minutes, or anything is
lost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import psycopg
from rich.console import Console
from rich.table import Table

from feature_repo.settings import ROOT
from feature_repo.store import feature_store
from monitoring.decision_chain import verify
from monitoring.decision_log import LoggedDecision
from monitoring.decision_table import connect, find
from monitoring.processes import ending_on_sigterm
from stream_jobs.transports.base import Backlog
from stream_jobs.transports.configured import transport
from tests.chaos.feed import Feed
from tests.chaos.load import Load, Reply, sent_again, until
from tests.chaos.losses import PARTS, FullStage, full_stage
from tests.chaos.verdict import judge
from tests.integration.velocity_platform import questions
from tests.load.machine import machine
from tests.parity.three_ways import offline, online, unequal

LIMIT = 300.0
"""Seconds within which all must be well again."""

RATE, LANES = 20.0, 4
IN_A_ROW = 20


class Drill:
    """Losses of the stage's parts, one after the other, and what each took and cost."""

    def __init__(self, stage: FullStage) -> None:
        self.stage, self.settings = stage, stage.settings
        self._restarted: list[str] = []
        self._ever: list[str] = []

    # -- well again --------------------------------------------------------------------------------------------------

    def well(self) -> None:
        """Return when all that the module's page names holds for payments sent from now on."""
        began = time.monotonic()
        until(lambda: self._mended() and self._answers_whole(began), LIMIT)
        [last] = self.stage.load.answered[-1:]
        until(lambda: self._mended() and self.in_table([last]), LIMIT)
        self.caught_up()
        until(self.registry_answers, LIMIT)

    def _mended(self) -> bool:
        """Start programs that have ended, as compose and Kubernetes do; always true."""
        for name in [name for name, at in self.stage.platform.running.items() if not at.alive()]:
            self._restarted.append(name)
            self.stage.platform.stop(name)
            self.stage.platform.start(name)
        return True

    def _answers_whole(self, began: float) -> bool:
        latest = [one for one in self.stage.load.replies[-IN_A_ROW:] if one.sent > began]
        return len(latest) == IN_A_ROW and all(one.ok and not one.told["degraded"] for one in latest)

    def in_table(self, replies: Sequence[Reply]) -> bool:
        """Whether Postgres has the decisions."""
        wanted = [one.transaction_id for one in replies]
        with contextlib.suppress(psycopg.OperationalError), connect(self.settings.postgres_url) as connection:
            return len(find(connection, wanted)) == len(wanted)
        return False

    def caught_up(self) -> None:
        """Return when both groups of the stream job have done what the topic holds now."""
        for group in (self.settings.consumer_group, self.settings.history_group):
            self._done(transport(self.settings, group).backlog())

    def carried(self) -> None:
        """Return when the sink has done what the decision log holds now."""
        self._done(transport(self.settings, self.settings.decisions_group, self.settings.decisions_stream).backlog())

    def _done(self, backlog: Backlog) -> None:
        try:
            end = backlog.end()
            until(lambda: self._mended() and not backlog.lag(end), LIMIT)
        finally:
            backlog.close()

    def registry_answers(self) -> bool:
        """Whether MLflow names the champion that was made, and hands out its files."""
        known = {"name": self.settings.model_name, "alias": "champion"}
        with contextlib.suppress(httpx.TransportError), httpx.Client(base_url=self.settings.mlflow_url) as client:
            named = client.get("/api/2.0/mlflow/registered-models/alias", params=known)
            if named.status_code != httpx.codes.OK:
                return False
            version = named.json()["model_version"]
            assert (self.settings.model_name, version["version"]) in self.stage.biases, version
            folder = version["source"].removeprefix("mlflow-artifacts:")
            return client.get(f"/api/2.0/mlflow-artifacts/artifacts{folder}/MLmodel").status_code == httpx.codes.OK
        return False

    # -- judged ------------------------------------------------------------------------------------------------------

    def lose(self, name: str) -> dict[str, Any]:
        """Lose a part under load and have it back; what that took and cost."""
        self._restarted = []
        lost, back = told_of(name)
        aside = self._aside()
        load = self.stage.load = Load(self.settings, RATE, LANES)
        with Feed(self.settings, load), load:
            until(lambda: self._answers_whole(0.0), LIMIT)
            began = time.monotonic()
            getattr(self.stage, name)()
            self.well()
            seconds = time.monotonic() - began
        self.stage.complete_backup()
        silent = [one for one in load.replies if one.status == 0]
        again = sent_again(self.settings, silent)
        replies = [*load.replies, *again]
        until(self.stage.journal_is_empty, LIMIT)
        self.carried()
        verdict = judge(replies, self._recorded(replies), self.stage.biases)
        self._ever += [one.transaction_id for one in replies if one.ok]
        with connect(self.settings.postgres_url) as connection:
            held, broken = verify(connection)
            kept = find(connection, self._ever)
        return {
            "part": name, "lost": lost, "restored": back, "seconds": round(seconds, 1),
            "payments": verdict.payments, "answered": verdict.answered, "degraded": verdict.degraded,
            "unanswered": verdict.unanswered, "refused": verdict.refused, "faults": verdict.faults,
            "lost_decisions": len(set(self._ever) - set(kept)), "decided_twice": self._aside() - aside,
            "restarted": self._restarted, "decisions_held": held, "chain": broken,
            "online_differs_from_offline": self.differences(),
        }  # fmt: skip

    def _recorded(self, replies: Sequence[Reply]) -> list[LoggedDecision]:
        with connect(self.settings.postgres_url) as connection:
            return list(find(connection, [one.transaction_id for one in replies]).values())

    def _aside(self) -> int:
        with connect(self.settings.postgres_url) as connection:
            [(count,)] = connection.execute("SELECT count(*) FROM decision_conflicts").fetchall()
        return int(count)

    def differences(self) -> list[str]:
        """Where the online store and history do not agree now, bit by bit, for the payments of the load."""
        self.caught_up()
        rows = pd.DataFrame([one.payment for one in self.stage.load.answered])
        rows = rows.assign(merchant_category=None, country=None, channel=None)
        asked, store = questions(rows, [datetime.now(UTC)]), feature_store(self.settings)
        return unequal(online(store, asked), offline(store, asked))


def told_of(name: str) -> tuple[str, str]:
    """How a part is lost, and how it is had again."""
    lost, _, back = (getattr(FullStage, name).__doc__ or "").partition(" | ")
    return lost, back


def passed(row: dict[str, Any]) -> bool:
    """Whether a loss was recovered from in time and cost nothing."""
    costs = ("faults", "lost_decisions", "decided_twice", "chain", "online_differs_from_offline", "refused")
    return row["seconds"] < LIMIT and not any(row[name] for name in costs)


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The drill for people."""
    made = Table("part", "lost", "restored by", "well after", "answered", "degraded", "sent again", "lost", "twice",
                 "online ≠ offline", box=None)  # fmt: skip
    for row in rows:
        figures = (row["answered"], row["degraded"], row["unanswered"], row["lost_decisions"], row["decided_twice"])
        made.add_row(
            PARTS[row["part"]], row["lost"], row["restored"], f"{row['seconds']:.1f} s",
            *(str(one) for one in figures), str(len(row["online_differs_from_offline"])),
        )  # fmt: skip
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.drill", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", action="append", choices=list(PARTS), help="a part; may be given several times")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "drill.json")
    asked, console = parser.parse_args(arguments), Console(highlight=False, width=None if sys.stdout.isatty() else 170)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="tollgate-drill-") as home, ending_on_sigterm():
        began = time.monotonic()
        with full_stage(Path(home)) as stage:
            drill = Drill(stage)
            console.print(f"set up in {time.monotonic() - began:.0f} s")
            for name in asked.only or PARTS:
                rows.append(drill.lose(name))
                console.print(f"  {PARTS[name]}: {rows[-1]['seconds']} s", "" if passed(rows[-1]) else str(rows[-1]))
                asked.out.parent.mkdir(parents=True, exist_ok=True)
                told = {"machine": machine(), "payments_per_second": RATE, "losses": rows}
                asked.out.write_text(json.dumps(told, indent=1) + "\n")
    console.print(table(rows))
    return 0 if all(passed(row) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
