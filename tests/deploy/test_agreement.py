"""The manifests against what the code reads, serves and runs: names, ports, paths, secrets, commands, metrics."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from feature_repo.settings import ROOT, Settings, settings
from k8s.generate import literals
from monitoring.declaration import declared
from monitoring.jobs import JOBS
from monitoring.metrics import Catalogue
from tests.deploy.rendered import Object, containers, named, objects, pod, workloads

EVERYWHERE = [("local", "local"), ("prod", "prod"), ("prod", "prod-blue"), ("prod", "prod-green")]
"""A workload's overlay, and whose ConfigMap it reads: a colour brings its own."""

FIELDS = Settings.model_fields
PROBES = {
    "service": {"/readyz", "/livez"},
    "stream": {"/metrics"},
    "decisions": {"/metrics"},
    "feedback": {"/metrics"},
    "monitor": {"/metrics", "/livez"},
    "mlflow": {"/health", "/version"},
    "redis-primary": {"/readyz", "/livez"},
}
PORTS = {
    "service": FIELDS["port"].default,
    "stream": FIELDS["stream_metrics_port"].default,
    "decisions": FIELDS["decisions_metrics_port"].default,
    "feedback": FIELDS["feedback_metrics_port"].default,
    "monitor": FIELDS["monitor_port"].default,
}
ADDRESS = {
    "fraud_redis_url": "redis://:password@redis:6379/0",
    "fraud_postgres_url": "postgresql://tollgate:password@postgres:5432/tollgate",
    "fraud_log_key": "password",
}


def labels(workload: Object) -> dict[str, str]:
    spec = workload["spec"]
    template = spec["jobTemplate"]["spec"]["template"] if workload["kind"] == "CronJob" else spec["template"]
    found: dict[str, str] = template["metadata"]["labels"]
    return found


def colourless(name: str) -> str:
    return re.sub(r"-(blue|green)$", "", name)


def of_ours(*overlays: str) -> list[Object]:
    return [one for one in workloads(*overlays) if "tollgate/" in containers(one)[0]["image"]]


