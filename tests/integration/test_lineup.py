"""The line-up against a real MLflow and Redis: swaps, refusals, traffic, the guard, and a registry that goes away."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis

from bentos.lineup import score
from bentos.registry import NoModel
from bentos.rollout import Models
from feature_repo.contract import METADATA_KEY, ContractMismatch, ModelContract
from feature_repo.parity_sample import loads
from feature_repo.settings import Settings
from feature_repo.settings import settings as settings_of_process
from feature_repo.vector import FALLBACK_SERVICE, FEATURE_SERVICE
from monitoring import traffic
from monitoring.controls import SHADOW_TAG, WEIGHT_TAG
from monitoring.metrics import metrics
from monitoring.processes import Platform, at_free_ports
from monitoring.shadow_log import read_shadow
from tests import tiny_model
from tests.unit.test_lineup import answered

COLUMNS = ("amount", "card_count_1h")
REQUEST_COLUMNS = ("amount",)
PROMISED = tiny_model.contract(COLUMNS)
REQUEST_PROMISED = tiny_model.contract(REQUEST_COLUMNS, FALLBACK_SERVICE)
VECTORS = np.array([[100.0, 1.0], [250.0, np.nan], [np.nan, 3.0]], np.float32)
IDS = ["a", "b", "c"]


class World:
    """One registered model in MLflow, and the services' models over it."""

    def __init__(self, mlflow_url: str, redis_url: str, home: Path, name: str) -> None:
        self.settings = Settings(home=home, mlflow_url=mlflow_url, redis_url=redis_url, model_name=name)
        self.opened: list[Models] = []

    def models(self, prepare: Callable[[Any], object] = lambda model: None, **changed: Any) -> Models:
        """The models as a service has them, polled by the test alone."""
        never = {"registry_poll": "P1D"} | changed
        current = Settings(**self.settings.model_dump() | never)
        made = Models(current, COLUMNS, REQUEST_COLUMNS, prepare=prepare)
        made.open()
        self.opened.append(made)
        return made

    def publish(self, bias: float = -2.0, alias: str | None = "champion", **changed: Any) -> str:
        """Register a version; `changed` replaces its files (None leaves one out)."""
        names = {"mlmodel": "MLmodel", "onnx": "model.onnx", "parity": "parity.json"}
        files = tiny_model.files(PROMISED, bias) | {names[name]: content for name, content in changed.items()}
        sound = {name: content for name, content in files.items() if content is not None}
        return tiny_model.publish(self.settings.mlflow_url, self.settings.model_name, sound, alias)

    def publish_fallback(self, bias: float = -3.0) -> str:
        files = tiny_model.files(REQUEST_PROMISED, bias)
        return tiny_model.publish(self.settings.mlflow_url, self.settings.fallback_model_name, files)

    def point(self, alias: str, version: str) -> None:
        tiny_model.point(self.settings.mlflow_url, self.settings.model_name, alias, version)

    def tag(self, key: str, value: str) -> None:
        asked = {"name": self.settings.model_name, "key": key, "value": value}
        url = f"{self.settings.mlflow_url}/api/2.0/mlflow/registered-models/set-tag"
        httpx.post(url, json=asked, timeout=30).raise_for_status()


