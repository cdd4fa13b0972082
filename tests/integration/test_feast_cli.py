"""Feast by hand, as its documentation would have it: the `feast` command in `feature_repo/`, against a real Redis."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import redis
import yaml
from google.protobuf.json_format import MessageToDict

from feature_repo.context import AT
from feature_repo.schema import HISTORY_SCHEMA
from feature_repo.settings import REPO, Settings
from feature_repo.store import apply, feature_store
from feature_repo.vector import FEATURE_SERVICE
from feature_repo.window_state import to_us
from training import backfill, batch

Done = subprocess.CompletedProcess[str]
FEAST = Path(sys.executable).with_name("feast")
YAML_VARIABLE = "FEAST_FS_YAML_FILE_PATH"
NOW = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
"""Noon of yesterday: `materialize-incremental` reaches back a year from today."""

DATABASE = 3
"""The Redis is the whole session's; these tests empty a database of their own."""

PAYMENTS = [  # card, merchant, ago, amount, is_fraud
    ("card-1", "shop", timedelta(minutes=10), 10.0, 0),
    ("card-1", "cafe", timedelta(hours=2), 30.0, 0),
    ("card-2", "shop", timedelta(hours=3), 7.0, 0),
    ("card-1", "shop", timedelta(days=3), 50.0, 0),
    ("card-2", "shop", timedelta(days=9), 500.0, 1),
    ("card-1", "shop", timedelta(days=10), 20.0, 0),
]


