"""What a decision weighs where it is kept: bytes in Redis, in Kafka's message and in Postgres, indexes and all.

    python -m tests.load.decision_sizes [--count 20000]       JSON; seconds, with servers of its own

The payments have every field, identifiers like UUIDs, a vector of `--columns` float32 that do not compress, and answers
with three reasons as the service words them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import redis

from bentos.decisions import SCRIPT
from feature_repo import sources
from feature_repo.schema import HISTORY_SCHEMA
from feature_repo.settings import Settings
from feature_repo.store import apply
from monitoring.decision_claim import CONFIRMED
from monitoring.decision_log import LoggedDecision, claim_key
from monitoring.decision_message import Message, pack
from monitoring.decision_table import append, connect, create
from monitoring.processes import Platform, at_free_ports
from tests.postgres_server import Postgres

AT = datetime(2026, 3, 4, 12, tzinfo=UTC)
REASONS = [
    {"code": code, "feature": feature, "contribution": 0.1234, "text": text}
    for code, feature, text in (
        (
            "MERCHANT_RISK",
            "merchant_count_is_fraud_30d",
            "2 labels of this merchant's payments became known in 30 days",
        ),
        ("AMOUNT_VS_USUAL", "card_amount_to_mean_90d", "amount is 0.4 times the card's usual in the last 90 days"),
        ("MERCHANT_USUAL_AMOUNT", "merchant_mean_amount_7d", "no payment at this merchant in the last 7 days"),
    )
]


def decisions(count: int, columns: int) -> list[LoggedDecision]:
    """As many decisions, each on a payment of its own."""
    draw, found = np.random.default_rng(1), []
    for number in range(count):
        name, paid = str(uuid.UUID(bytes=draw.bytes(16))), AT + timedelta(milliseconds=number)
        request = {
            "transaction_id": name,
            "timestamp": paid.isoformat(),
            "card_id": f"card-{draw.integers(10**9)}",
            "merchant_id": f"merchant-{draw.integers(10**6)}",
            "amount": round(float(draw.gamma(2, 30)) + 0.01, 2),
            "merchant_category": "entertainment",
            "country": "GB",
            "channel": "online",
            "device_id": f"{draw.integers(10**12):x}",
            "ip": "203.0.113.7",
            "currency": "GBP",
        }
        answer = {
            "transaction_id": name,
            "fraud_probability": float(draw.random()),
            "decision": "approve",
            "risk_level": "low",
            "confidence": float(draw.random()),
            "reasons": REASONS,
            "model_name": "tollgate-fraud",
            "model_version": "12",
            "model_role": "champion",
            "feature_age_seconds": float(draw.random()) * 1e5,
            "degraded": False,
            "degraded_cause": None,
            "latency_ms": 1.487,
            "timestamp": paid.isoformat(),
        }
        vector = draw.random(columns, np.float32)
        texts = [json.dumps(one, separators=(",", ":")).encode() for one in (request, answer)]
        found.append(LoggedDecision(f"{number}-0", texts[0], vector, texts[1], "fraud_v1"))
    return found


def in_redis(url: str, made: list[LoggedDecision]) -> dict[str, float]:
    """Bytes of a claim beside a stream's entry, of the entry, and of a claim that holds the whole decision."""

    def grown(client: redis.Redis, do: Callable[[], None]) -> float:
        client.flushall()
        before = client.info("memory")["used_memory"]
        do()
        return (client.info("memory")["used_memory"] - before) / len(made)

    digest, expires = bytes(16), str(2**41)
    with redis.Redis.from_url(url) as client:
        script = client.register_script(SCRIPT.decode())

        def logged() -> None:
            for begin in range(0, len(made), 100):
                few = made[begin : begin + 100]
                keys = ["decisions", *(claim_key("decisions", name(one)) for one in few)]
                fields = [(digest, expires, one.request, one.vector.tobytes(), one.answer, "fraud_v1") for one in few]
                script(keys=keys, args=[part for one in fields for part in one])

        def claimed(bodies: list[bytes]) -> None:
            with client.pipeline(transaction=False) as pipe:
                for one, body in zip(made, bodies, strict=True):
                    pipe.set(claim_key("decisions", name(one)), body, pxat=int(expires))
                pipe.execute()

        messages = [pack(Message(one.request, one.vector.tobytes(), one.answer, "fraud_v1")) for one in made]
        small = grown(client, lambda: claimed([digest + b"1700000000000-0"] * len(made)))
        large = grown(client, lambda: claimed([digest + CONFIRMED + body for body in messages]))
        return {"claim": small, "stream_entry": grown(client, logged) - small, "kafka_claim": large}


def name(one: LoggedDecision) -> str:
    return (
        str(one.told.transaction_id)
        if hasattr(one.told, "transaction_id")
        else json.loads(one.answer)["transaction_id"]
    )


def in_postgres(url: str, home: Path, redis_url: str, made: list[LoggedDecision]) -> dict[str, float]:
    """Bytes of a row of `decisions` and of a row of history, each with its indexes."""

    def size(connection: psycopg.Connection, table: str) -> float:
        connection.execute(f"VACUUM {table}")  # type: ignore[arg-type]
        [[total]] = connection.execute("SELECT pg_total_relation_size(%s::text::regclass)", [table]).fetchall()
        return float(total) / len(made)

    with connect(url) as connection:
        create(connection)
        for begin in range(0, len(made), 2_000):
            append(connection, made[begin : begin + 2_000])
    current = Settings(profile="full", home=home, postgres_url=url, redis_url=redis_url)
    source = apply(current).get_data_source("transactions")
    payments = [json.loads(one.request) for one in made]
    stamps = pa.array([datetime.fromisoformat(one["timestamp"]) for one in payments], pa.timestamp("us", "UTC"))
    columns = {field.name: pa.array([one.get(field.name) for one in payments]) for field in HISTORY_SCHEMA
               if field.name not in ("timestamp", "ingested_at")}  # fmt: skip
    rows = pa.table({**columns, "timestamp": stamps, "ingested_at": stamps}).select(HISTORY_SCHEMA.names)
    sources.append(source, url, rows.cast(HISTORY_SCHEMA), "transactions-1-0")
    with psycopg.connect(url, autocommit=True) as connection:
        [[table]] = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename LIKE %s", ["transactions%"]
        ).fetchall()
        return {"decision_row": size(connection, "decisions"), "history_row": size(connection, table)}


def measure(count: int, columns: int) -> dict[str, float]:
    """Every figure, in bytes a decision."""
    made = decisions(count, columns)
    message = sum(len(pack(Message(one.request, one.vector.tobytes(), one.answer, "fraud_v1"))) for one in made) / count
    folder = Path(tempfile.mkdtemp(prefix="tollgate-postgres-"))
    try:
        server = Postgres(folder)
        try:
            with (
                tempfile.TemporaryDirectory() as home,
                Platform(at_free_ports(Settings(home=Path(home)))) as platform,
            ):
                platform.start("redis")
                url = platform.settings.redis_url
                found = in_redis(url, made) | in_postgres(server.database(), Path(home), url, made)
        finally:
            server.close()
    finally:
        shutil.rmtree(folder)
    return {"kafka_message": message, "payment": sum(len(one.request) for one in made) / count, **found}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--columns", type=int, default=83)
    given = parser.parse_args()
    print(json.dumps({what: round(value) for what, value in measure(given.count, given.columns).items()}, indent=1))


if __name__ == "__main__":
    main()
