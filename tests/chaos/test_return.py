"""The moment of the return: workers come back to Redis one after the other, and none may decide a payment anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tests.chaos.load import Client, Load, Reply
from tests.chaos.stage import Stage
from tests.chaos.verdict import judge

LANES = 6


def degraded(one: Reply) -> bool:
    return one.ok and one.told["degraded_cause"] == "features_unavailable"


def test_payments_repeated_while_redis_returns_get_the_answer_they_had(
    stage: Stage, tell: Callable[[str], None]
) -> None:
    repeats: list[tuple[Reply, Reply]] = []
    ended = threading.Event()
    with Load(stage.settings) as load:
        load.more()
        stage.kill_redis()
        load.settle(degraded)
        away = time.monotonic()

        def repeat(lane: int) -> None:
            client = Client(stage.settings, 100 + lane)
            while not ended.wait(0.002):
                recent = [one for one in load.replies[-20:] if one.ok and one.sent > away]
                if recent:
                    one = recent[lane % len(recent)]
                    repeats.append((one, client.send(one.payment)))
            client.close()

        threads = [threading.Thread(target=repeat, args=(lane,)) for lane in range(LANES)]
        for thread in threads:
            thread.start()
        try:
            load.more()
            stage.start_redis()
            load.settle(lambda one: one.ok and not one.told["degraded"])
        finally:
            ended.set()
            for thread in threads:
                thread.join()
    stage.drained()
    verdict = judge(load.replies, stage.record(), stage.biases)
    tell(verdict.line("Repeats while Redis returns", len(repeats)))
    assert {again.status for _, again in repeats} == {200}
    assert [first.transaction_id for first, again in repeats if again.body != first.body] == []
    assert verdict.faults == {}
    assert stage.put_aside() == []
