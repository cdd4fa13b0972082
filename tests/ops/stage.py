"""A platform with everything that tells metrics, small and real, and a Prometheus that watches it each second."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import yaml
from redis import Redis

from feature_repo import sources
from feature_repo.contract import EVIDENCE_FILE, LABEL, REFERENCE_FILE, SCORE
from feature_repo.historical import vectors
from feature_repo.schema import LABEL_SCHEMA
from feature_repo.settings import Settings
from feature_repo.store import apply
from monitoring.jobs import JOBS
from monitoring.processes import Platform, at_free_ports
from monitoring.prometheus_local import prometheus
from monitoring.supervision import free_ports, start, stop, tail, wait
from tests import tiny_model
from tests.integration.velocity_platform import body, payments, send
from training import backfill, batch

DEADLINE = 300.0
LIVE = 1_000
DAYS = 24
"""How far back the payments go: beyond the time after which labels are due."""


class Stage:
    """What a test asks of it."""

    def __init__(self, platform: Platform) -> None:
        self.platform, self.settings, self.began = platform, platform.settings, time.time()

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something; fails with the ends of the logs."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            logs = {name: tail(running.log, 8) for name, running in self.platform.running.items()}
            assert time.monotonic() < deadline, "\n".join([what, *(f"{name}:\n{text}" for name, text in logs.items())])
            time.sleep(0.2)

    def ask(self, endpoint: str, **params: Any) -> Any:
        """The data of an answer of Prometheus's API; fails with its error."""
        answer = httpx.post(f"{self.settings.prometheus_url}/api/v1/{endpoint}", data=params, timeout=30).json()
        assert answer["status"] == "success", (params, answer)
        return answer["data"]

    def values(self, expr: str) -> list[float]:
        """The values of a query now."""
        return [float(one["value"][1]) for one in self.ask("query", query=expr)["result"]]

    def over_time(self, expr: str) -> list[float]:
        """All values of a query since the stage was set, a second apart."""
        found = self.ask("query_range", query=expr, start=self.began, end=time.time(), step="1s")["result"]
        return [float(value) for one in found for _, value in one["values"]]


def champion(current: Settings, store: Any, past: pd.DataFrame) -> str:
    """Register the tiny model with rows that it might have been trained on; its columns as history gives them."""
    found, columns = vectors(store, past)
    reference = pd.DataFrame(found, columns=list(columns))
    reference[SCORE] = 1 / (1 + np.exp(2 - reference["amount"].to_numpy(np.float64) / 100))
    reference[LABEL] = past["is_fraud"].to_numpy("int8")
    out = io.BytesIO()
    reference.to_parquet(out)
    tested = ("precision", "recall", "average_precision", "auc_roc", "ece")
    promised = {name: [0.9, 0.8, 1.0] for name in tested}
    files = tiny_model.files(tiny_model.contract(columns))
    files |= {REFERENCE_FILE: out.getvalue(), EVIDENCE_FILE: json.dumps({"metrics": promised}).encode()}
    return tiny_model.publish(current.mlflow_url, current.model_name, files)


def labels(rows: pd.DataFrame) -> pa.Table:
    """The labels of payments as history has them, known a week after."""
    known = rows["timestamp"] + timedelta(days=7)
    made = rows[["transaction_id", "card_id", "merchant_id", "timestamp"]].assign(
        known_at=known, published_at=known, is_fraud=rows["is_fraud"].astype(float)
    )
    return pa.Table.from_pandas(made[LABEL_SCHEMA.names], preserve_index=False).cast(LABEL_SCHEMA)


def decide(current: Settings, rows: pd.DataFrame) -> None:
    """Have payments decided, half of them one by one, as clients do."""
    bodies = [body(payment) for payment in rows.to_dict("records")]
    with httpx.Client(base_url=f"http://127.0.0.1:{current.port}", timeout=30) as client:
        headers = {"content-type": "application/json"}
        for one in bodies[::2]:
            client.post("/predict", content=one, headers=headers).raise_for_status()
        many = b'{"transactions":[' + b",".join(bodies[1::2]) + b"]}"
        client.post("/predict_batch", content=many, headers=headers).raise_for_status()
        stated = {"kind": "chargeback", "occurred_at": rows["timestamp"].iloc[0].isoformat(), "source": "desk"}
        said = {"transaction_id": rows["transaction_id"].iloc[0]} | stated
        client.post("/feedback", json=said).raise_for_status()


def watching(current: Settings) -> Any:
    """The project's own Prometheus, looking each second."""
    part = prometheus(current)
    file = current.home / "prometheus" / "prometheus.yml"
    config = yaml.safe_load(file.read_text())
    config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["file_sd_configs"][0]["refresh_interval"] = "1s"
    file.write_text(yaml.safe_dump(config))
    return part


@contextmanager
def stage(home: Path, postgres_url: str) -> Iterator[Stage]:
    """Set the stage: history, labels, a champion, every part; payments decided and streamed; each job run."""
    now = datetime.now(UTC).replace(microsecond=0)
    begin = now - timedelta(days=DAYS)
    [port] = free_ports(1)
    current = at_free_ports(
        Settings(
            home=home,
            postgres_url=postgres_url,
            prometheus_url=f"http://127.0.0.1:{port}",
            max_age=None,
            feature_budget=5.0,
            jobs_after=timedelta(0),
        )
    )
    past = payments(1, 400, begin - timedelta(days=30), timedelta(days=30), 40, 20, "past")
    live = payments(2, LIVE, begin, timedelta(days=DAYS), 40, 20, "live")
    with Platform(current) as platform:
        platform.start("redis", "mlflow")
        store = apply(current)
        backfill.load(past, current, "past")
        batch.publish(current, [begin], None)
        sources.add(store.get_data_source("labels"), current.offline_path, labels(live))
        champion(current, store, past)
        part = watching(current)
        running = start(part, home / "logs")
        try:
            platform.start("service", "stream", "decisions", "feedback")
            wait(part, running)
            made = Stage(platform)
            _play(made, live)
            yield made
        finally:
            stop(running)


def _play(on: Stage, live: pd.DataFrame) -> None:
    """Payments in two halves, so that counts are seen to grow; then the jobs, which the monitor runs when it starts."""
    for half in (live.iloc[: LIVE // 2], live.iloc[LIVE // 2 :]):
        decide(on.settings, half)
        with Redis.from_url(on.settings.redis_url) as client:
            send(client, on.settings, half)
        decided = on.values("total_transactions_total")
        on.until(lambda before=decided: on.values("total_transactions_total") > before, "the service is scraped")
    on.until(lambda: on.values("sum(fraud_stream_events_total)") == [LIVE], "the stream job has taken every event")
    on.until(lambda: on.values("sum(fraud_decisions_carried_total)") == [LIVE], "each decision is in the table")
    on.platform.start("monitor")
    ran = "count(fraud_job_last_success_timestamp_seconds)"
    scheduled = [job for job in JOBS if job.every(on.settings) is not None]
    on.until(lambda: on.values(ran) == [len(scheduled)], "each job has succeeded")
    on.until(lambda: on.values("tollgate:high_risk:ratio1d"), "the rules are evaluated")
