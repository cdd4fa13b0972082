"""The whole loop on one machine: data, features, training, serving, streaming, replay, audit, drift.

Every part is a real process that ends with this one. In the full profile the servers are those that the settings name,
with nothing in them yet (`monitoring.full_profile` starts such); the demo's own processes run on them.
`python -m training.demo [--dataset NAME_OR_FILE] [--rows N] [--replay N] [--reports DIR]`
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import psycopg
import redis
from rich.console import Console

from feature_repo.schema import LABEL_PUBLICATION
from feature_repo.settings import ROOT, Settings, settings
from feature_repo.vector import FEATURE_SERVICE
from monitoring.decision_chain import verify
from monitoring.decision_log import LoggedDecision, read_decisions
from monitoring.decision_table import connect, find
from monitoring.kafka_group import require_broker
from monitoring.processes import Platform, at_free_ports, ending_on_sigterm
from monitoring.skew import Skew, audit
from training import batch, summary
from training.datasets.synthetic import ROWS
from training.prepare import EXPECTED, Prepared, Steps, prepare
from training.replaying import ReplayFailed, environ, replay

REPLAYED = 5_000

CARRIED_WITHIN = 60.0
"""Seconds within which the last decision must be in Postgres, where decisions are carried there."""

PATIENCE = 2.0
"""Seconds the demo's service gives Redis; a service of its own gives it 0.02 for features."""


class DemoFailed(RuntimeError):
    """A process of the demo ended before its work was done."""


def replayed(platform: Platform, prepared: Prepared, count: int, steps: Steps) -> list[dict[str, Any]]:
    """Replay the first held-out payments; returns their answers.

    The hourly batch runs when its hour comes in the replay, as it would in life.
    """
    rows = prepared.held_out.head(count)
    # Hours without a payment are not announced; what was due in them goes online with the next that is.
    online = prepared.protocol.test_start

    def publish(due: datetime) -> None:
        nonlocal online
        batch.run(platform.settings, prepared.store, online, due, prepared.dataset.profiles)
        online = due

    first = rows["timestamp"].iloc[0].floor(LABEL_PUBLICATION).to_pydatetime()
    if first > online:
        publish(first)
    online = first
    with steps.step(f"replay {len(rows):,} payments", bar=False):
        answers = replay(platform, rows, LABEL_PUBLICATION, publish)
    return [json.loads(line) for line in answers.read_text().splitlines()]


@contextmanager
def own_topics(current: Settings) -> Iterator[Settings]:
    """Over Kafka, settings with topics of this run's own: a broker outlives the demo, and others use it too."""
    if current.transport != "kafka":
        yield current
        return
    names = (
        "transactions_stream", "decisions_stream", "predictions_topic", "feature_updates_stream", "dead_letter_stream"
    )  # fmt: skip
    run = f"demo-{uuid4().hex[:8]}"
    ours = current.model_copy(update={name: f"{run}.{getattr(current, name)}" for name in names})
    try:
        yield ours
    finally:
        command = [sys.executable, "-m", "stream_jobs.topics", "--delete"]
        subprocess.run(command, env=environ(ours), capture_output=True)  # noqa: S603 — our own module


def placed(current: Settings) -> Settings:
    """The demo's parts at free ports; in the full profile, its servers stay where they are."""
    own = at_free_ports(current)
    if current.profile != "full":
        return own
    return own.model_copy(update={"redis_url": current.redis_url, "mlflow_url": current.mlflow_url})


def require_empty(current: Settings) -> None:
    """Raise `DemoFailed` if the full profile's Redis or Postgres holds anything: the demo would write over it."""
    with redis.Redis.from_url(current.redis_url) as client:
        if client.dbsize():
            raise DemoFailed(f"FRAUD_REDIS_URL is '{current.redis_url}': it holds keys; the demo wants an empty one.")
    with psycopg.connect(current.postgres_url) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = ANY(current_schemas(false))")
        if tables := [name for (name,) in found]:
            raise DemoFailed(
                f"FRAUD_POSTGRES_URL: the database '{connection.info.dbname}' has {len(tables)} tables; the demo wants "
                "an empty one. `make demo-full` starts one."
            )


def recorded(current: Settings, answers: list[dict[str, Any]]) -> list[LoggedDecision]:
    """The decisions on record: those in the log, or in the full profile those that were carried into Postgres.

    Raises `DemoFailed` where the table holds other decisions than were answered, or a broken chain.
    """
    if current.profile != "full":
        return list(read_decisions(current.redis_url, current.decisions_stream))
    identifiers = [line["answer"]["transaction_id"] for line in answers]
    deadline = time.monotonic() + CARRIED_WITHIN
    with connect(current.postgres_url) as connection:
        while len(found := find(connection, identifiers)) < len(identifiers) and time.monotonic() < deadline:
            time.sleep(0.1)
        held, broken = verify(connection)
    if broken is not None or held != len(found):
        raise DemoFailed(f"The table of decisions holds {held} rows, {len(found)} of them answered. {broken or ''}")
    return [found[identifier] for identifier in identifiers if identifier in found]


