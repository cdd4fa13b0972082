"""Weeks of the platform's life in minutes: a planted drift, its alert, retraining, promotion, on real parts.

`python -m training.replayed_weeks [--weeks 12] [--payments-per-day 200] [--worse] [--out reports/closed-loop]`

Payments of a generated world are replayed in event time: each is scored by the service before it enters the stream. At
each midnight the labels and profiles that are due go online, at each week's end the jobs `drift`, `quality` and `loop`
run as of then. With `--worse` nothing drifts: a version that learned from a leak is made champion against its gates.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pyarrow as pa
from rich.console import Console

from feature_repo import sources
from feature_repo.schema import HISTORY_SCHEMA, LABEL_SCHEMA
from feature_repo.settings import ROOT, Settings, settings
from feature_repo.store import apply
from monitoring import drift_job, quality_job
from monitoring.processes import Platform, at_free_ports, ending_on_sigterm
from training import backfill, batch, loop
from training.demo import PATIENCE
from training.prepare import ALL_VIEWS, EXPECTED, Steps
from training.registry import CHAMPION
from training.replayed_picture import picture
from training.replayed_versions import first_champion, leaky_champion
from training.replayed_world import TEST_DAYS, TRAIN_DAYS, World, world
from training.replaying import ReplayFailed, replay
from training.versions import Versions

DAY, WEEK = timedelta(days=1), timedelta(days=7)

PLANTED_AFTER = 3
"""Live weeks after which the world changes, or the bad version is made champion, where nobody says otherwise."""

FOLLOWED_WITHIN = 120.0

MARGIN, LEAST_FRAUDS = 0.1, 300
"""Weeks of so few payments are noisy: average precision, which has no interval, would need many weeks' frauds."""


@dataclass
class Life:
    """What happened, week by week, and the events that a picture marks."""

    weeks: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, str]] = field(default_factory=list)

    def event(self, at: datetime, name: str, told: str) -> None:
        """Put an event on record."""
        self.events.append({"at": at.isoformat(), "event": name, "told": told})


