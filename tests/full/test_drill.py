"""A short form of `make drill`: what cannot be had again without a backup, lost under load and restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.drill import LIMIT, Drill, passed, table, told_of
from tests.chaos.losses import MEANWHILE, PARTS, full_stage

QUICK = ("postgres", "redis", "registry", "artifacts")
GOOD: dict[str, Any] = {
    "seconds": 1.0, "faults": {}, "lost_decisions": 0, "decided_twice": 0, "chain": None, "refused": 0,
    "online_differs_from_offline": [],
}  # fmt: skip


@pytest.mark.timeout(1_800)
def test_what_a_backup_is_for_is_lost_and_restored_and_no_answer_is_missing(tmp_path: Path) -> None:
    with full_stage(tmp_path) as stage:
        drill = Drill(stage)
        rows = [drill.lose(name) for name in QUICK]
    for row in rows:
        assert passed(row), row
        assert row["answered"] >= MEANWHILE
    assert rows[-1]["decisions_held"] >= sum(row["answered"] for row in rows)
    assert table(rows).row_count == len(QUICK)


@pytest.mark.parametrize(
    "amiss",
    [
        {"seconds": LIMIT}, {"faults": {"other_bytes": ["t1"]}}, {"lost_decisions": 1}, {"decided_twice": 1},
        {"chain": "Row 2 is missing"}, {"refused": 1}, {"online_differs_from_offline": ["card_count_1h[0]"]},
    ],
    ids=lambda amiss: next(iter(amiss)),
)  # fmt: skip
def test_a_loss_that_costs_anything_fails_the_drill(amiss: dict[str, Any]) -> None:
    assert passed(GOOD)
    assert not passed(GOOD | amiss)


def test_every_part_says_how_it_is_lost_and_how_it_is_restored() -> None:
    assert set(QUICK) <= set(PARTS)
    for name in PARTS:
        lost, restored = told_of(name)
        assert lost, name
        assert restored, name
