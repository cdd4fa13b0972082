"""Promotion, rollback and history against a real MLflow: what is stored, who wins, and what is refused."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from mlflow.artifacts import download_artifacts

from feature_repo.contract import ONNX_FILE
from feature_repo.settings import Settings
from feature_repo.vector import FALLBACK_SERVICE
from monitoring import job_results
from monitoring.supervision import free_ports
from tests import tiny_model
from tests.promotion_versions import Made, window
from training import promote_command, turn
from training.promote import Conditions, Outcome, Overtaken, Refused, first_champion_or_challenge, promote, rollback
from training.verdicts import Verdict
from training.versions import Event, RegistryFailed, Versions, utc_now

COLUMNS = ("amount", "card_count_1h", "card_nunique_merchant_id_7d", "is_night", "merchant_count_24h")


class World:
    """One registered model in MLflow, and a window; the code's columns are a few."""

    def __init__(self, home: Path, mlflow_url: str) -> None:
        self.settings = Settings(home=home, mlflow_url=mlflow_url)
        self.conditions = Conditions(window=window(COLUMNS))
        self.sound = Made(COLUMNS).files()
        self.champion = Made(COLUMNS, weights=(1.5, 0.9)).files()
        self.flat = Made(COLUMNS, flatter=3.0).files()

    def another_model(self) -> None:
        self.settings = self.settings.model_copy(update={"model_name": f"promotion-{time.time_ns()}"})
        self.versions = Versions(self.settings)

    def publish(self, files: dict[str, bytes], alias: str | None = None) -> str:
        return tiny_model.publish(self.settings.mlflow_url, self.settings.model_name, files, alias)

    def publish_fallback(self) -> str:
        made = Made(
            ("amount", "card_count_1h", "is_night"), weights=(0.0, 0.0), bias=-3.0, feature_service=FALLBACK_SERVICE
        )
        return tiny_model.publish(self.settings.mlflow_url, self.settings.fallback_model_name, made.files())

    def promote(self, version: str | None = None, **more: object) -> Outcome:
        return promote(self.settings, version, replace(self.conditions, **more))  # type: ignore[arg-type]

    def seat(self, version: str, left: str | None) -> None:
        """As if it had been promoted."""
        self.versions.seat(
            Event(at=utc_now(), action="promoted", version=version, left=left, by="us", reason="", verdict="pass")
        )

    def history(self) -> list[tuple[str, str, str | None]]:
        return [(event.action, event.version, event.left) for event in self.versions.events()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str) -> World:
    return World(tmp_path_factory.mktemp("promotion"), mlflow_server)


