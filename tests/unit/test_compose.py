"""docker-compose.yml against what the code reads, serves and has: names, ports, paths, modules, secrets, files."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import pytest
import yaml

from bentos.key_file import read_keys
from feature_repo.settings import ROOT, Settings, settings
from k8s.draw_secrets import draw
from monitoring import targets

TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SCHEMA = ROOT / "tests" / "deploy" / "schemas" / "compose-spec.json"
PROFILES = {"core", "monitoring", "workflows", "first-model"}
ONCE = {"setup", "buckets", "first-model", "airflow-setup"}
"""Services that end by themselves."""

HOSTS = {"FRAUD_REDIS_URL": "redis_url", "FRAUD_POSTGRES_URL": "postgres_url", "FRAUD_MLFLOW_URL": "mlflow_url"}
PORTS = {"redis": 6379, "postgres": 5432, "mlflow": 5000, "kafka": 9092}


def of_ours() -> Iterator[tuple[str, dict[str, Any]]]:
    return ((name, one) for name, one in SERVICES.items() if one["image"].startswith("tollgate/"))


def variables(service: dict[str, Any]) -> dict[str, str]:
    """A service's environment, with what `${NAME:-default}` gives where nothing is set."""
    found = {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, value in service["environment"].items()}
    return {name: value.replace("$$", "$") for name, value in found.items()}


def words(service: dict[str, Any]) -> str:
    return " ".join(service.get("command", ())).replace("$$", "$")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "secrets"
    draw(folder)
    return folder


def test_it_is_a_compose_file():
    errors = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text())).iter_errors(COMPOSE)
    assert [f"{error.instance_path}: {error.message}" for error in errors] == []


def test_every_fraud_variable_is_a_setting():
    known = {f"FRAUD_{name.upper()}" for name in Settings.model_fields} | {"FRAUD_SECRETS"}
    assert set(re.findall(r"\bFRAUD_[A-Z_]+", TEXT)) <= known


@pytest.mark.parametrize("name", [name for name, one in of_ours() if "FRAUD_PROFILE" in one.get("environment", {})])
def test_a_process_of_ours_reads_its_settings_from_it(name: str, secrets: Path, monkeypatch: pytest.MonkeyPatch):
    service = SERVICES[name]
    for variable, value in variables(service).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("FRAUD_SECRETS", str(secrets))
    settings.cache_clear()
    try:
        found = settings()
    finally:
        settings.cache_clear()
    for variable, field in HOSTS.items():
        if variable in service["environment"] or variable.lower() in service["secrets"]:
            at = urlsplit(getattr(found, field))
            assert (at.hostname, at.port) == (at.hostname, PORTS[str(at.hostname)])
            assert at.hostname in SERVICES
    assert found.profile == "full"
    assert found.kafka_bootstrap == f"kafka:{PORTS['kafka']}"


def test_the_secrets_are_those_that_are_drawn(secrets: Path):
    named = {name: given["file"].rsplit("/", 1)[1] for name, given in COMPOSE["secrets"].items()}
    assert all(name == file for name, file in named.items())
    assert {file for file in named.values() if not (secrets / file).exists()} == set()
    used = [secret for service in SERVICES.values() for secret in service.get("secrets", ())]
    assert set(used) == set(named)
    fields = {f"fraud_{name}" for name in Settings.model_fields}
    assert {name for name in named if name.startswith("fraud_")} <= fields


def test_a_command_reads_only_secrets_that_it_is_given():
    for name, service in SERVICES.items():
        asked = set(re.findall(r"/run/secrets/([\w.]+)", json.dumps(service)))
        assert asked <= set(service.get("secrets", ())), name


def test_secrets_drawn_again_stay_and_the_key_opens(secrets: Path):
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    assert draw(secrets) == []
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before
    assert secrets.stat().st_mode & 0o077 == 0
    assert len({text for name, text in before.items() if "password" in name and "." not in name}) == 8
    [key] = read_keys(secrets / "api_keys.json")
    assert (key.id, key.scopes) == ("laptop", ("score", "feedback", "admin"))


def test_no_password_stands_in_the_file():
    told = [
        (name, variable)
        for name, service in SERVICES.items()
        for variable, value in service.get("environment", {}).items()
        if re.search(r"PASSWORD|SECRET|KEY|TOKEN|CONN", variable) and not re.search(r"/run/secrets|/tmp/", value)
    ]
    assert told == []


