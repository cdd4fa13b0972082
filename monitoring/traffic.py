"""Show and set how champion and challenger share the traffic.

`python -m monitoring.traffic [--weight 0.1] [--shadow on|off] [--challenger-back] [--settings]`. The values are tags of
the registered model; every service that serves it follows within its poll (FRAUD_REGISTRY_POLL).
A tag that is not set leaves the service's own setting in force.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx

from feature_repo.settings import Settings, settings
from monitoring.controls import BACK_TAG, SHADOW_TAG, SWITCH, WEIGHT_TAG, InvalidControl, shadow_of, weight_of

API = "/api/2.0/mlflow/registered-models"
TIMEOUT_SECONDS = 10.0


class TrafficUnchanged(RuntimeError):
    """MLflow did not take or give the tags."""


class Traffic:
    """The traffic tags of one registered model."""

    def __init__(self, current: Settings, transport: httpx.BaseTransport | None = None) -> None:
        self._name, self._url = current.model_name, current.mlflow_url.rstrip("/")
        self._settings, self._transport = current, transport

    def show(self) -> str:
        """Who is champion and challenger, and what is in force, as text of a few lines."""
        found = self._call("GET", "get", {"name": self._name})["registered_model"]
        aliases = {one["alias"]: one["version"] for one in found.get("aliases", ())}
        tags = {one["key"]: one.get("value", "") for one in found.get("tags", ())}
        switch = "on" if self._settings.shadow else "off"
        rows = {
            "model": self._name,
            "champion": aliases.get("champion", "none"),
            "challenger": aliases.get("challenger", "none"),
            "weight": _told(tags, WEIGHT_TAG, str(self._settings.challenger_weight)),
            "shadow": _told(tags, SHADOW_TAG, switch),
            "called back": tags.get(BACK_TAG, "never"),
        }
        return "\n".join(f"{name:12} {value}" for name, value in rows.items())

    def set(self, tag: str, value: str) -> None:
        """Set a tag to a value that has been checked."""
        self._call("POST", "set-tag", {"name": self._name, "key": tag, "value": value})

    def unset(self, tag: str) -> None:
        """Leave it to the service's setting; a tag that is not set stays so."""
        try:
            self._call("DELETE", "delete-tag", {"name": self._name, "key": tag})
        except TrafficUnchanged as error:
            if "404" not in str(error):
                raise

    def _call(self, method: str, endpoint: str, fields: Mapping[str, str]) -> Any:
        given = {"params": dict(fields)} if method == "GET" else {"json": dict(fields)}
        try:
            with httpx.Client(base_url=self._url, timeout=TIMEOUT_SECONDS, transport=self._transport) as client:
                answer = client.request(method, f"{API}/{endpoint}", **given)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            raise TrafficUnchanged(
                f"MLflow at {self._url} does not answer: {error or type(error).__name__}. "
                "Start it, or set FRAUD_MLFLOW_URL to where it is."
            ) from error
        if answer.is_error:
            raise TrafficUnchanged(
                f"MLflow at {self._url} answers {answer.status_code} for model '{self._name}': {answer.text[:300]} "
                "FRAUD_MODEL_NAME must name a registered model."
            )
        return answer.json()


def _told(tags: Mapping[str, str], tag: str, setting: str) -> str:
    return tags.get(tag, f"{setting} (this shell's setting, no tag)")


def _checked(parse: Any) -> Any:
    def check(text: str) -> str:
        try:
            parse(text)
        except InvalidControl as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return check


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 done, 1 where MLflow refuses or is out of reach."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.traffic", description=__doc__)
    parser.add_argument("--weight", type=_checked(weight_of), help="share of payments the challenger answers, 0 to 1")
    parser.add_argument("--shadow", type=_checked(shadow_of), choices=SWITCH, help="score the others with it, unseen")
    parser.add_argument("--challenger-back", action="store_true", help="bring back a challenger that a guard took out")
    parser.add_argument("--settings", action="store_true", help="first remove the tags: the settings are in force")
    given = parser.parse_args(arguments)
    traffic = Traffic(settings())
    try:
        if given.settings:
            traffic.unset(WEIGHT_TAG)
            traffic.unset(SHADOW_TAG)
        if given.weight is not None:
            traffic.set(WEIGHT_TAG, given.weight)
        if given.shadow is not None:
            traffic.set(SHADOW_TAG, given.shadow)
        if given.challenger_back:
            traffic.set(BACK_TAG, datetime.now(UTC).isoformat())
        print(traffic.show())
    except TrafficUnchanged as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
