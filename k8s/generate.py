"""Manifests that follow from the code: Kafka's topics, and the alerts as Prometheus's operator takes them.

python -m k8s.generate            writes them into k8s/overlays/prod
python -m k8s.generate --check    exit code 1 where one is not what the code says now
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from feature_repo.settings import ROOT, Settings
from stream_jobs.topics import topics

PROD = ROOT / "k8s" / "overlays" / "prod"
CONFIG = ROOT / "k8s" / "overlays" / "prod-config" / "kustomization.yaml"
RULES = ROOT / "monitoring" / "prometheus" / "rules"
CLUSTER = "kafka"
REPLICAS = 3
HEAD = "# Made by `python -m k8s.generate` from {source}: change that, and make this anew.\n"


def literals() -> dict[str, str]:
    """The variables that overlays/prod-config sets."""
    [generated] = yaml.safe_load(CONFIG.read_text())["configMapGenerator"]
    return dict(line.split("=", 1) for line in generated["literals"])


def kafka_topics() -> str:
    """Each topic of `stream_jobs.topics` with as many partitions as the overlay says, as Strimzi's KafkaTopic."""
    current = Settings(kafka_partitions=int(literals()["FRAUD_KAFKA_PARTITIONS"]))
    found = [
        {
            "apiVersion": "kafka.strimzi.io/v1",
            "kind": "KafkaTopic",
            "metadata": {"name": topic.name, "labels": {"strimzi.io/cluster": CLUSTER}},
            "spec": {
                "partitions": topic.partitions,
                "replicas": REPLICAS,
                "config": {name: int(value) if value.lstrip("-").isdigit() else value for name, value in
                           {**topic.options, "min.insync.replicas": "2"}.items()},
            },
        }
        for topic in topics(current)
    ]  # fmt: skip
    return _text("stream_jobs/topics.py", found)


def prometheus_rules() -> str:
    """Each file of `monitoring/prometheus/rules` as a PrometheusRule of the same name."""
    found = [
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": f"tollgate-{path.stem}", "labels": {"release": "prometheus"}},
            "spec": yaml.safe_load(path.read_text()),
        }
        for path in sorted(RULES.glob("*.yml"))
    ]
    return _text("monitoring/prometheus/rules", found)


def _text(source: str, found: list[dict[str, Any]]) -> str:
    return HEAD.format(source=source) + yaml.safe_dump_all(found, sort_keys=False, width=120, allow_unicode=True)


MADE: Mapping[str, Callable[[], str]] = {"topics.yaml": kafka_topics, "prometheus-rules.yaml": prometheus_rules}


def stale() -> list[Path]:
    """The files that are not there, or not what the code says now."""
    paths = {PROD / name: made for name, made in MADE.items()}
    return [path for path, made in paths.items() if not path.exists() or path.read_text() != made()]


def main() -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m k8s.generate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where something would change")
    old = stale()
    if parser.parse_args().check:
        for path in old:
            print(f"{path.relative_to(ROOT)} is not what the code says now: run `python -m k8s.generate`.")
        return 1 if old else 0
    for path in old:
        path.write_text(MADE[path.name]())
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