class Replayed:
    """A platform whose time is that of the payments."""

    def __init__(self, platform: Platform, found: World, steps: Steps, worse_after: int | None) -> None:
        self.platform, self.world, self.steps, self.worse_after = platform, found, steps, worse_after
        self.settings, self.life = platform.settings, Life()
        self.store = apply(self.settings)
        self.online = found.live
        labels = backfill.label_rows(found.dataset.transactions).to_pandas()
        self.labels = labels.assign(published_at=labels["published_at"].dt.ceil("D"))  # a batch each midnight

    def prepare(self) -> None:
        """History before the first live day, a champion, and the online store as of then."""
        payments, live = self.world.dataset.transactions, self.world.live
        past = payments[payments["timestamp"] < live]
        source = self.store.get_data_source("transactions")
        rows = pa.Table.from_pandas(past[HISTORY_SCHEMA.names], schema=HISTORY_SCHEMA, preserve_index=False)
        sources.append(source, self.settings.offline_path, rows, "history")
        self.publish(None, live)
        first = past["timestamp"].min().floor("D").to_pydatetime()
        batch.publish(self.settings, batch.midnights(first + DAY, live), self.world.dataset.profiles, "history")
        event = first_champion(self.settings, live)
        self.life.event(live, "first champion", f"version {event.version}, {event.verdict}")
        batch.put_online(self.store, first, live, ALL_VIEWS)

    def publish(self, since: datetime | None, until: datetime) -> None:
        """The labels that are published in (since, until] into history."""
        due = self.labels["published_at"] <= until
        if since is not None:
            due &= self.labels["published_at"] > since
        table = pa.Table.from_pandas(self.labels[due], schema=LABEL_SCHEMA, preserve_index=False)
        source = self.store.get_data_source("labels")
        sources.append(source, self.settings.offline_path, table, f"labels-{until:%Y%m%d}")

    def live(self) -> None:
        """Replay every live payment, with all that is due at the midnights between."""
        payments = self.world.dataset.transactions
        replay(self.platform, payments[payments["timestamp"] >= self.world.live], DAY, self.midnight, quiet=True)
        self.midnight(self.world.end)

    def midnight(self, now: datetime) -> None:
        """What is due at a midnight; at a week's end the jobs and the loop too."""
        self.publish(self.online, now)
        batch.run(self.settings, self.store, self.online, now, self.world.dataset.profiles)
        self.online = now
        since = now - self.world.live
        if now == self.world.changes:
            self.life.event(now, "drift planted", "other habits, other frauds, larger amounts")
        if since % WEEK == timedelta(0):
            if self.worse_after is not None and since == self.worse_after * WEEK:
                event = leaky_champion(self.settings, now)
                self.life.event(now, "bad version planted", f"version {event.version}: {event.verdict}, overridden")
            self.week(since // WEEK, now)
            self._follow()

    def week(self, number: int, now: datetime) -> None:
        """The jobs and the loop as of a week's end, and what they said."""
        began = time.perf_counter()
        drifted, quality = drift_job.run(self.settings, now), quality_job.run(self.settings, now)
        found = loop.run(self.settings, now, told=lambda line: None)
        against = drifted["against"].get("training")
        own = quality["versions"].get(f"{self.settings.model_name} {quality['champion']}", {}).get("full")
        one = {
            "week": number,
            "at": now.isoformat(),
            "champion": quality["champion"],
            "live": own,
            "promised": quality["promised"],
            "drift_share": against["share"] if isinstance(against, dict) else None,
            "loop": found,
            "seconds": round(time.perf_counter() - began, 1),
        }
        self.life.weeks.append(one)
        for breach in found["breaches"]:
            self.life.event(now, "drift" if breach["metric"] == "drift" else "quality breach", breach["because"])
        for deed in found["did"]:
            self._tell(now, deed)
        self.steps.console.print(f"  week {number}: {summary_line(one)}", markup=False)

    def _tell(self, now: datetime, deed: dict[str, Any]) -> None:
        if "failed" in deed or "unfit" in deed:
            self.life.event(now, f"{deed['action']} failed", deed.get("failed") or deed["unfit"])
        elif deed["action"] == "rollback":
            self.life.event(now, "rolled back", f"from version {deed['left']} to {deed['champion']}: {deed['because']}")
        elif deed["action"] == "retrain":
            held = f"; held back by {'; '.join(deed['held_back_by'])}" if deed.get("held_back_by") else ""
            told = f"version {deed.get('version')}: {deed['outcome']}{held}"
            self.life.event(now, "retrained", told)
        elif deed["action"] == "promote":
            self.life.event(now, "promoted" if deed["promoted"] else "blocked", f"version {deed['version']}")

    def _follow(self) -> None:
        """Wait until the service answers with the champion of now."""
        wanted, deadline = Versions(self.settings).aliases()[CHAMPION], time.monotonic() + FOLLOWED_WITHIN
        while (serving := httpx.get(f"{self._service()}/model", timeout=30).json()["version"]) != wanted:
            if time.monotonic() > deadline:
                raise ReplayFailed(f"The service still answers with version {serving}; the champion is {wanted}.")
            time.sleep(0.2)

    def _service(self) -> str:
        return f"http://{self.settings.host}:{self.settings.port}"


def summary_line(week: dict[str, Any]) -> str:
    """A week for people."""
    live, words = week["live"], [f"champion {week['champion']}"]
    for name in ("precision", "recall", "average_precision"):
        value = None if live is None else live[name]
        words.append(f"{name.replace('_', ' ')} {'-' if value is None else f'{value:.2f}'}")
        if name in week["promised"]:
            words[-1] += f" (promised {week['promised'][name]:.2f})"
    share = week["drift_share"]
    words.append("drift -" if share is None else f"drift {share:.0%}")
    return ", ".join([*words, " and ".join(deed["action"] for deed in week["loop"]["did"])])


def run(asked: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The replay; writes `closed-loop.json` and `closed-loop.png` and returns the former's content."""
    home, began, steps = settings().home / "closed-loop", time.perf_counter(), Steps(console)
    shutil.rmtree(home, ignore_errors=True)
    # A slow machine is to change none of the figures, and no payment is too old.
    chosen = Settings(
        home=home, data=settings().data, feature_budget=PATIENCE, log_timeout=PATIENCE, max_age=None,
        features_stale_after=None, registry_poll=timedelta(seconds=1), loop_promotes=True, loop_margin=MARGIN,
        loop_least_frauds=LEAST_FRAUDS, loop_train_days=TRAIN_DAYS, loop_test_days=TEST_DAYS,
    )  # fmt: skip
    with steps.step("generate the world"):
        found = world(asked.weeks, asked.payments_per_day, None if asked.worse else asked.planted_after)
    with ending_on_sigterm(), Platform(at_free_ports(chosen)) as platform:
        with steps.step("start Redis and MLflow"):
            platform.start("redis", "mlflow")
        replayed = Replayed(platform, found, steps, asked.planted_after if asked.worse else None)
        with steps.step("history, the first champion, features online"):
            replayed.prepare()
        with steps.step("start the service and the stream job"):
            platform.start("stream", "service")
        with steps.step(f"replay {asked.weeks} weeks", bar=False):
            replayed.live()
    told = asdict(replayed.life) | {
        "scenario": "a version worse live than promised" if asked.worse else "a planted drift",
        "payments_per_day": asked.payments_per_day,
        "live_payments": int((found.dataset.transactions["timestamp"] >= pd.Timestamp(found.live)).sum()),
        "seconds": round(time.perf_counter() - began, 1),
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "closed-loop.json").write_text(json.dumps(told, indent=1) + "\n")
    (asked.out / "closed-loop.png").write_bytes(picture(told))
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 1 where the replay cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m training.replayed_weeks", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--weeks", type=int, default=12, help="live weeks (default: %(default)s)")
    parser.add_argument("--payments-per-day", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--planted-after", type=int, default=PLANTED_AFTER, help="weeks (default: %(default)s)")
    parser.add_argument("--worse", action="store_true", help="no drift: a version that is worse live than promised")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "closed-loop", help="folder of the picture")
    asked, console = parser.parse_args(arguments), Console(highlight=False, soft_wrap=True)
    try:
        told = run(asked, console)
    except (*EXPECTED, ReplayFailed, ValueError, LookupError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    console.print(f"\n{told['scenario']}: {told['live_payments']:,} payments in {told['seconds']:.0f} s")
    for event in told["events"]:
        console.print(f"  {event['at'][:10]}  {event['event']}: {event['told']}", markup=False)
    console.print(f"\n{asked.out / 'closed-loop.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