def test_ports_are_published_to_this_machine_alone():
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published)


def test_every_image_has_a_version():
    for name, service in SERVICES.items():
        image = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", service["image"])
        assert re.search(r":(?!latest)[\w.-]*\d[\w.-]*$", image), name


def test_every_service_has_limits_and_a_profile_and_is_watched_or_ends():
    for name, service in SERVICES.items():
        limits = service["deploy"]["resources"]["limits"]
        assert set(limits) == {"cpus", "memory"}, name
        assert set(service["profiles"]) <= PROFILES, name
        assert service["profiles"], name
        if name in ONCE:
            assert service.get("restart", "no") == "no", name
        else:
            assert service["restart"] == "unless-stopped", name
            assert ("test" in service["healthcheck"]) == (name != "history"), name


def test_what_is_waited_for_can_come_about():
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert set(service["profiles"]) <= set(SERVICES[other]["profiles"]), (name, other)
            once = how["condition"] == "service_completed_successfully"
            assert once == (other in ONCE), (name, other)
            assert once or "test" in SERVICES[other]["healthcheck"], (name, other)


def test_every_file_it_mounts_or_builds_from_is_there():
    plain = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", json.dumps(SERVICES))
    mounted = [volume.split(":")[0] for service in json.loads(plain).values() for volume in service.get("volumes", ())]
    files = [ROOT / path for path in mounted if path.startswith("./") and path != "./data"]
    files += [ROOT / service["build"]["dockerfile"] for service in SERVICES.values() if "build" in service]
    assert len(files) > 8
    assert [path for path in files if not path.exists()] == []
    named = {path for path in mounted if not path.startswith("./")}
    assert named == set(COMPOSE["volumes"])


def test_every_module_that_is_run_exists():
    run = re.findall(r"python -m ([\w.]+)", " ".join(words(service) for service in SERVICES.values()))
    run += re.findall(r"from (training\.\w+) import", " ".join(words(service) for service in SERVICES.values()))
    run += [
        word for service in SERVICES.values() for word in shlex.split(words(service)) if word.startswith("stream_jobs.")
    ]
    assert {"stream_jobs.velocity", "stream_jobs.history", "training.prepare", "monitoring.monitor"} <= set(run)
    assert [module for module in run if importlib.util.find_spec(module.rstrip(";")) is None] == []


def test_prometheus_is_told_where_each_part_tells_its_metrics():
    told = json.loads((ROOT / "k8s" / "compose" / "targets.json").read_text())
    found = {entry["labels"]["job"]: entry["targets"] for entry in told}
    parts = ("service", *targets.METRICS_PORTS)
    ports = {"service": Settings.model_fields["port"].default} | {
        part: Settings.model_fields[field].default for part, field in targets.METRICS_PORTS.items()
    }
    assert found == {part: [f"{part}:{ports[part]}"] for part in parts}


def test_health_is_asked_where_the_code_answers():
    asked = {
        name: re.search(r"127\.0\.0\.1:(\d+)(/\w+)'", str(service["healthcheck"]["test"]))
        for name, service in of_ours()
        if "test" in service["healthcheck"] and not name.startswith("airflow")
    }
    found = {name: (int(at[1]), at[2]) for name, at in asked.items() if at is not None}
    fields = Settings.model_fields
    assert found == {
        "mlflow": (PORTS["mlflow"], "/health"),
        "service": (fields["port"].default, "/readyz"),
        "stream": (fields["stream_metrics_port"].default, "/metrics"),
        "decisions": (fields["decisions_metrics_port"].default, "/metrics"),
        "feedback": (fields["feedback_metrics_port"].default, "/metrics"),
        "monitor": (fields["monitor_port"].default, "/livez"),
    }


def test_prometheus_in_compose_is_the_local_one_at_other_addresses():
    ours = yaml.safe_load((ROOT / "k8s" / "compose" / "prometheus.yml").read_text())
    local = yaml.safe_load((ROOT / "monitoring" / "prometheus" / "prometheus.yml").read_text())
    assert ours["alerting"]["alertmanagers"] == [{"static_configs": [{"targets": ["alertmanager:9093"]}]}]
    for each in (ours, local):
        del each["alerting"]["alertmanagers"], each["global"]["external_labels"]
    assert ours == local