@pytest.fixture
def world(made: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("training.promote.served_columns", lambda store: COLUMNS)
    monkeypatch.setattr("training.case.REPEATS", 60)
    monkeypatch.setattr("training.gates_scores.SEGMENT_REPEATS", 60)
    made.another_model()
    return made


def rollbacks(world: World) -> float:
    found = job_results.counts(world.settings.home)
    return sum(one.value for one in found if (one.metric, one.labels) == ("rollbacks", {"reason": "manual"}))


def test_a_challenger_that_passes_is_promoted_and_rolled_back_and_all_of_it_is_on_record(world: World):
    first = world.publish(world.champion, "champion")
    second = world.publish(world.sound, "challenger")
    tried = promote(world.settings, None, world.conditions, dry_run=True)
    assert (tried.verdict.passed, tried.event) == (True, None)
    assert world.versions.aliases() == {"champion": first, "challenger": second}
    assert (world.history(), world.versions.last_verdict(second)) == ([], None)

    outcome = world.promote(reason="a week of shadow")
    assert world.versions.aliases() == {"champion": second}
    assert world.versions.last_verdict(second) == outcome.verdict
    [event] = world.versions.events()
    assert event == outcome.event
    assert (event.reason, event.verdict) == ("a week of shadow", "pass")
    assert "@" in event.by
    tags = world.versions.client.get_model_version(world.settings.model_name, second).tags
    address = world.versions.client.get_model_version_download_uri(world.settings.model_name, second)
    beside = download_artifacts(f"{address}/{tags['tollgate.verdict.file']}", tracking_uri=world.settings.mlflow_url)
    assert Verdict.model_validate_json(Path(beside).read_bytes()) == outcome.verdict
    assert tags["tollgate.verdict"] == "pass"

    before = rollbacks(world)
    back = rollback(world.settings, reason="alerts")
    assert (back.version, back.left, back.verdict) == (first, second, "none asked for")
    assert world.versions.aliases() == {"champion": first}
    rollback(world.settings, undo=True)
    assert world.versions.aliases() == {"champion": second}
    assert world.history() == [
        ("promoted", second, first),
        ("rolled back", first, second),
        ("rollback undone", second, first),
    ]
    with pytest.raises(Refused, match="no rollback; there is none to undo"):
        rollback(world.settings, undo=True)
    assert rollbacks(world) == before + 1, "to undo one is none"


def test_rollbacks_go_further_back_and_only_to_who_was_champion(world: World):
    first, second, third = (world.publish(world.sound) for _ in range(3))
    for version, left in ((first, None), (second, first), (third, second)):
        world.seat(version, left)
    other = world.publish(world.sound, "challenger")
    assert rollback(world.settings).version == second
    assert rollback(world.settings).version == first
    with pytest.raises(Refused, match="no other is known to have been before it"):
        rollback(world.settings)
    with pytest.raises(Refused, match=f"Version {other} of .* was never champion"):
        rollback(world.settings, other)
    assert rollback(world.settings, third).left == first
    assert world.versions.aliases() == {"champion": third, "challenger": other}


def test_what_is_blocked_is_not_promoted_but_by_a_recorded_override(world: World):
    first, flat = world.publish(world.champion, "champion"), world.publish(world.flat, "challenger")
    blocked = world.promote()
    assert (blocked.event, blocked.verdict.blocked_by) == (None, ("calibration",))
    assert world.versions.aliases() == {"champion": first, "challenger": flat}
    assert world.versions.last_verdict(flat) == blocked.verdict
    with pytest.raises(Refused, match="recorded with its reason"):
        world.promote(override=True, reason=" ")
    forced = world.promote(override=True, reason="the champion declines everybody")
    assert forced.event is not None
    assert (forced.event.action, forced.event.verdict) == ("overridden", "blocked by calibration")
    assert world.versions.aliases() == {"champion": flat}
    assert world.history() == [("blocked", flat, first), ("overridden", flat, first)]


@pytest.mark.parametrize("fault", ["columns", "files", "outputs"])
def test_what_the_service_would_refuse_nobody_can_override(world: World, fault: str):
    planted = {
        "columns": Made((*COLUMNS[:-1], "tx_fraud_scenario")).files(),
        "files": world.sound | {ONNX_FILE: b"no graph"},
        "outputs": Made(COLUMNS, imputes=False).files(),
    }
    first, bad = world.publish(world.champion, "champion"), world.publish(planted[fault])
    with pytest.raises(Refused, match=f"blocked by {fault}. That cannot be overridden"):
        world.promote(bad, override=True, reason="at once")
    assert world.versions.aliases() == {"champion": first}
    kept = world.versions.last_verdict(bad)
    assert kept is not None
    assert kept.blocked_by == (fault,)


def test_the_first_version_is_champion_if_it_passes_and_the_next_is_challenger(world: World):
    world.publish_fallback()
    flat, first, second = (world.publish(files) for files in (world.flat, world.champion, world.sound))
    assert first_champion_or_challenge(world.settings, flat, world.conditions).event is None
    assert world.versions.aliases() == {}
    outcome = first_champion_or_challenge(world.settings, first, world.conditions)
    assert outcome.event is not None
    assert outcome.verdict.against.startswith("fallback, version ")
    assert world.versions.aliases() == {"champion": first}
    outcome = first_champion_or_challenge(world.settings, second, world.conditions)
    assert (outcome.event, outcome.verdict.passed) == (None, True)
    assert world.versions.aliases() == {"champion": first, "challenger": second}
    assert world.versions.last_verdict(second) == outcome.verdict


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(world: World, monkeypatch: pytest.MonkeyPatch):
    world.publish(world.champion, "champion")
    versions = [world.publish(world.sound), world.publish(world.sound)]
    both_judged = threading.Barrier(2, timeout=60)
    take = turn._take
    outcomes: list[object] = []

    def meeting(versions: Versions, name: str, now: object) -> object:
        if not outcomes and threading.current_thread() not in met:
            met.add(threading.current_thread())
            both_judged.wait()
        return take(versions, name, now)  # type: ignore[arg-type]

    met: set[threading.Thread] = set()
    monkeypatch.setattr(turn, "_take", meeting)

    def run(version: str) -> None:
        try:
            outcomes.append(world.promote(version))
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    [won] = [one for one in outcomes if isinstance(one, Outcome)]
    [told] = [one for one in outcomes if isinstance(one, Overtaken)]
    assert won.event is not None
    assert world.versions.aliases() == {"champion": won.event.version}
    assert f"meanwhile {won.event.version} serves. Nothing was changed" in str(told)
    assert [action for action, _, _ in world.history()] == ["promoted"]


def test_a_turn_left_behind_is_given_free_after_a_while_and_a_held_one_is_waited_for(world: World):
    world.publish(world.champion, "champion")
    waits: list[float] = []
    with turn.turn(world.versions):
        with (
            pytest.raises(turn.Busy, match=r"is changing the champion. Try again"),
            turn.turn(world.versions, patience=1.0, pause=waits.append),
        ):
            pytest.fail("two hold the turn")
        assert len(waits) == 5
        later = turn.utc_now() + turn.ABANDONED_AFTER + timedelta(seconds=1)
        stack = turn.turn(world.versions, now=lambda: later, pause=lambda _: None)
        with stack:
            pass
        world.versions.client.create_registered_model(world.settings.model_name + turn.SUFFIX)  # for the outer end


@pytest.fixture
def run(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command line in this world: arguments in, exit code, output and errors out."""
    monkeypatch.setattr(promote_command, "settings", lambda: world.settings)
    monkeypatch.setattr("training.promote._window", lambda *_: world.conditions.window)

    def command(*arguments: str) -> tuple[int, str, str]:
        code = promote_command.main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return command


def test_the_commands_end_with_codes_that_a_script_can_read(world: World, run: Callable[..., tuple[int, str, str]]):
    assert run("promote")[0] == 2, "no such model"
    first = world.publish(world.champion, "champion")
    code, _, err = run("promote")
    assert (code, "has no challenger" in err) == (2, True)
    flat = world.publish(world.flat, "challenger")
    code, out, _ = run("promote")
    assert (code, f"Champion stays {first}" in out, "calibration" in out) == (1, True, True)
    assert "Calibrate on a later slice" in out, "the way out"
    assert run("promote", "--dry-run", "--skip-code", "99")[0] == 99
    code, out, _ = run("show", "--json")
    assert (code, json.loads(out)["version"]) == (0, flat)
    second = world.publish(world.sound)
    assert run("promote", "--version", second, "--dry-run")[0] == 0
    code, out, _ = run("promote", "--version", second, "--json")
    assert code == 0
    assert json.loads(out)["event"]["left"] == first
    assert run("promote", "--version", second)[0] == 2, "champion already"
    assert run("rollback", "--reason", "a drill")[0] == 0
    code, out, _ = run("history", "--json")
    told = json.loads(out)
    assert told["aliases"] == {"champion": first, "challenger": flat}
    assert [event["action"] for event in told["events"]] == ["blocked", "promoted", "rolled back"]
    code, out, _ = run("history")
    assert (code, "a drill" in out, "blocked by calibration" in out) == (0, True, True)
    code, out, _ = run("promote", "--override", "--reason", "the bank is burning")
    assert (code, "OVERRIDDEN" in out) == (0, True)


def test_an_mlflow_that_is_away_is_told_within_seconds(
    world: World, run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
):
    [port] = free_ports(1)
    away = world.settings.model_copy(update={"mlflow_url": f"http://127.0.0.1:{port}"})
    monkeypatch.setattr(promote_command, "settings", lambda: away)
    for command in ("promote", "history"):
        code, _, err = run(command)
        assert (code, f"in MLflow at http://127.0.0.1:{port}" in err) == (2, True)
    with pytest.raises(RegistryFailed):
        Versions(away).aliases()
