"""Kubernetes' manifests against the code, as far as it can be told without rendering them (tests/deploy does that)."""

from __future__ import annotations

import re
from pathlib import Path

from feature_repo.settings import ROOT, Settings
from k8s import generate

FILES = [
    path
    for path in (ROOT / "k8s").rglob("*")
    if path.suffix in (".yaml", ".env", ".conf", ".cfg", ".sh", ".py") and "secrets" not in path.parts
]


def test_every_fraud_variable_is_a_setting():
    known = {f"FRAUD_{name.upper()}" for name in Settings.model_fields} | {"FRAUD_SECRETS"}
    named = {name: path for path in FILES for name in re.findall(r"\bFRAUD_[A-Z_]+\b", path.read_text())}
    assert {name: path for name, path in named.items() if name not in known} == {}
    assert {"FRAUD_KAFKA_BOOTSTRAP", "FRAUD_API_KEYS", "FRAUD_WORKERS"} <= set(named)


def test_what_is_made_of_the_code_is_what_the_code_says():
    assert [path.name for path in generate.stale()] == []


def test_a_topic_that_is_not_as_the_code_says_is_found(tmp_path: Path, monkeypatch):
    for name, made in generate.MADE.items():
        (tmp_path / name).write_text(made())
    monkeypatch.setattr(generate, "PROD", tmp_path)
    assert generate.stale() == []
    (tmp_path / "topics.yaml").write_text(generate.kafka_topics().replace("partitions: 24", "partitions: 12", 1))
    assert [path.name for path in generate.stale()] == ["topics.yaml"]
