"""What docker-compose.yml starts Redis and Postgres with, given to a real Redis and a real Postgres."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
import yaml

from feature_repo.settings import ROOT
from k8s.draw_secrets import draw
from monitoring.parts import redis_server
from monitoring.supervision import Part, free_ports, start, stop, wait
from tests.postgres_server import Postgres, installed

SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "secrets"
    draw(folder)
    return folder


@pytest.fixture
def redis_port(secrets: Path, tmp_path: Path) -> Iterator[int]:
    """A Redis started with compose's command, but for its address and folders."""
    (port,) = free_ports(1)
    _, *options = (word.replace("/run/secrets", str(secrets)) for word in SERVICES["redis"]["command"])
    command = (redis_server(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), *options)

    def answers() -> bool:
        try:
            return bool(redis.Redis(port=port).ping())
        except redis.AuthenticationError:
            return True
        except redis.ConnectionError:
            return False

    part = Part(name="redis", command=command, folder=tmp_path, url=f"127.0.0.1:{port}", ready=answers)
    running = start(part, tmp_path / "logs")
    try:
        wait(part, running)
        yield port
    finally:
        stop(running)


def test_redis_takes_compose_s_options_and_the_drawn_address_alone(redis_port: int, secrets: Path):
    drawn = urlsplit((secrets / "fraud_redis_url").read_text().strip())
    with redis.Redis.from_url(f"redis://:{drawn.password}@127.0.0.1:{redis_port}/0") as client:
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    for stranger in (redis.Redis(port=redis_port), redis.Redis(port=redis_port, password="guessed")):
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


@pytest.fixture
def postgres() -> Iterator[str]:
    """Host and port of a Postgres whose superuser is `postgres`, as the image makes it, and that knows no other."""
    folder = Path(tempfile.mkdtemp(prefix="tollgate-postgres-"))  # the server's user may not enter pytest's own
    server = Postgres(folder)
    try:
        with psycopg.connect(server.database(), autocommit=True) as connection:
            connection.execute("CREATE ROLE postgres SUPERUSER LOGIN")
        at = urlsplit(server.database())
        address = f"{at.hostname}:{at.port}"
        with psycopg.connect(f"postgresql://postgres@{address}/postgres", autocommit=True) as connection:
            connection.execute(f"ALTER ROLE {at.username} RENAME TO first")
        yield address
    finally:
        server.close()
        shutil.rmtree(folder)


def test_postgres_gets_a_role_and_a_database_for_each_program(postgres: str, secrets: Path):
    script = SERVICES["postgres"]["volumes"][1].split(":")[0]
    environment = {
        "PATH": f"{installed()}:{os.environ['PATH']}",
        "PGHOST": postgres.split(":")[0],
        "PGPORT": postgres.split(":")[1],
        "POSTGRES_PASSWORD_FILE": str(secrets / "postgres_password"),
        "SECRETS": str(secrets),
    }
    done = subprocess.run([ROOT / script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for drawn in ("fraud_postgres_url", "mlflow_database_url", "airflow_database_url"):
        program = urlsplit(re.sub(r"\+\w+", "", (secrets / drawn).read_text().strip()))
        address = f"postgresql://{program.username}:{program.password}@{postgres}{program.path}"
        with psycopg.connect(address) as connection:
            connection.execute("CREATE TABLE t (x int)")
            [(owner, plain)] = connection.execute(
                "SELECT pg_get_userbyid(datdba), (SELECT count(*) FROM pg_roles WHERE rolname = %s AND NOT rolsuper)"
                " FROM pg_database WHERE datname = current_database()",
                [program.username],
            ).fetchall()
            assert (owner, plain) == (program.username, 1)
            connection.rollback()
