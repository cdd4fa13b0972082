"""Promotion and rollback under load: no request fails, and the service follows each move of the champion.

The versions are judged by the real gates, on payments whose fraud follows the tiny model's own curve.
"""

from __future__ import annotations

import io
import itertools
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests import tiny_model
from tests.chaos.conftest import NIGHTLY
from tests.chaos.load import DUE, Load
from tests.chaos.stage import BIAS, Stage
from tests.chaos.test_models_change import _alone, versions_by_lane, whole
from tests.chaos.verdict import judge
from training.dataset import TrainingSet
from training.evidence import EVIDENCE_FILE, REFERENCE_FILE
from training.promote import Conditions, promote, rollback
from training.versions import Versions
from training.window import Window, of_data

ROUNDS = 7 if NIGHTLY else 1
BEGIN, ROWS = datetime(2026, 2, 1, tzinfo=UTC), 4_000
UNTRUE = BIAS - 1.5
"""A bias with which the tiny model expects a fourth of the frauds there are, and stops none of them."""


def payments(columns: tuple[str, ...], seed: int) -> TrainingSet:
    """Two weeks of payments, all alike but for their amounts."""
    random = np.random.default_rng(seed)
    amount = random.gamma(1.5, 30.0, ROWS)
    vectors = np.zeros((ROWS, len(columns)), np.float32)
    vectors[:, columns.index("amount")] = amount
    rows = pd.DataFrame(
        {
            "transaction_id": [f"past-{number}" for number in range(ROWS)],
            "card_id": [f"card-{card}" for card in random.integers(1_000, size=ROWS)],
            "timestamp": BEGIN + pd.to_timedelta(np.sort(random.random(ROWS)) * 14, unit="D"),
            "amount": amount,
            "channel": "pos",
            "card_days": 100.0,
            "is_fraud": (random.random(ROWS) < 1 / (1 + np.exp(-(amount / 100 + BIAS)))).astype("int8"),
        }
    )
    return TrainingSet(rows, vectors, columns)


def evidence(columns: tuple[str, ...]) -> dict[str, bytes]:
    """What a version takes along beside its graph and parity sample."""
    trained, out = payments(columns, seed=2), io.BytesIO()
    frame = pd.DataFrame(trained.vectors, columns=list(columns))
    frame.assign(is_fraud=trained.rows["is_fraud"]).to_parquet(out)
    return {REFERENCE_FILE: out.getvalue(), EVIDENCE_FILE: json.dumps({"earlier_fold": {"auc_roc": 0.6}}).encode()}


class Challengers:
    """Versions of the stage's model, with all the evidence that the gates ask for."""

    def __init__(self, stage: Stage) -> None:
        assert stage.contract is not None
        self.stage, columns = stage, stage.contract.columns
        self.beside = evidence(columns)
        self.window: Window = of_data(payments(columns, seed=1), BEGIN, BEGIN + timedelta(days=14), datetime.now(UTC))

    def publish(self, bias: float, alias: str) -> str:
        current = self.stage.settings
        assert self.stage.contract is not None
        files = tiny_model.files(self.stage.contract, bias) | self.beside
        version = tiny_model.publish(current.mlflow_url, current.model_name, files, alias)
        self.stage.biases[current.model_name, version] = bias
        return version


@pytest.fixture
def challengers(stage: Stage) -> Iterator[Challengers]:
    yield Challengers(stage)
    versions = Versions(stage.settings)
    if "challenger" in versions.aliases():
        versions.client.delete_registered_model_alias(versions.name, "challenger")


def test_a_promotion_and_its_rollback_under_load_fail_no_request(
    stage: Stage, challengers: Challengers, tell: Callable[[str], None]
) -> None:
    said, took = [challengers.publish(BIAS, "champion")], list[float]()
    with Load(stage.settings) as load:

        def followed(version: str) -> None:
            """The service answers with this champion; notes how long after the move it first did."""
            said.append(version)
            moved = time.monotonic()
            load.settle(lambda one: one.ok and one.told["model_version"] in (version, *_alone(one)), 2 * DUE)
            first = next(one for one in load.since(moved) if one.told["model_version"] == version)
            took.append(first.sent + first.took - moved)

        followed(said[0])
        assert whole(load.answered[-1])
        for turn in range(ROUNDS):
            before = said[-1]
            bad = challengers.publish(UNTRUE, "challenger")
            load.run_until(lambda of=bad: _challenger(stage) == of)
            blocked = promote(stage.settings, None, Conditions(window=challengers.window))
            assert (blocked.event, blocked.verdict.blocked_by) == (None, ("calibration", "thresholds"))
            load.more()
            good = challengers.publish(BIAS + 0.01 * (turn + 1), "challenger")
            load.run_until(lambda of=good: _challenger(stage) == of)
            outcome = promote(stage.settings, None, Conditions(window=challengers.window))
            assert outcome.event is not None, outcome.verdict
            followed(good)
            assert rollback(stage.settings, reason="a drill").version == before
            followed(before)
            assert rollback(stage.settings, undo=True).version == good
            followed(good)
    stage.drained()
    assert {one.status for one in load.replies} == {200}
    verdict = judge(load.replies, stage.record(), stage.biases)
    tell(
        verdict.line(f"{ROUNDS} promotions, each rolled back and the rollback undone, {ROUNDS} blocked", 0)
        + f"; followed after {np.median(took[1:]):.2f} s, at most {max(took[1:]):.2f} s"
    )
    assert verdict.faults == {}
    assert all(_in_order(versions, [int(one) for one in said]) for versions in versions_by_lane(load.replies))
    actions = [event.action for event in Versions(stage.settings).events()]
    assert actions == ["blocked", "promoted", "rolled back", "rollback undone"] * ROUNDS


def _challenger(stage: Stage) -> str | None:
    card: dict[str, Any] = stage.get("/model").json()
    return None if card["challenger"] is None else str(card["challenger"]["version"])


def _in_order(versions: list[int], said: list[int]) -> bool:
    """Whether what a worker answered with followed the moves: none left out, none out of turn."""
    seen = [version for version, _ in itertools.groupby(versions)]
    wanted = [version for version, _ in itertools.groupby(said)]
    return seen in (wanted, wanted[1:]) or seen[1:] == wanted
