"""Where the running parts of the local platform tell their metrics: a file that Prometheus's `file_sd_configs` reads.

Invariant: `<home>/prometheus/targets.json` names the parts that were started and not stopped, each by the label `job`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from feature_repo.settings import Settings

METRICS_PORTS = {
    "stream": "stream_metrics_port",
    "decisions": "decisions_metrics_port",
    "feedback": "feedback_metrics_port",
    "monitor": "monitor_port",
}
"""The setting of each part's own port; the service tells its metrics where it answers."""

ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


def targets(current: Settings, names: Iterable[str]) -> list[dict[str, Any]]:
    """An entry for each of these parts that tells metrics: `{"targets": ["host:port"], "labels": {"job": part}}`.

    Where the service has a certificate, its entry says so by the label `__scheme__`.
    """
    if not current.metrics:
        return []
    found = []
    for name in names:
        labels = {"job": name}
        if name == "service":
            host, port = current.host, current.port
            if current.tls_cert is not None:
                labels["__scheme__"] = "https"
        elif name in METRICS_PORTS:
            host, port = current.metrics_host, getattr(current, METRICS_PORTS[name])
        else:
            continue
        if port is not None:
            found.append({"targets": [f"{'127.0.0.1' if host in ANYWHERE else host}:{port}"], "labels": labels})
    return found


def targets_file(current: Settings) -> Path:
    """Where they are written."""
    return current.home / "prometheus" / "targets.json"


def write_targets(current: Settings, names: Iterable[str]) -> Path:
    """Replace the file by the targets of these parts."""
    path = targets_file(current)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(targets(current, names), indent=1))
    draft.replace(path)
    return path


def read_targets(current: Settings) -> list[dict[str, Any]]:
    """What was written last; nothing where no part was ever started."""
    path = targets_file(current)
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return found