@pytest.fixture
def world(mlflow_server: str, redis_server: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(mlflow_server, redis_server, tmp_path, f"lineup-{time.time_ns()}")
    yield made
    for models in made.opened:
        models.close()


def scored(models: Models) -> list[float]:
    return score(models.lineup, IDS, VECTORS, models.guard).probabilities.tolist()


def expected(bias: float) -> Any:
    amounts = np.nan_to_num(VECTORS[:, 0].astype(float))
    return pytest.approx((1 / (1 + np.exp(-(amounts / 100 + bias)))).tolist(), abs=1e-6)


def awaited(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


# --- Swaps -----------------------------------------------------------------------------------------------------------


def test_twenty_new_versions_are_swapped_in_one_after_the_other_and_every_batch_has_one_model(world: World):
    world.publish(bias=0.0)
    models = world.models()
    swaps = metrics.model_swaps.labels(role="champion")
    before = swaps._value.get()
    for turn in range(1, 21):
        version = world.publish(bias=-turn / 10)
        scores_of_old = scored(models)
        assert scores_of_old == expected(-(turn - 1) / 10), "registered, and not yet looked at"
        models.poll()
        assert (models.lineup.champion.version, models.card().version) == (version, version)
        assert scored(models) == expected(-turn / 10)
    assert swaps._value.get() == before + 20
    active = metrics.active_model_version
    name = world.settings.model_name
    states = [active.labels(model_name=name, version=str(n))._value.get() for n in range(1, 22)]
    assert states == [0.0] * 20 + [1.0]


def test_the_polling_thread_does_it_by_itself(world: World):
    world.publish()
    models = world.models(registry_poll="PT0.05S")
    version = world.publish(bias=1.0)
    awaited(lambda: models.lineup.champion.version == version)
    assert scored(models) == expected(1.0)


def test_a_version_that_training_registers_is_taken(world: World):
    tiny_model.register(world.settings.mlflow_url, world.settings.model_name, PROMISED)
    assert scored(world.models()) == expected(-2.0)


def test_a_promotion_needs_no_second_download_and_leaves_no_challenger(world: World):
    world.publish()
    second = world.publish(bias=1.0, alias="challenger")
    models = world.models()
    challenger = models.lineup.challenger
    assert challenger is not None
    assert (challenger.version, challenger.role, models.lineup.shadow) == (second, "challenger", True)
    world.point("champion", second)
    models.poll()
    champion = models.lineup.champion
    assert (champion.version, champion.role, models.lineup.challenger) == (second, "champion", None)
    assert champion.session is challenger.session


def test_the_fallback_follows_its_own_model_and_may_come_later(world: World):
    world.publish()
    models = world.models()
    assert models.lineup.fallback is None
    version = world.publish_fallback()
    models.poll()
    fallback = models.lineup.fallback
    assert fallback is not None
    assert (fallback.name, fallback.version, fallback.role) == (world.settings.fallback_model_name, version, "fallback")
    assert fallback.score(VECTORS[:, :1].copy()).tolist() == expected(-3.0)
    card = models.card()
    assert card.fallback is not None
    assert card.fallback.feature_service == FALLBACK_SERVICE


# --- Refusals --------------------------------------------------------------------------------------------------------


def spoilt_sample() -> bytes:
    told = json.loads(tiny_model.files(PROMISED)["parity.json"])
    told["probabilities"][2] += 2e-5
    return json.dumps(told).encode()


def other_columns() -> dict[str, bytes]:
    files = tiny_model.files(tiny_model.contract(["amount", "shoe_size"]))
    return {"mlmodel": files["MLmodel"], "onnx": files["model.onnx"], "parity": files["parity.json"]}


GRAPH = tiny_model.files(PROMISED)["model.onnx"]
EMPTY = b'{"columns":["amount","card_count_1h"],"vectors":[],"probabilities":[]}'
BROKEN: dict[str, tuple[dict[str, bytes | None], str, str]] = {
    "other columns": (other_columns(), "contract", "the code lacks ['shoe_size'], the model lacks ['card_count_1h']"),
    "another service": (
        {"mlmodel": tiny_model.files(tiny_model.contract(COLUMNS, "fraud_v9"))["MLmodel"]},
        *("contract", "'fraud_v9'; the code serves 'fraud_v2'"),
    ),
    "half a graph": ({"onnx": GRAPH[: len(GRAPH) // 2]}, "files", "model.onnx cannot be loaded"),
    "no graph": ({"onnx": None}, "files", "model.onnx cannot be loaded"),
    "no MLmodel": ({"mlmodel": None}, "files", "its MLmodel cannot be read"),
    "no contract": ({"mlmodel": b"metadata: {}"}, "files", f"has no metadata '{METADATA_KEY}'"),
    "wrong sample": ({"parity": spoilt_sample()}, "parity", "its graph is off by 2.00e-05 on its own parity.json"),
    "another graph": ({"onnx": tiny_model.files(PROMISED, -1.9)["model.onnx"]}, "parity", "its graph is off by"),
    "no sample": ({"parity": None}, "evidence", "has no parity.json"),
    "an empty sample": ({"parity": EMPTY}, "evidence", "at least one vector"),
    "a sample that is none": ({"parity": b"{"}, "evidence", "parity.json cannot be read"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_version_is_refused_once_and_the_old_one_stays(
    world: World, case: str, caplog: pytest.LogCaptureFixture
):
    changed, reason, told = BROKEN[case]
    first = world.publish()
    models = world.models()
    before = models.lineup
    counted = metrics.model_refusals.labels(reason=reason)
    refusals = counted._value.get()
    broken = world.publish(**changed)
    for _ in range(3):
        models.poll()
    assert models.lineup is before
    assert counted._value.get() == refusals + 1
    (refused,) = models.card().refused
    assert (refused.version, refused.reason) == (broken, reason)
    assert told in refused.message
    lines = [record.getMessage() for record in caplog.records if f"Version {broken} of" in record.getMessage()]
    assert len(lines) == 1
    assert f"version {first} stays" in lines[0]
    sound = world.publish(bias=0.5)
    models.poll()
    assert (models.lineup.champion.version, models.card().refused) == (sound, ())


def test_a_broken_challenger_leaves_the_challenger_before_it(world: World):
    world.publish()
    second = world.publish(alias="challenger")
    models = world.models()
    world.publish(alias="challenger", parity=None)
    models.poll()
    assert models.lineup.challenger is not None
    assert models.lineup.challenger.version == second


def test_what_cannot_be_prepared_is_refused(world: World):
    first = world.publish()

    def prepare(model: Any) -> None:
        if model.version != first:
            raise KeyError("no such wording")

    models = world.models(prepare)
    world.publish()
    models.poll()
    assert models.lineup.champion.version == first
    assert [one.reason for one in models.card().refused] == ["warm_up"]


def test_at_start_a_broken_champion_gives_way_to_the_last_good_one(world: World, caplog: pytest.LogCaptureFixture):
    first = world.publish()
    world.models()
    broken = world.publish(parity=None)
    models = world.models()
    champion = models.lineup.champion
    assert (champion.version, champion.source) == (first, "cache")
    assert [one.version for one in models.card().refused] == [broken]
    assert f"Serving version {first} from the cache" in caplog.text


def test_at_start_without_a_good_one_before_the_refusal_is_the_reason(world: World):
    world.publish(**other_columns())
    with pytest.raises(ContractMismatch, match=r"version 1 is refused.*shoe_size"):
        world.models()


def test_without_a_registered_model_or_alias_nothing_is_served(world: World):
    with pytest.raises(NoModel, match="Train and register"):
        world.models()
    world.publish(alias=None)
    with pytest.raises(NoModel, match="no version with the alias 'champion'"):
        world.models()


# --- A registry that goes away ---------------------------------------------------------------------------------------


def test_the_models_outlive_mlflow_and_follow_it_again_when_it_is_back(
    tmp_path: Path, redis_server: str, caplog: pytest.LogCaptureFixture
):
    current = at_free_ports(Settings(home=tmp_path / "platform", model_name="away"))
    with Platform(current) as platform:
        platform.start("mlflow")
        world = World(current.mlflow_url, redis_server, tmp_path / "service", "away")
        world.publish(bias=0.3)
        world.publish_fallback()
        models = world.models()
        reachable = metrics.registry_reachable._value
        assert (reachable.get(), models.card().registry_reachable) == (1.0, True)
        platform.stop("mlflow")
        served = models.lineup
        models.poll()
        models.poll()
        assert (reachable.get(), models.card().registry_reachable) == (0.0, False)
        assert models.lineup is served
        assert scored(models) == expected(0.3)
        assert caplog.text.count("What is in service stays") == 1

        restarted = world.models()
        assert (restarted.lineup.champion.source, scored(restarted)) == ("cache", expected(0.3))
        assert restarted.lineup.fallback is not None
        assert restarted.lineup.fallback.source == "cache"

        platform.start("mlflow")
        world.publish(bias=0.7)
        for one in (models, restarted):
            one.poll()
            assert scored(one) == expected(0.7)
        assert reachable.get() == 1.0
        assert restarted.lineup.fallback is not None
        assert restarted.lineup.fallback.source == "registry"
    for one in world.opened:
        one.close()


# --- Traffic ---------------------------------------------------------------------------------------------------------


def two_models(world: World, **changed: Any) -> Models:
    world.publish()
    world.publish(bias=1.0, alias="challenger")
    return world.models(**changed)


def test_tags_change_the_traffic_and_a_value_that_is_none_leaves_the_last(world: World):
    models = two_models(world, challenger_weight=0.25)
    assert (models.lineup.weight, models.lineup.shadow) == (0.25, True)
    for key, value, weight, shadow in [
        (WEIGHT_TAG, "0.5", 0.5, True),
        (SHADOW_TAG, "off", 0.5, False),
        (WEIGHT_TAG, "a lot", 0.5, False),
        (WEIGHT_TAG, "1.5", 0.5, False),
        (SHADOW_TAG, "yes", 0.5, False),
        (WEIGHT_TAG, "1", 1.0, False),
    ]:
        world.tag(key, value)
        models.poll()
        models.poll()
        assert (models.lineup.weight, models.lineup.shadow) == (weight, shadow)
    (wrong,) = models.card().refused_tags
    assert wrong == (
        "Tag 'tollgate.shadow' has value 'yes'; must be `on` or `off`. "
        "Set it with `python -m monitoring.traffic --shadow on`. False stays in force."
    )
    assert metrics.challenger_weight._value.get() == 1.0
    assert scored(models) == expected(1.0)


@pytest.fixture
def shell(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment in which the command line finds this world."""
    for name in ("mlflow_url", "model_name"):
        monkeypatch.setenv(f"FRAUD_{name.upper()}", str(getattr(world.settings, name)))
    settings_of_process.cache_clear()
    yield
    settings_of_process.cache_clear()


@pytest.mark.usefixtures("shell")
def test_the_command_line_shows_and_sets_the_traffic(world: World, capsys: pytest.CaptureFixture[str]):
    models = two_models(world)
    assert traffic.main([]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1:5] == [
        "champion     1",
        "challenger   2",
        "weight       0.0 (this shell's setting, no tag)",
        "shadow       on (this shell's setting, no tag)",
    ]
    assert traffic.main(["--weight", "0.125", "--shadow", "off"]) == 0
    assert capsys.readouterr().out.splitlines()[3:5] == ["weight       0.125", "shadow       off"]
    models.poll()
    assert (models.lineup.weight, models.lineup.shadow) == (0.125, False)
    assert traffic.main(["--settings"]) == 0
    assert traffic.main(["--settings"]) == 0, "nothing to remove is no error"
    models.poll()
    assert (models.lineup.weight, models.lineup.shadow) == (0.0, True)
    with pytest.raises(SystemExit):
        traffic.main(["--weight", "1.01"])
    assert "must be a number from 0 to 1" in capsys.readouterr().err


@pytest.mark.usefixtures("shell")
def test_the_command_line_says_what_it_could_not_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert traffic.main(["--weight", "0.1"]) == 1
    assert "FRAUD_MODEL_NAME must name a registered model" in capsys.readouterr().err
    monkeypatch.setenv("FRAUD_MLFLOW_URL", "http://127.0.0.1:9")
    settings_of_process.cache_clear()
    assert traffic.main([]) == 1
    assert "MLflow at http://127.0.0.1:9 does not answer" in capsys.readouterr().err


# --- The guard, and the shadow ---------------------------------------------------------------------------------------


def taken_out(models: Models) -> None:
    challenger = models.lineup.challenger
    assert challenger is not None
    models.take_out(challenger, "failures", "3 of its 3 runs failed")


def test_a_challenger_that_is_out_answers_nothing_and_says_so(world: World, caplog: pytest.LogCaptureFixture):
    models = two_models(world, challenger_weight=1.0)
    assert scored(models) == expected(1.0)
    taken_out(models)
    lineup = models.lineup
    assert (lineup.challenger, lineup.weight, lineup.shadow) == (None, 0.0, False)
    assert scored(models) == expected(-2.0)
    out = models.card().challenger_out
    assert out is not None
    assert (out.version, out.reason, out.detail) == ("2", "failures", "3 of its 3 runs failed")
    assert metrics.challenger_out.labels(reason="failures")._value.get() == 1.0
    assert "Challenger version 2 is out: 3 of its 3 runs failed" in caplog.text
    models.poll()
    assert models.lineup.challenger is None, "it stays out"


def test_out_holds_for_every_worker_and_after_a_restart(world: World):
    first, second = two_models(world), world.models()
    taken_out(first)
    second.poll()
    assert second.lineup.challenger is None
    assert world.models().lineup.challenger is None


@pytest.mark.usefixtures("shell")
def test_one_command_brings_a_challenger_back_everywhere(world: World):
    workers = [two_models(world), world.models()]
    taken_out(workers[0])
    assert traffic.main(["--challenger-back"]) == 0
    for _ in range(2):
        for models in workers:
            models.poll()
            assert models.lineup.challenger is not None
            assert models.card().challenger_out is None
    assert metrics.challenger_out.labels(reason="failures")._value.get() == 0.0
    taken_out(workers[1])
    workers[0].poll()
    assert workers[0].lineup.challenger is None, "an old call does not hold for ever"


def test_another_version_gets_another_chance(world: World):
    models = two_models(world)
    taken_out(models)
    third = world.publish(alias="challenger")
    models.poll()
    assert models.lineup.challenger is not None
    assert models.lineup.challenger.version == third
    assert models.card().challenger_out is None


def test_a_challenger_that_fails_is_out_by_itself_and_no_payment_notices(world: World):
    models = two_models(world, challenger_weight=1.0, challenger_max_failures=4)
    challenger = models.lineup.challenger
    assert challenger is not None

    class Fails:
        def run(self, *_: Any) -> Any:
            raise RuntimeError("out of memory")

    object.__setattr__(challenger, "session", Fails())
    for _ in range(5):
        assert scored(models) == expected(-2.0)
    assert models.lineup.challenger is None
    out = models.card().challenger_out
    assert out is not None
    assert out.reason == "failures"


def test_shadow_scores_reach_their_stream(world: World):
    models = two_models(world, shadow_stream=f"shadow-{time.time_ns()}")
    stream = models._shadow._stream
    payments: Any = answered(3, models.lineup.champion)
    for one in payments:
        one.vector = np.array([250.0, np.nan], np.float32)
    models.shadow(payments)
    with redis.Redis.from_url(world.settings.redis_url) as client:
        awaited(lambda: bool(client.exists(stream)))
    found = list(read_shadow(world.settings.redis_url, stream))
    assert [(one.transaction_id, one.model_version) for one in found] == [("t0", "2"), ("t1", "2"), ("t2", "2")]
    assert [one.probability for one in found] == pytest.approx([1 / (1 + np.exp(-3.5))] * 3, abs=1e-6)


def test_the_sample_is_read_back_as_it_was_written():
    made = tiny_model.sample(tiny_model.graph(COLUMNS), COLUMNS)
    read = loads(made.dumps())
    assert read.vectors.tobytes() == made.vectors.tobytes()
    assert (read.columns, read.probabilities.tolist()) == (made.columns, made.probabilities.tolist())
    assert isinstance(PROMISED, ModelContract)
    assert PROMISED.feature_service == FEATURE_SERVICE
