"""Prometheus and Alertmanager of this machine as parts of the platform: `processes up prometheus alertmanager`.

Their configuration is made anew at each start from the files beside this one, with this platform's addresses in it;
Prometheus finds the other parts by the file that the platform writes whenever one starts or stops.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from feature_repo.settings import ROOT, Settings
from monitoring.supervision import Part, PartFailed

SOURCES = ROOT / "monitoring"
UNPACKED = ROOT / ".tollgate" / "tools" / "usr" / "bin"
"""Where `.ci/ops-tools` puts the programs for a user who may not install them."""

NAMES = {"alertmanager": ("prometheus-alertmanager", "alertmanager")}
"""Programs that have another name in Debian."""

KEPT = "15d"


def program(name: str) -> str:
    """Path of a program of Prometheus's or Alertmanager's; raises `PartFailed`, with what to install."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), str(UNPACKED)))
    for known_as in NAMES.get(name, (name,)):
        if found := shutil.which(known_as, path=path):
            return found
    raise PartFailed(
        f"There is no '{name}' on PATH. Debian and Ubuntu have it: `sudo apt-get install prometheus "
        "prometheus-alertmanager`; without root, `.ci/ops-tools` unpacks both packages below .tollgate/tools."
    )


def prometheus(current: Settings) -> Part:
    """A Prometheus that scrapes every part that runs and evaluates the rules; it keeps 15 days."""
    folder = current.home.resolve() / "prometheus"
    address = _address(current.prometheus_url, "FRAUD_PROMETHEUS_URL", 9090)
    return _part(
        "prometheus",
        *(f"--config.file={_written(folder / 'prometheus.yml', prometheus_config(current))}",),
        *(f"--storage.tsdb.path={folder / 'data'}", f"--storage.tsdb.retention.time={KEPT}"),
        *("--web.listen-address={}:{}".format(*address), "--log.level=warn"),
        folder=folder,
        url=current.prometheus_url,
        address=address,
    )


def alertmanager(current: Settings) -> Part:
    """An Alertmanager of its own, without peers; it tells those whom the file FRAUD_ALERT_WEBHOOK names."""
    folder = current.home.resolve() / "alertmanager"
    address = _address(current.alertmanager_url, "FRAUD_ALERTMANAGER_URL", 9093)
    return _part(
        "alertmanager",
        *(f"--config.file={_written(folder / 'alertmanager.yml', alertmanager_config(current))}",),
        *(f"--storage.path={folder / 'data'}", "--cluster.listen-address="),
        *("--web.listen-address={}:{}".format(*address), "--log.level=warn"),
        folder=folder,
        url=current.alertmanager_url,
        address=address,
    )


def prometheus_config(current: Settings) -> dict[str, Any]:
    """The configuration with this platform's addresses."""
    made = _read(SOURCES / "prometheus" / "prometheus.yml")
    made["rule_files"] = [str(SOURCES / "prometheus" / file) for file in made["rule_files"]]
    made["global"]["external_labels"]["runbook"] = (
        f"http://{current.metrics_host}:{current.monitor_port}/docs/runbook.md"
    )
    made["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [urlsplit(current.alertmanager_url).netloc]
    return made


def alertmanager_config(current: Settings) -> dict[str, Any]:
    """The configuration with the address to tell; without one, alerts are to be seen at Alertmanager alone.

    Raises `PartFailed` for a file that cannot be read or holds no address.
    """
    made = _read(SOURCES / "alertmanager" / "alertmanager.yml")
    base = None if current.alert_webhook is None else _webhook(current.alert_webhook)
    for receiver in made["receivers"]:
        if base is None:
            del receiver["webhook_configs"]
        else:
            receiver["webhook_configs"][0]["url"] = f"{base.rstrip('/')}/{receiver['name']}"
    return made


def _webhook(file: Path) -> str:
    try:
        found = file.read_text().strip()
    except OSError as error:
        raise PartFailed(
            f"FRAUD_ALERT_WEBHOOK is {str(file)!r}: {error.strerror}. Name a file that holds a URL."
        ) from None
    if urlsplit(found).scheme not in {"http", "https"}:  # which may hold a secret, and so is not quoted
        raise PartFailed(f"FRAUD_ALERT_WEBHOOK is {str(file)!r}: its text is no http(s) URL; must be one, alone.")
    return found


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text())
    return found


def _written(path: Path, config: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)  # an address may hold a secret
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def _address(url: str, setting: str, default_port: int) -> tuple[str, int]:
    split = urlsplit(url)
    if split.hostname not in {"127.0.0.1", "localhost"}:
        raise PartFailed(f"{setting} is {url!r}: the local part runs on this machine; use 127.0.0.1.")
    return split.hostname, split.port or default_port


def _part(name: str, *options: str, folder: Path, url: str, address: tuple[str, int]) -> Part:
    from monitoring.parts import answers_ok  # which has this module's parts in its table

    return Part(
        name=name,
        command=(program(name), *options),
        folder=folder,
        url=url,
        ready=lambda: answers_ok(*address, "/-/ready"),
        address=address,
        setting=f"FRAUD_{name.upper()}_URL",
    )