def environment(overlay: str, container: Object) -> dict[str, str]:
    """A container's variables: of the ConfigMap it names, and its own."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= next(
            one["data"] for one in objects(overlay) if one["metadata"]["name"] == source["configMapRef"]["name"]
        )
    return found | {one["name"]: one["value"] for one in container.get("env", ()) if "value" in one}


@pytest.mark.parametrize("overlay", ["local", "prod", "prod-blue", "prod-green"])
def test_each_process_reads_its_settings(overlay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, text in ADDRESS.items():
        (tmp_path / name).write_text(text)
    seen = 0
    for workload in of_ours(overlay):
        for container in containers(workload):
            given = environment(overlay, container)
            if "FRAUD_PROFILE" not in given:
                continue
            with monkeypatch.context() as changed:
                for name, value in given.items():
                    changed.setenv(name, value)
                assert given["FRAUD_SECRETS"] == "/etc/tollgate/secrets"
                changed.setenv("FRAUD_SECRETS", str(tmp_path))
                settings.cache_clear()
                found = settings()
            settings.cache_clear()
            seen += 1
            assert (found.profile, found.transport, found.redis_url) == ("full", "kafka", ADDRESS["fraud_redis_url"])
            assert str(found.home) in {mount["mountPath"] for mount in container["volumeMounts"]}
            assert urlsplit(found.mlflow_url).port == 5000
    assert seen >= (1 if overlay.startswith("prod-") else 10)


@pytest.mark.parametrize("overlay", ["local", "prod", "prod-blue", "prod-green"])
def test_ports_and_probes_are_those_that_the_code_serves(overlay: str):
    for workload in workloads(overlay):
        name = colourless(workload["metadata"]["name"])
        for container in pod(workload)["containers"]:
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
            if name in PORTS:
                assert PORTS[name] in ports.values(), name
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = container.get(probe, {})
                if "httpGet" in asked:
                    assert asked["httpGet"]["port"] in ports, (name, probe)
                    assert asked["httpGet"]["path"] in PROBES.get(name, {"/minio/health/ready"}), (name, probe)
                if "tcpSocket" in asked:
                    assert asked["tcpSocket"]["port"] in ports, (name, probe)


@pytest.mark.parametrize("together", [("local",), ("prod", "prod-blue"), ("prod", "prod-green")])
def test_every_service_leads_to_a_port_that_is_there(together: tuple[str, ...]):
    pods = [(labels(one), one) for one in workloads(*together)]
    for service in (one for one in objects(*together) if one["kind"] == "Service"):
        selector = dict(service["spec"]["selector"])
        if selector.get("tollgate/colour") == "blue" and "prod-green" in together:
            continue  # not the colour in force
        [behind] = [one for had, one in pods if selector.items() <= had.items()]
        ports = {
            key
            for container in pod(behind)["containers"]
            for port in container.get("ports", ())
            for key in (port["name"], port["containerPort"])
        }
        for port in service["spec"].get("ports", ()):
            assert port["targetPort"] in ports, service["metadata"]["name"]


@pytest.mark.parametrize("overlay", ["local", "prod", "prod-blue"])
def test_every_secret_that_is_asked_for_is_made_with_these_keys(overlay: str):
    made = {
        one["metadata"]["name"]: set(one.get("data", ())) for one in objects("local") if one["kind"] == "Secret"
    } if overlay == "local" else {
        one["metadata"]["name"]: set(one["spec"]["target"]["template"]["data"])
        for one in objects("prod")
        if one["kind"] == "ExternalSecret"
    }  # fmt: skip
    for workload in workloads(overlay):
        for volume in pod(workload).get("volumes", ()):
            if "secret" in volume:
                assert volume["secret"]["secretName"] in made, workload["metadata"]["name"]
        for container in containers(workload):
            for variable in container.get("env", ()):
                asked = variable.get("valueFrom", {}).get("secretKeyRef")
                if asked:
                    assert asked["key"] in made[asked["name"]]
    given = {re.sub(r"-\w{10}$", "", name): keys for name, keys in made.items()}
    assert given["tollgate"] == set(ADDRESS)
    assert {name.removeprefix("fraud_") for name in given["tollgate"]} <= set(FIELDS)
    assert given["api-keys"] == {"api_keys.json"}
    assert {"mlflow_database_url", "s3_credentials"} == given["mlflow"]


def test_addresses_are_those_of_the_stores():
    secrets = yaml.safe_dump(named("prod", "ExternalSecret", "tollgate"))
    names = {one["metadata"]["name"] for one in objects("prod") if one["kind"] == "Service"}
    cluster, kafka = named("prod", "Cluster", "postgres"), named("prod", "Kafka", "kafka")
    assert "@redis:6379" in secrets
    assert {"redis", "mlflow"} <= names
    assert f"@{cluster['metadata']['name']}-rw:5432/{cluster['spec']['bootstrap']['initdb']['database']}" in secrets
    [listener] = kafka["spec"]["kafka"]["listeners"]
    assert literals()["FRAUD_KAFKA_BOOTSTRAP"] == f"{kafka['metadata']['name']}-kafka-bootstrap:{listener['port']}"


@pytest.mark.parametrize("together", [("local",), ("prod", "prod-blue")])
def test_network_policies_name_pods_and_ports_that_exist(together: tuple[str, ...]):
    found = workloads(*together)
    values = {value for one in found for value in labels(one).values()}
    if "prod" in together:
        values |= {"kafka", "postgres", "minio"}  # pods that operators make, and a bucket that is none
    ports = {
        port["containerPort"] for one in found for container in containers(one) for port in container.get("ports", ())
    }
    of_operators = {5432, 8000, 9187, 9090, 9091, 9092, 8443, 9000}
    for policy in (one for one in objects(*together) if one["kind"] == "NetworkPolicy"):
        rules = [*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ())]
        for port in (port for rule in rules for port in rule.get("ports", ())):
            assert port["port"] in ports | of_operators | {53, 443, 6443}, policy["metadata"]["name"]
        peers = [peer for rule in rules for peer in (*rule.get("from", ()), *rule.get("to", ()))]
        for selector in [
            policy["spec"]["podSelector"],
            *(peer["podSelector"] for peer in peers if "podSelector" in peer),
        ]:
            asked = set(selector.get("matchLabels", {}).values()) - {"kube-dns"}
            for expression in selector.get("matchExpressions", ()):
                asked |= set(expression["values"])
            assert asked <= values, policy["metadata"]["name"]


@pytest.mark.parametrize("overlay", ["local", "prod"])
def test_schedules_run_the_commands_of_the_jobs(overlay: str):
    crons = {one["metadata"]["name"]: pod(one)["containers"][0] for one in objects(overlay) if one["kind"] == "CronJob"}
    scheduled = [job for job in JOBS if job.every(Settings()) is not None]
    assert set(crons) == {job.name for job in scheduled} | {"publish", "retrain", "first-model"}
    for job in scheduled:
        assert crons[job.name]["command"] == ["python", *job.command[1:]]
    text = " ".join(word for one in crons.values() for word in (*one["command"], *one.get("args", ())))
    modules = re.findall(r"-m ([\w.]+)", text)
    modules += re.findall(r"from (training\.\w+) import", text)
    assert len(modules) == len(crons)
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []
    off = environment(overlay, pod(named(overlay, "Deployment", "monitor"))["containers"][0])
    assert {off[f"FRAUD_{job.period.upper()}"] for job in scheduled} == {"null"}


def test_airflow_runs_what_the_cron_jobs_run():
    """As modules: a round of retraining is one command in a CronJob, and in Airflow the same one step by step."""
    text = (ROOT / "k8s" / "workflows" / "tollgate.py").read_text()
    crons = [pod(one)["containers"][0]["command"] for one in objects("prod") if one["kind"] == "CronJob"]
    modules = {command[2] for command in crons if command[1] == "-m"}
    assert {module for module in modules if f'"{module}' not in text} == set()
    [retrain] = [command for command in crons if "training.retrain" in command]
    assert f'Param("{" ".join(retrain[3:])}"' in text, "due by the same rule"


def test_airflow_is_of_the_version_that_the_workflows_are_run_with():
    pinned = (ROOT / "k8s" / "images" / "airflow-requirements.txt").read_text()
    [version] = re.findall(r"^apache-airflow==(\S+)$", pinned, re.MULTILINE)
    assert f"apache-airflow[postgres]=={version}'" in (ROOT / "Makefile").read_text()
    assert "--python /opt/airflow -r /opt/airflow-requirements.txt" in (ROOT / "k8s/images/jobs.Dockerfile").read_text()


def test_the_autoscaler_s_metric_is_made_of_one_that_is_counted():
    adapter = yaml.safe_load((ROOT / "k8s" / "overlays" / "prod" / "prometheus-adapter.yaml").read_text())
    [rule] = adapter["rules"]["custom"]
    kinds = {entry.name: entry.kind for entry in declared(Catalogue)}
    series = rule["seriesQuery"].split("{")[0]
    assert kinds[series.removesuffix("_sum")] == "histogram"
    metrics = named("prod-blue", "HorizontalPodAutoscaler", "service")["spec"]["metrics"]
    assert [one["pods"]["metric"]["name"] for one in metrics if one["type"] == "Pods"] == [rule["name"]["as"]]


def test_prometheus_finds_each_part_that_tells_metrics():
    monitor = named("prod", "ServiceMonitor", "tollgate")["spec"]
    [selected] = monitor["selector"]["matchExpressions"]
    services = [one for one in objects("prod", "prod-blue") if one["kind"] == "Service"]
    found: dict[str, Any] = {
        one["metadata"]["labels"]["app.kubernetes.io/name"]: {port["name"] for port in one["spec"].get("ports", ())}
        for one in services
        if one["metadata"].get("labels", {}).get(selected["key"]) in selected["values"]
    }
    assert set(found) == set(selected["values"]) == set(PORTS)
    asked = {endpoint["port"] for endpoint in monitor["endpoints"]}
    assert {name for name, ports in found.items() if not ports & asked} == set()


@pytest.mark.parametrize("overlay", ["local", "prod", "prod-blue", "prod-green"])
def test_every_pod_is_as_restricted_asks_and_pinned(overlay: str):
    for workload in workloads(overlay):
        name, spec = workload["metadata"]["name"], pod(workload)
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        for container in containers(workload):
            held = container["securityContext"]
            assert held["allowPrivilegeEscalation"] is False, name
            assert held["capabilities"] == {"drop": ["ALL"]}, name
            assert held["readOnlyRootFilesystem"] is (name != "kafka"), name
            assert re.search(r":(?!latest)[\w.-]*\d[\w.-]*$", container["image"]), name
            assert {"cpu", "memory", "ephemeral-storage"} == set(container["resources"]["requests"]), name
    assert (
        named("prod", "Namespace", "tollgate")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )


def test_the_colours_are_alike_but_for_the_colour():
    blue, green = (yaml.safe_dump_all(objects(f"prod-{colour}")) for colour in ("blue", "green"))
    plain = [
        re.sub(r"-[a-z0-9]{10}\b", "", text.replace(colour, "x")) for text, colour in ((blue, "blue"), (green, "green"))
    ]
    assert plain[0] == plain[1]


def test_what_is_made_of_the_code_is_applied():
    kinds = [one["kind"] for one in objects("prod")]
    rules = list((ROOT / "monitoring" / "prometheus" / "rules").glob("*.yml"))
    assert kinds.count("PrometheusRule") == len(rules) > 0
    assert kinds.count("KafkaTopic") == 5
