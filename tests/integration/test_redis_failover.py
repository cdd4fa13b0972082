"""overlays/prod's three Redis and their Sentinels, as its start.sh starts them: a primary that dies is replaced."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from feature_repo.settings import ROOT
from monitoring.parts import redis_server
from monitoring.supervision import Part, Running, free_ports, start, stop, wait

CONFIG = ROOT / "k8s" / "overlays" / "prod" / "redis"
HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
PASSWORD = "s3cret"
ERRORS = (redis.ConnectionError, redis.TimeoutError)


class Nodes:
    """Three pods on three loopback addresses, each a Redis and a Sentinel."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, dict[tuple[str, str], Running]()
        self.port, self.sentinel_port = free_ports(2)
        self.secrets = folder / "secrets"
        self.secrets.mkdir()
        (self.secrets / "users.acl").write_text(f"user default on >{PASSWORD} ~* &* +@all\n")
        (self.secrets / "auth.conf").write_text(f"masterauth {PASSWORD}\n")
        (self.secrets / "sentinel-auth.conf").write_text(f"sentinel auth-pass primary {PASSWORD}\n")
        (folder / "bin").mkdir()
        for program in ("redis-server", "redis-cli"):
            found = shutil.which(program) or str(Path(redis_server()).with_name(program))
            (folder / "bin" / program).symlink_to(found)

    def client(self, host: str) -> redis.Redis:
        return redis.Redis(host=host, port=self.port, password=PASSWORD, socket_timeout=1, decode_responses=True)

    def role(self, host: str) -> str:
        with self.client(host) as client:
            try:
                return str(client.info("replication")["role"])
            except ERRORS:
                return "away"

    def begin(self, host: str, kind: str) -> None:
        home = self.folder / host
        home.mkdir(exist_ok=True)
        config = home / "config"
        shutil.copytree(CONFIG, config, dirs_exist_ok=True)
        text = (config / "redis.conf").read_text().replace("/etc/redis/secrets", str(self.secrets))
        (config / "redis.conf").write_text(text.replace("dir /data", f"dir {home}"))
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "POD_NAME": host,
            "PEERS": " ".join(HOSTS),
            "DOMAIN": "",
            "CONFIG": str(config),
            "SECRETS": str(self.secrets),
            "STATE": str(home),
            "REDIS_PORT": str(self.port),
            "SENTINEL_PORT": str(self.sentinel_port),
            "DOWN_AFTER": "1000",
        }
        command = ("/bin/sh", str(config / "start.sh"), kind, "--bind", host)
        ready = (lambda: self.role(host) != "away") if kind == "redis" else (lambda: True)
        part = Part(f"{kind}-{host}", command, home, host, ready, environment=environment)
        self.running[host, kind] = start(part, home / "logs")
        wait(part, self.running[host, kind])


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"Not within a minute: {what}.")
        time.sleep(0.1)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    made = Nodes(tmp_path)
    with ExitStack() as ends:
        ends.callback(lambda: [stop(one) for one in made.running.values()])
        for kind in ("redis", "sentinel"):
            for host in HOSTS:
                made.begin(host, kind)
        yield made


def sentinels_agree(nodes: Nodes) -> bool:
    """Whether each Sentinel knows the two others and both replicas."""
    for host in HOSTS:
        with redis.Redis(host=host, port=nodes.sentinel_port, decode_responses=True) as client:
            try:
                found = client.sentinel_master("primary")
            except (*ERRORS, redis.ResponseError):
                return False
            if (found["num-other-sentinels"], found["num-slaves"]) != (2, 2):
                return False
    return True


def test_a_primary_that_dies_is_replaced_and_comes_back_as_a_replica(nodes: Nodes):
    first, *others = HOSTS
    until(lambda: [nodes.role(host) for host in HOSTS] == ["master", "slave", "slave"], "one primary, two replicas")
    until(lambda: sentinels_agree(nodes), "Sentinels that know each other")
    with nodes.client(first) as client:
        client.set("decision", "on record")
        assert client.wait(2, 5_000) == 2
    stop(nodes.running.pop((first, "redis")))
    until(lambda: sorted(nodes.role(host) for host in others) == ["master", "slave"], "another primary")
    [lead] = [host for host in others if nodes.role(host) == "master"]
    with nodes.client(lead) as client:
        assert client.get("decision") == "on record"
        until(lambda: client.info("replication")["connected_slaves"] == 1, "a replica of the new primary")
        client.set("decision", "after it")
    nodes.begin(first, "redis")
    until(lambda: nodes.role(first) == "slave", "the first one as a replica")
    with nodes.client(first) as client:
        until(lambda: client.get("decision") == "after it", "what it has missed")
    for one in reversed(list(nodes.running.values())):
        stop(one)
    for kind in ("redis", "sentinel"):  # the first of all is up first, and was not the last to lead
        for host in HOSTS:
            nodes.begin(host, kind)
    until(lambda: sorted(nodes.role(host) for host in HOSTS) == ["master", "slave", "slave"], "one primary again")
    assert nodes.role(lead) == "master"


def test_a_primary_without_replicas_takes_no_write(nodes: Nodes):
    first, *others = HOSTS
    until(lambda: [nodes.role(host) for host in HOSTS] == ["master", "slave", "slave"], "one primary, two replicas")
    for host in HOSTS:
        stop(nodes.running.pop((host, "sentinel")))
    for host in others:
        stop(nodes.running.pop((host, "redis")))

    def refused() -> bool:
        try:
            client.set("decision", "of nobody else")
        except redis.ResponseError as error:
            return "NOREPLICAS" in str(error)
        return False

    with nodes.client(first) as client:
        until(refused, "a refusal")
