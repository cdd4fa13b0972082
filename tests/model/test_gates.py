"""Planted bad challengers: each is blocked by the gates that its fault concerns, and by no other."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_repo.contract import ONNX_FILE
from feature_repo.parity_sample import PARITY_FILE
from feature_repo.settings import Settings
from feature_repo.vector import FALLBACK_SERVICE, FEATURE_SERVICE
from tests.promotion_versions import BEGIN, DAYS, LATER, WEIGHTS, Made, payments, window
from training import gates
from training.case import Case
from training.dataset import TrainingSet
from training.evidence import EVIDENCE_FILE, REFERENCE_FILE
from training.gates_graph import latency
from training.graphs import Graph
from training.verdicts import Gate, Verdict
from training.window import Window

COLUMNS = ("amount", "card_count_1h", "card_nunique_merchant_id_7d", "is_night", "merchant_count_24h")
SOUND = Made(COLUMNS)
CHAMPION = Made(COLUMNS, weights=(1.5, 0.9))
WINDOW = window(COLUMNS)
NAMES = [rule.name for rule in gates.RULES]


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred are enough for faults as large as these."""
    monkeypatch.setattr("training.case.REPEATS", 100)
    monkeypatch.setattr("training.gates_scores.SEGMENT_REPEATS", 100)


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return Graph("fraud", "1", CHAMPION.folder(tmp_path_factory.mktemp("champion") / "1"))


def judged(
    folder: Path, rival: Graph | None, found: Window | str = WINDOW, role: Any = "champion", **more: Any
) -> Verdict:
    case = Case(Graph("fraud", "2", folder), rival, role, COLUMNS, FEATURE_SERVICE, found, Settings(), **more)
    return gates.judge(case, "1", LATER)


def words(verdict: Verdict) -> dict[str, str]:
    """What every gate says that does not let it pass."""
    assert [gate.name for gate in verdict.gates] == NAMES
    return {gate.name: gate.word for gate in verdict.gates if gate.word != "pass"}


def gate(verdict: Verdict, name: str) -> Gate:
    [found] = [one for one in verdict.gates if one.name == name]
    return found


def test_a_sound_challenger_passes_every_gate_and_each_states_its_evidence(tmp_path: Path, champion: Graph):
    verdict = judged(SOUND.folder(tmp_path / "2"), champion)
    assert words(verdict) == {}
    assert verdict.passed
    assert all(one.evidence and one.rule and not one.way_out for one in verdict.gates)
    assert verdict == Verdict.model_validate_json(verdict.model_dump_json())
    assert verdict.against == "champion, version 1 of 'fraud'"
    quality = gate(verdict, "quality").numbers
    assert quality["auc_roc, low"] < quality["auc_roc"] < quality["auc_roc, high"]


SCORED = ("leakage", "quality", "calibration", "segments", "thresholds")
AFTER_COLUMNS = dict.fromkeys(("outputs", "drift", *SCORED), "untried")
OTHER = ("amount", "card_count_1h", "card_nunique_merchant_id_7d", "is_night", "tx_fraud_scenario")