def drift(current: Settings, prepared: Prepared, decisions: list[LoggedDecision], out: Path) -> dict[str, Any]:
    """Evidently's report of the replayed payments against the training days, in a process of its own."""
    columns = list(prepared.data.columns)
    trained = prepared.data.where(prepared.protocol.train(prepared.data.rows))
    champion = prepared.outcome.fitted[prepared.outcome.champion]
    reference = pd.DataFrame(trained.vectors, columns=columns)
    reference["score"] = champion.model.predict_proba(trained.vectors)[:, 1]
    recent = pd.DataFrame(np.stack([decision.vector for decision in decisions]), columns=columns)
    recent["score"] = [decision.probability for decision in decisions]
    files = {"--reference": current.home / "reference.parquet", "--current": current.home / "recent.parquet"}
    for frame, path in zip((reference, recent), files.values(), strict=True):
        frame.to_parquet(path)
    command = [sys.executable, "-m", "monitoring.drift", "--out", str(out), "--json"]
    for option, path in files.items():
        command += [option, str(path)]
    done = subprocess.run(command, env=environ(current), capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise DemoFailed(f"The drift report ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def live_metrics(prepared: Prepared, answers: list[dict[str, Any]], skew: Skew) -> dict[str, Any]:
    """What the replay showed. Precision and recall are of payments that were reviewed or declined."""
    fraud = prepared.held_out.set_index("transaction_id")["is_fraud"]
    given = pd.DataFrame([line["answer"] for line in answers])
    truth = given["transaction_id"].map(fraud).to_numpy() == 1
    stopped = (given["decision"] != "approve").to_numpy()
    caught = int((truth & stopped).sum())
    latency = np.array([line["latency_ms"] for line in answers])
    return {
        "scored": len(answers),
        "frauds": int(truth.sum()),
        "stopped": int(stopped.sum()),
        "precision": caught / stopped.sum() if stopped.any() else None,
        "recall": caught / truth.sum() if truth.any() else None,
        "p50_ms": float(np.percentile(latency, 50)),
        "p99_ms": float(np.percentile(latency, 99)),
        "vectors_checked": skew.checked,
        "vectors_different": skew.different,
        "different_by_feature": skew.by_feature,
    }


def run(arguments: argparse.Namespace, console: Console) -> int:
    """The demo; returns the exit code."""
    home = settings().home / "demo"
    shutil.rmtree(home, ignore_errors=True)
    base = settings().model_copy(update={"home": home})
    # A laptop that does all of it at once may be slow; the figures are to be the model's and not the fallback's.
    own = base.model_dump(include={"data", "home"})
    chosen = Settings(**own, feature_budget=PATIENCE, log_timeout=PATIENCE, max_age=None)
    steps = Steps(console)
    began = time.perf_counter()
    console.print("\n[bold]Tollgate[/] — every payment passes it\n")
    require_broker(chosen)
    with ending_on_sigterm(), own_topics(chosen) as streams, Platform(placed(streams)) as platform:
        full = chosen.profile == "full"
        stores = partial(require_empty, chosen) if full else partial(platform.start, "redis", "mlflow")
        jobs = ("stream", "decisions") if full else ("stream",)
        prepared = prepare(platform.settings, stores, arguments.dataset, steps, arguments.rows)
        with steps.step("start the service and the stream job"):
            platform.start(*jobs, "service")
        answers = replayed(platform, prepared, arguments.replay, steps)
        current = platform.settings
        with steps.step("recompute every served vector"):
            decisions = recorded(current, answers)
            whole = [d for d in decisions if d.feature_service == FEATURE_SERVICE]
            skew = audit(prepared.store, [(d.transaction, d.vector) for d in whole])
        platform.stop("service", *jobs)
        reports: Path = arguments.reports
        with steps.step("drift report"):
            drifted = drift(current, prepared, whole, reports / "drift")
    live = live_metrics(prepared, answers, skew) | {"decisions_logged": len(decisions)}
    live["without_stored_features"] = len(decisions) - len(whole)
    report = {"profile": chosen.profile}
    report |= summary.as_json(prepared, live, drifted, steps.seconds, time.perf_counter() - began)
    (reports / "demo.json").write_text(json.dumps(report, indent=2) + "\n")
    summary.show(console, prepared, report, drifted)
    failed = skew.different or len(decisions) != len(answers)
    return 1 if failed else 0


def main() -> None:
    """Run the demo; exit code 1 where it cannot be done or a served vector differs, 130 where it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", help="handbook, sparkov, synthetic or a file; default: what FRAUD_DATA holds")
    parser.add_argument("--rows", type=int, default=ROWS, help="payments to generate, where they are generated")
    parser.add_argument("--replay", type=int, default=REPLAYED, help="held-out payments to replay")
    parser.add_argument(
        "--reports", type=Path, default=ROOT / "reports", help="folder of demo.json and the drift report"
    )
    arguments = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    try:
        code = run(arguments, console)
    except (*EXPECTED, DemoFailed, ReplayFailed) as error:
        print(f"\n{error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        console.print("\nInterrupted; every process of the demo has been stopped.")
        code = 130
    raise SystemExit(code)


if __name__ == "__main__":
    main()
