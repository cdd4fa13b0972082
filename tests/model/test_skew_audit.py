"""The skew audit finds nothing on a clean platform, and names what is served otherwise than training would make it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
import redis

from feature_repo.historical import vectors
from feature_repo.schema import FIELDS
from feature_repo.settings import Settings
from feature_repo.store import apply
from feature_repo.vector import FEATURE_SERVICE
from monitoring import job_results
from monitoring.decision_log import LoggedDecision
from monitoring.skew import beyond_rounding, unequal
from tests.integration.decisions import log
from tests.model.conftest import Past
from training import skew_audit
from training.hindsight import payments

ROWS = 300


@dataclass(frozen=True)
class Served:
    """Payments of the last days with the vectors that an honest service saw, and their stale ones of a day before."""

    past: Past
    settings: Settings
    rows: pd.DataFrame
    vectors: np.ndarray
    stale: np.ndarray
    columns: tuple[str, ...]

    def place(self, name: str) -> int:
        return self.columns.index(name)


@pytest.fixture(scope="module")
def served(past: Past, redis_server: str) -> Served:
    current = past.settings.model_copy(update={"redis_url": redis_server, "decisions_stream": "skew-decisions"})
    rows = payments(past.store, past.settings, past.end - timedelta(days=3), past.end).head(ROWS)
    found, columns = vectors(past.store, rows)
    stale, _ = vectors(past.store, rows.assign(timestamp=rows["timestamp"] - timedelta(days=1)))
    return Served(past, current, rows, found, stale, columns)


def decide(served: Served, changed: Callable[[np.ndarray], None], cause: str | None = None) -> None:
    """Log a decision on each payment, made on its vector after a change."""
    online = served.vectors.copy()
    changed(online)
    made = []
    for place, row in enumerate(served.rows.to_dict("records")):
        request = {name: row[name] for name in FIELDS if name in row and pd.notna(row[name])}
        at = row["timestamp"].isoformat()
        answer = {
            "transaction_id": row["transaction_id"], "fraud_probability": 0.1, "decision": "approve", "timestamp": at,
            "model_name": "m", "model_version": "1", "model_role": "champion", "degraded_cause": cause,
        }  # fmt: skip
        sent = json.dumps(request | {"timestamp": at}).encode()
        made.append(LoggedDecision(str(place), sent, online[place], json.dumps(answer).encode(), FEATURE_SERVICE))
    with redis.Redis.from_url(served.settings.redis_url) as client:
        client.delete(served.settings.decisions_stream)
    log(served.settings, made)


def audited(served: Served) -> dict:
    return skew_audit.run(served.settings, served.past.end, days=4, rows=1_000, settle=0)


def test_a_clean_platform_has_no_skew(served: Served):
    decide(served, lambda online: None)
    found = audited(served)
    assert (found["audited"], found["different"], found["values_rounded_otherwise"]) == (ROWS, 0, 0)
    result = job_results.read(served.settings.home, skew_audit.JOB)
    assert result is not None
    shares = {one.labels["feature"]: one.value for one in result.gauges if one.metric == "skew_mismatches"}
    assert shares == dict.fromkeys(served.columns, 0.0)
    assert "**0 vectors differ.**" in (served.settings.home / "monitoring" / "skew" / "skew.md").read_text()


def test_a_feature_that_is_scaled_is_named(served: Served):
    place = served.place("card_sum_amount_7d")

    def scaled(online: np.ndarray) -> None:
        online[:, place] *= np.float32(1.00001)

    decide(served, scaled)
    found = audited(served)
    paid = int((served.vectors[:, place] > 0).sum())
    assert found["by_feature"] == {"card_sum_amount_7d": paid}
    assert paid > 100
    assert found["examples"][0]["feature"] == "card_sum_amount_7d"
    result = job_results.read(served.settings.home, skew_audit.JOB)
    assert result is not None
    assert max(result.gauges, key=lambda one: one.value if one.metric == "skew_mismatches" else 0).labels == {
        "feature": "card_sum_amount_7d"
    }


def test_a_window_that_counts_the_payment_itself_is_named(served: Served):
    def off_by_one(online: np.ndarray) -> None:
        online[:, served.place("card_count_24h")] += 1

    decide(served, off_by_one)
    assert audited(served)["by_feature"] == {"card_count_24h": ROWS}


def test_a_stale_state_is_named_by_its_features(served: Served):
    stored = [place for place, name in enumerate(served.columns) if name.startswith("merchant_count_")]

    def stale(online: np.ndarray) -> None:
        online[:, stored] = served.stale[:, stored]

    decide(served, stale)
    found = audited(served)
    assert found["different"] > ROWS / 2
    assert set(found["by_feature"]) <= {served.columns[place] for place in stored}
    assert "merchant_count_24h" in found["by_feature"]
    text = (served.settings.home / "monitoring" / "skew" / "skew.md").read_text()
    assert "| `merchant_count_24h` |" in text


def test_what_was_known_to_be_degraded_is_left_out_and_counted(served: Served):
    decide(served, lambda online: online.fill(7), cause="stale_features")
    found = audited(served)
    assert (found["audited"], found["left_out"]) == (0, {"stale_features": ROWS})


def test_only_a_neighbour_in_float32_counts_as_rounding():
    found = np.array([[1.0, 3.0, np.nan, 1e6, 2.0]], np.float32)
    online = np.array([[np.nextafter(np.float32(1), np.float32(2)), 4.0, 0.0, 1e6, 2.0]], np.float32)
    assert unequal(online, found).tolist() == [[True, True, True, False, False]]
    assert beyond_rounding(online, found).tolist() == [[False, True, True, False, False]]
    online[0, 0] = np.nextafter(online[0, 0], np.float32(2))
    assert beyond_rounding(online, found)[0, 0]


def test_without_history_the_audit_says_so_and_fails(
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path_factory: pytest.TempPathFactory,
):
    decide(served, lambda online: None)

    elsewhere = served.settings.model_copy(update={"home": tmp_path_factory.mktemp("no-history")})
    apply(elsewhere)
    monkeypatch.setattr(skew_audit, "settings", lambda: elsewhere)
    assert skew_audit.main(["--at", served.past.end.isoformat(), "--days", "4", "--settle", "0"]) == 1
    assert "The skew audit could not run. MissingTable" in capsys.readouterr().err