PLANTED: dict[str, tuple[Made, dict[str, str], str]] = {
    "a column in training had the label in it": (
        replace(SOUND, leaks=True, weights=(3.0, 0.0), amount=0.0, chosen_by=0.998),
        dict.fromkeys(("leakage", "quality", "calibration"), "block"),
        "card_count_1h alone tells fraud",
    ),
    "probabilities flattened, the order kept": (
        replace(SOUND, flatter=3.0),
        {"calibration": "block"},
        "times the frauds there were",
    ),
    "slow": (replace(SOUND, work=30), {"latency": "block"}, "payments, the champion"),
    "a column that is known afterwards only": (
        replace(SOUND, columns=OTHER),
        {"columns": "block", **AFTER_COLUMNS},
        "the code lacks ['tx_fraud_scenario'], the model lacks ['merchant_count_24h']",
    ),
    "columns in another order": (
        replace(SOUND, columns=(*COLUMNS[:3], COLUMNS[4], COLUMNS[3])),
        {"columns": "block", **AFTER_COLUMNS},
        "their order differs",
    ),
    "another feature service": (
        replace(SOUND, feature_service="fraud_v0"),
        {"columns": "block", **AFTER_COLUMNS},
        "'fraud_v0'; the code serves",
    ),
    "NaN where something is unknown": (
        replace(SOUND, imputes=False),
        {
            "outputs": "block",
            **dict.fromkeys(SCORED, "untried"),
        },
        "scores are no probability (NaN)",
    ),
    "worse": (replace(SOUND, weights=(1.0, 1.3), bias=-4.0), {"quality": "block"}, "worse in auc_roc"),
    "blind to small amounts": (replace(SOUND, blind_below=11.9), {"segments": "block"}, "amount 0 to 25 loses"),
    "stops too many": (replace(SOUND, review_share=0.05), {"thresholds": "block"}, "that people can look at"),
    "trained on another world": (replace(SOUND, moved=3.0), {"drift": "block"}, "columns have moved"),
    "has seen the window": (
        replace(SOUND, trained_until=BEGIN + timedelta(days=2)),
        {
            "window": "block",
            **dict.fromkeys(SCORED, "untried"),
        },
        "version 2 of 'fraud' has seen payments until 2024-03-03",
    ),
    "chosen by more than it can do": (replace(SOUND, chosen_by=0.999), {"leakage": "block"}, "chosen by AUC-ROC 0.999"),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_fault_is_blocked_for_its_own_reason(case: str, tmp_path: Path, champion: Graph):
    made, expected, told = PLANTED[case]
    verdict = judged(made.folder(tmp_path / "2"), champion)
    assert words(verdict) == expected
    assert not verdict.passed
    evidence = [one for one in verdict.gates if one.word == "block"]
    assert any(told in one.evidence for one in evidence), [one.evidence for one in evidence]
    assert all(one.way_out for one in evidence)


OTHER_GRAPH = replace(SOUND, bias=-4.1).files()[ONNX_FILE]

BROKEN: dict[str, tuple[dict[str, bytes | None], dict[str, str], str]] = {
    "no parity sample": ({PARITY_FILE: None}, {"parity": "missing"}, "no parity.json lies beside the graph"),
    "no reference": ({REFERENCE_FILE: None}, {"drift": "missing", "leakage": "missing"}, "no reference.parquet"),
    "no word on how it was chosen": (
        {EVIDENCE_FILE: None},
        {"leakage": "missing"},
        "does not say what the version was",
    ),
    "another graph than was judged in training": ({ONNX_FILE: OTHER_GRAPH}, {"parity": "block"}, "off by at most"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_missing_evidence_blocks(case: str, tmp_path: Path, champion: Graph):
    changed, expected, told = BROKEN[case]
    verdict = judged(SOUND.folder(tmp_path / "2", **changed), champion)
    assert words(verdict) == expected
    assert any(told in gate(verdict, name).evidence for name in expected)


@pytest.mark.parametrize("graph", [b"no graph", b""])
def test_of_a_version_that_cannot_be_read_nothing_else_is_looked_at(graph: bytes, tmp_path: Path, champion: Graph):
    verdict = judged(SOUND.folder(tmp_path / "2", **{ONNX_FILE: graph}), champion)
    assert words(verdict) == {"files": "block"} | dict.fromkeys(NAMES[1:], "untried")
    assert verdict.blocked_by == verdict.refused_by_service == ("files",)


def few(whole: Window, count: int) -> Window:
    """The window with fewer payments, most of its frauds among them."""
    rows = whole.data.rows
    order = rows["is_fraud"].sort_values(ascending=False, kind="stable").index[:count]
    return replace(whole, data=whole.data.where(rows.index.to_series().isin(order)))


def with_labels(whole: Window, fraud: np.ndarray) -> Window:
    data = whole.data
    return replace(whole, data=TrainingSet(data.rows.assign(is_fraud=fraud), data.vectors, data.columns))


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ("history has no such payment", "history has no such payment"),
        (replace(WINDOW, as_of=BEGIN + timedelta(days=DAYS)), "the last labels are known on 2024-03-22 only"),
        (replace(WINDOW, unlabelled=60), "60 more (1.0%) have no label yet"),
        (few(WINDOW, 900), "at least 1,000, 50 and 25 are needed"),
        (with_labels(WINDOW, np.zeros(len(WINDOW.data.rows), np.int8)), "0 frauds on 0 cards"),
    ],
)
def test_a_window_that_says_too_little_blocks(found: Window | str, told: str, tmp_path: Path, champion: Graph):
    verdict = judged(SOUND.folder(tmp_path / "2"), champion, found)
    assert gate(verdict, "window").word == "missing"
    assert told in gate(verdict, "window").evidence
    assert verdict.blocked_by[:1] == ("window",)
    assert all(gate(verdict, name).word == "untried" for name in SCORED)


def test_an_interval_too_wide_to_tell_is_missing_evidence_and_not_a_pass(tmp_path: Path, champion: Graph):
    """Another model of the same worth, on few frauds: it may be worse by the margin, and may not."""
    noisy = replace(SOUND, weights=(WEIGHTS[0] * 0.8, WEIGHTS[1] * 1.3))
    rows = WINDOW.data.rows
    kept = rows.index[rows["is_fraud"] == 1][:60].union(rows.index[rows["is_fraud"] == 0])
    small = replace(WINDOW, data=WINDOW.data.where(rows.index.to_series().isin(kept)))
    quality = gate(judged(noisy.folder(tmp_path / "2"), champion, small), "quality")
    assert quality.word == "missing"
    assert "too little to tell" in quality.evidence
    assert quality.numbers == {}


def test_what_is_said_to_be_better_must_surely_be(tmp_path: Path, champion: Graph):
    folder = SOUND.folder(tmp_path / "2")
    weak = Graph("fraud", "1", replace(CHAMPION, weights=(1.3, 0.3)).folder(tmp_path / "1"))
    surely = judged(folder, weak, claims=("average_precision",))
    assert gate(surely, "quality").word == "pass"
    unsure = judged(folder, champion, claims=("average_precision",))
    assert words(unsure) == {"quality": "block"}
    assert "not surely better in average_precision" in gate(unsure, "quality").evidence


def test_a_first_champion_is_held_against_the_model_over_the_request_alone(tmp_path: Path):
    alone = replace(SOUND, columns=("amount", "is_night", "hour"), weights=(0.0, 0.0), bias=-3.0)
    fallback = Graph("fraud-request", "1", replace(alone, feature_service=FALLBACK_SERVICE).folder(tmp_path / "1"))
    wider = payments((*COLUMNS, "hour"), seed=1)
    found = replace(WINDOW, data=wider)
    verdict = judged(SOUND.folder(tmp_path / "2"), fallback, found, role="fallback")
    assert words(verdict) == {}
    assert "by itself auc_roc 0.8" in gate(verdict, "quality").evidence
    guessing = judged(
        replace(SOUND, weights=(0.0, 0.0), bias=-3.0).folder(tmp_path / "3"), fallback, found, role="fallback"
    )
    assert "worse in auc_roc below 0.600" in gate(guessing, "quality").evidence


def test_with_nobody_to_compare_with_the_comparing_gates_miss_their_evidence(tmp_path: Path):
    verdict = judged(SOUND.folder(tmp_path / "2"), None, role="nobody")
    assert words(verdict) == dict.fromkeys(("latency", "quality", "calibration", "segments"), "missing")


def test_a_challenger_as_slow_as_a_slow_champion_is_not_too_slow(tmp_path: Path):
    """By a clock of the test's own: 3 times as long, and 1 ms at least, is too slow."""
    graphs = [Graph("fraud", str(n), SOUND.folder(tmp_path / str(n))) for n in (1, 2)]
    case = Case(graphs[1], graphs[0], "champion", COLUMNS, FEATURE_SERVICE, WINDOW, Settings())

    def word(before: float, after: float) -> str:
        steps = iter(np.cumsum([0.0, *([before, 0.0, after, 0.0] * 50)]))
        return latency(case, lambda: float(next(steps)))[0]

    assert (word(0.001, 0.0031), word(0.001, 0.0029), word(0.0002, 0.0009)) == ("block", "pass", "pass")


def test_numbers_of_a_verdict_are_json_without_nan(tmp_path: Path, champion: Graph):
    verdict = judged(SOUND.folder(tmp_path / "2"), champion)
    json.loads(verdict.model_dump_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
