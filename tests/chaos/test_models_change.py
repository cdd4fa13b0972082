"""The registry away, and the champion swapped under load: no request notices but by the version in its answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import httpx

from feature_repo.contract import ONNX_FILE
from monitoring.processes import Platform
from tests.chaos.conftest import NIGHTLY
from tests.chaos.load import DUE, Load, Reply
from tests.chaos.stage import BIAS, NOBODY, Stage
from tests.chaos.verdict import judge

SWAPS = 20 if NIGHTLY else 5


def whole(one: Reply) -> bool:
    return one.ok and not one.told["degraded"]


def test_without_mlflow_and_without_postgres_answers_go_on(
    stage: Stage, servers: Platform, tell: Callable[[str], None]
) -> None:
    assert stage.settings.postgres_url == NOBODY
    with Load(stage.settings) as load:
        load.settle(whole)
        servers.stop("mlflow")
        try:
            load.run_until(lambda: not stage.get("/model").json()["registry_reachable"])
            load.settle(whole, 3 * DUE)
            card = stage.get("/model").json()
            assert (card["registry_reachable"], card["source"]) == (False, "registry")
            assert stage.get("/readyz").status_code == 200
            [told] = load.answered[-1:]
            assert stage.get(f"/decisions/{told.transaction_id}").status_code == 200
        finally:
            servers.start("mlflow")
        load.run_until(lambda: stage.get("/model").json()["registry_reachable"])
    stage.drained()
    assert {one.status for one in load.replies} == {200}
    verdict = judge(load.replies, stage.record(), stage.biases)
    tell(verdict.line("MLflow stopped, no Postgres", 0))
    assert verdict.faults == {}


def versions_by_lane(replies: Sequence[Reply]) -> list[list[int]]:
    """The champion's versions in the order of the answers, for each connection."""
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for one in replies:
        if one.told["model_role"] == "champion":
            found[one.lane].append(int(one.told["model_version"]))
    return list(found.values())


def test_swaps_under_load_fail_no_request_and_a_broken_version_changes_nothing(
    stage: Stage, tell: Callable[[str], None]
) -> None:
    said: list[int] = []
    with Load(stage.settings) as load:
        load.settle(whole)
        for swap in range(SWAPS):
            version = stage.publish(BIAS - 0.1 * (swap + 1))
            said.append(int(version))
            load.settle(lambda one, of=version: one.ok and one.told["model_version"] in (of, *_alone(one)), 3 * DUE)
            if swap == SWAPS // 2:
                broken = stage.publish(BIAS, **{ONNX_FILE: b"no graph"})
                load.run_until(lambda of=broken: all(_refuses(stage.get("/model"), of) for _ in range(12)))
                load.settle(lambda one, of=version: one.ok and one.told["model_version"] in (of, *_alone(one)))
    stage.drained()
    assert {one.status for one in load.replies} == {200}
    verdict = judge(load.replies, stage.record(), stage.biases)
    lanes = versions_by_lane(load.replies)
    tell(verdict.line(f"{SWAPS} swaps of the champion, one broken version between", 0))
    assert verdict.faults == {}
    assert all(versions == sorted(versions) for versions in lanes)
    assert {version for versions in lanes for version in versions} >= set(said)
    assert int(broken) not in {version for versions in lanes for version in versions}


def _alone(one: Reply) -> tuple[str, ...]:
    """The fallback's version where it was the fallback: a busy machine may cost a payment its features."""
    return (one.told["model_version"],) if one.told["model_role"] == "fallback" else ()


def _refuses(card: httpx.Response, version: str) -> bool:
    return version in {one["version"] for one in card.json()["refused"]}