class Workplace:
    """A home with the committed `feature_store.yaml`, but for where Redis, registry and history are."""

    def __init__(self, home: Path, redis_url: str, registry: str | None = None) -> None:
        host = redis_url.removeprefix("redis://").split("/")[0]
        self.settings = Settings(home=home, redis_url=f"redis://{host}/{DATABASE}", registry_url=registry)
        self.yaml = home / "store.yaml"
        content = yaml.safe_load((REPO / "feature_store.yaml").read_text())
        content["registry"]["path"] = self.settings.registry
        content["online_store"]["connection_string"] = f"{host},db={DATABASE}"
        content["offline_store"]["path"] = str(self.settings.offline_path)
        home.mkdir(exist_ok=True)
        self.yaml.write_text(yaml.safe_dump(content))

    def feast(
        self, *arguments: str, folder: Path = REPO, by_variable: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run the command there; the file is named by option, or by the environment."""
        named = [] if by_variable else ["-f", str(self.yaml)]
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        if by_variable:
            environment[YAML_VARIABLE] = str(self.yaml)
        return subprocess.run(
            [str(FEAST), *named, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def registered(self) -> Any:
        """Everything in the registry but for the instants at which it was written."""
        return _undated(MessageToDict(feature_store(self.settings).registry.proto()))

    def online(self, at: datetime, **keys: str) -> dict[str, Any]:
        """What the feature service gives for a payment of 40.00 at an instant."""
        request = {AT: to_us(at), "amount": 40.0, "merchant_category": "grocery", "country": "GB", "channel": "pos"}
        store = feature_store(self.settings)
        service = store.get_feature_service(FEATURE_SERVICE)
        found = store.get_online_features(service, [keys | request]).to_dict()
        return {name: values[0] for name, values in found.items()}

    def empty(self) -> None:
        with redis.Redis.from_url(self.settings.redis_url) as client:
            client.flushdb()


def _undated(part: Any) -> Any:
    if isinstance(part, dict):
        return {name: _undated(value) for name, value in part.items() if not name.endswith(("Timestamp", "Updated"))}
    return sorted((_undated(each) for each in part), key=str) if isinstance(part, list) else part


def succeeded(done: Done) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("cli"), redis_server)
    succeeded(place.feast("apply"))
    return place


@pytest.fixture(scope="module")
def loaded(applied: Workplace) -> Iterator[Workplace]:
    """Applied, with a history of six payments, their labels and two days of profiles."""
    rows = pd.DataFrame(PAYMENTS, columns=["card_id", "merchant_id", "ago", "amount", "is_fraud"])
    rows["timestamp"] = (NOW - rows.pop("ago")).astype("datetime64[us, UTC]")
    rows = rows.assign(transaction_id=[f"t{n}" for n in range(len(rows))], ingested_at=rows["timestamp"])
    rows = rows.reindex(columns=[*HISTORY_SCHEMA.names, "is_fraud"]).sort_values("timestamp", ignore_index=True)
    optional = [field.name for field in HISTORY_SCHEMA if field.nullable]
    rows[optional] = rows[optional].astype(object).where(rows[optional].notna(), None)
    backfill.load(rows, applied.settings, "history")
    batch.publish(applied.settings, batch.midnights(NOW - timedelta(days=1), NOW), None, "history")
    applied.empty()
    yield applied
    applied.empty()


def test_history_that_is_missing_is_named_with_the_way_out(applied: Workplace, tmp_path: Path):
    bare = Workplace(tmp_path, applied.settings.redis_url, applied.settings.registry)
    done = bare.feast("materialize-incremental", f"{NOW:%FT%T}")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "MissingTable: Table '" in last
    assert f"there is no history at {bare.settings.offline_path}" in last
    assert last.endswith("Load some first: `make up`, or `python -m training.backfill`.")


def test_applying_again_changes_nothing(applied: Workplace):
    before = applied.registered()
    assert {view["spec"]["name"] for view in before["streamFeatureViews"]} == {
        "card_velocity",
        "merchant_velocity",
        "merchant_risk",
    }
    succeeded(applied.feast("apply", by_variable=True))
    assert applied.registered() == before


def test_what_was_applied_is_what_the_platform_applies_itself(applied: Workplace, tmp_path: Path):
    other = Settings(home=tmp_path, redis_url=applied.settings.redis_url)
    apply(other)
    assert _undated(MessageToDict(feature_store(other).registry.proto())) == applied.registered()


@pytest.mark.parametrize(
    ("listing", "names"),
    [
        ("stream-feature-views", {"card_velocity", "merchant_velocity", "merchant_risk"}),
        ("feature-services", {"fraud_v1", "fraud_v2", "fraud_request_v1"}),
    ],
)
def test_feast_lists_what_was_applied(applied: Workplace, listing: str, names: set[str]):
    listed = succeeded(applied.feast(listing, "list")).splitlines()
    assert {line.split()[0] for line in listed[1:] if line[:1].strip()} >= names


def test_materialize_incremental_puts_finished_windows_online(loaded: Workplace):
    loaded.empty()
    succeeded(loaded.feast("materialize-incremental", f"{NOW:%FT%T}", by_variable=True))
    found = loaded.online(NOW, card_id="card-1", merchant_id="shop")
    expected = {
        "card_count_5m": 0,
        "card_count_1h": 1,
        "card_count_24h": 2,
        "card_count_7d": 3,
        "card_count_30d": 4,
        "card_sum_amount_24h": 40.0,
        "card_mean_amount_7d": 30.0,
        "card_max_amount_30d": 50.0,
        "card_nunique_merchant_id_24h": 2,
        "card_seconds_since_last": 600.0,
        "merchant_count_24h": 2,
        "merchant_nunique_card_id_30d": 2,
        "merchant_count_is_fraud_24h": 0,
        "merchant_count_is_fraud_7d": 2,
        "merchant_mean_is_fraud_7d": 0.5,
        "amount": 40.0,
        "card_amount_to_max_30d": 0.8,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["card_count_90d"] == 2, "of the last midnight's profile"
    unknown = loaded.online(NOW, card_id="nobody", merchant_id="nowhere")
    assert (unknown["card_count_30d"], unknown["merchant_count_30d"]) == (0, 0)
    for name in ("card_mean_amount_30d", "card_seconds_since_last", "card_count_90d"):
        assert unknown[name] is None


def test_materialize_of_a_period_gives_the_state_at_its_end(loaded: Workplace):
    loaded.empty()
    until = NOW - timedelta(days=1)
    succeeded(loaded.feast("materialize", f"{NOW - timedelta(days=5):%FT%T}", f"{until:%FT%T}"))
    found = loaded.online(until, card_id="card-1", merchant_id="shop")
    assert (found["card_count_24h"], found["card_count_7d"], found["card_count_30d"]) == (0, 1, 2)
    assert found["card_seconds_since_last"] == 2 * 86_400
    untouched = loaded.online(until, card_id="card-2", merchant_id="nowhere")
    assert untouched["card_count_30d"] == 0, "card-2 had no event in the period"


def test_an_aggregation_that_the_engine_cannot_execute_is_refused_with_those_it_can(applied: Workplace, tmp_path: Path):
    before = applied.registered()
    text = (REPO / "definitions.py").read_text()
    assert '("std", "amount")' in text
    (tmp_path / "definitions.py").write_text(text.replace('("std", "amount")', '("median", "amount")'))
    done = applied.feast("apply", folder=tmp_path)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "View 'card_velocity': aggregation median(amount) is not supported" in last
    assert last.endswith("Supported: count, sum, mean, std, min, max, nunique, seconds_since_last.")
    assert applied.registered() == before


def test_the_committed_file_names_the_default_addresses_of_the_platform():
    """So that `cd feature_repo && feast apply` meets what `make up` started, without a setting."""
    content = yaml.safe_load((REPO / "feature_store.yaml").read_text())
    unset = Settings.model_construct()
    host = unset.redis_url.removeprefix("redis://").split("/")[0]
    assert content["online_store"]["connection_string"] == f"{host},db=0"
    registry = Path(content["registry"]["path"].removeprefix("sqlite:///"))
    assert (REPO / registry).resolve() == unset.home.resolve() / "registry.db"
    assert (REPO / content["offline_store"]["path"]).resolve() == unset.offline_path.resolve()
