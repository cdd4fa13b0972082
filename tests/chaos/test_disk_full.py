"""The disk full while Redis is away: refused rather than answered off the record, and good again with its space.

A limit on the size of the workers' files stands for the disk: SQLite's writes fail as on a full one, without root.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from tests.chaos.load import Load, Reply, sent_again
from tests.chaos.stage import Stage
from tests.chaos.verdict import judge

SOME_ROOM = 262_144
"""Bytes for each of the journal's files: some dozens of batches."""


def journaled(one: Reply) -> bool:
    return one.ok and one.told["degraded_cause"] == "features_unavailable"


def refused(one: Reply) -> bool:
    return one.status == 503


def test_a_full_disk_with_redis_away_refuses_and_lies_to_nobody(stage: Stage, tell: Callable[[str], None]) -> None:
    with Load(stage.settings) as load:
        load.more()
        stage.kill_redis()
        load.settle(journaled)

        largest = max(file.stat().st_size for file in stage.journal_files())
        stage.room(largest + SOME_ROOM)
        load.run_until(lambda: any(refused(one) for one in load.replies))

        stage.room(0)
        load.settle(refused)
        full = time.monotonic()
        load.settle(refused, 300)
        still_full = time.monotonic()

        stage.room(None)
        load.settle(journaled)
        stage.start_redis()
        load.settle(lambda one: one.ok and not one.told["degraded"])
    stage.drained()
    while_full = load.since(full, still_full - 1.0)
    turned_away = [one for one in load.replies if refused(one)]
    assert {one.status for one in load.replies} == {200, 503}
    assert {one.status for one in while_full} == {503}
    assert {json.loads(one.body)["error"]["code"] for one in turned_away} == {"decision_log_unavailable"}

    again = sent_again(stage.settings, turned_away)
    assert {one.status for one in again} == {200}
    verdict = judge([*load.replies, *again], stage.record(), stage.biases)
    tell(verdict.line("Disk full with Redis away", len(again)))
    assert verdict.faults == {}
    assert stage.put_aside() == []
