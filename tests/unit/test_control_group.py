"""Would-be declines that are let pass: as many as asked, the same for a repeated payment, marked wherever they go."""

from __future__ import annotations

import asyncio
import json

import pytest

from bentos.lineup import Lineup
from bentos.scoring import Scored
from feature_repo.settings import Settings
from monitoring.control_group import ControlGroup, InvalidControlGroup
from monitoring.decision_window import CONTROL_MARK
from monitoring.metrics import metrics
from tests.unit.stand_ins import Log, Reader, gate, judge, model, payment

KEY = "a secret of the bank's"
EVERYBODY = ControlGroup(1.0, 1e7, b"k")


def group(share: float, cap: float = 100.0, key: str = KEY) -> ControlGroup:
    found = ControlGroup.of(Settings(control_share=share, control_max_amount=cap, control_key=key))
    assert found is not None
    return found


def test_it_is_off_unless_asked_for():
    assert ControlGroup.of(Settings()) is None
    assert ControlGroup.of(Settings(control_key=KEY)) is None


def test_a_share_without_a_key_is_refused():
    with pytest.raises(InvalidControlGroup, match="FRAUD_CONTROL_KEY"):
        ControlGroup.of(Settings(control_share=0.01))


@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_the_share_is_what_was_asked_for(share: float):
    asked = group(share)
    chosen = sum(asked.lets_pass(f"t{n}", 50.0) for n in range(20_000)) / 20_000
    assert chosen == pytest.approx(share, abs=0.01)


def test_who_is_let_pass_depends_on_the_key_and_a_larger_share_keeps_the_smaller_one():
    names = [f"t{n}" for n in range(2_000)]
    few, more, others = group(0.1), group(0.3), group(0.1, key="another secret of 16")
    chosen = {name for name in names if few.lets_pass(name, 1.0)}
    assert chosen < {name for name in names if more.lets_pass(name, 1.0)}
    overlap = sum(others.lets_pass(name, 1.0) for name in chosen) / len(chosen)
    assert overlap < 0.25
    same = group(0.1)
    assert chosen == {name for name in names if same.lets_pass(name, 1.0)}, "the same in every process"


def test_above_the_cap_nobody_is_let_pass():
    assert group(1.0, cap=100.0).lets_pass("t", 100.0)
    assert not group(1.0, cap=100.0).lets_pass("t", 100.01)


def test_only_declines_on_the_full_input_are_let_pass():
    amounts = {"approved": 250.0, "reviewed": 750.0, "declined": 1_000.0}
    given = [payment(transaction_id=name, amount=amount) for name, amount in amounts.items()]
    given.append(payment(transaction_id="lacking", amount=1_000.0, card_id="overrun"))
    judged = judge(control=EVERYBODY).judge(Lineup(model()), given, Reader().read(given))
    made = {one.asked.payment.transaction_id: one for one in judged if isinstance(one, Scored)}
    assert {name: (one.decision, one.control_group) for name, one in made.items()} == {
        "approved": ("approve", False),
        "reviewed": ("review", False),
        "declined": ("approve", True),
        "lacking": ("decline", False),
    }
    assert made["declined"].risk_level == "high"


def test_the_reasons_of_a_payment_that_is_let_pass_are_those_of_its_decline():
    asked: list[list[str]] = []

    def why(of: object, vectors: object, decisions: list[str]) -> list[list]:
        asked.append(list(decisions))
        return [[] for _ in decisions]

    given = [payment(amount=1_000.0)]
    judge(why, control=EVERYBODY).judge(Lineup(model()), given, Reader().read(given))
    assert asked == [["decline"]]


def test_the_mark_is_in_the_answer_and_on_record_counted_once_and_repeated_as_it_was():
    log = Log()
    sent = payment(transaction_id="once", amount=1_000.0)

    async def twice() -> list[bytes]:
        open_gate = gate(log=log, control=EVERYBODY)
        return [await open_gate.predict(sent, 0.0), await open_gate.predict(sent, 0.0), await closing(open_gate)]

    async def closing(open_gate: object) -> bytes:
        await open_gate.close()  # type: ignore[attr-defined]
        return b""

    before = metrics.control_group._value.get()
    first, again, _ = asyncio.run(twice())
    told = json.loads(first)
    assert (told["decision"], told["control_group"], told["risk_level"]) == ("approve", True, "high")
    assert again == first
    (logged,) = log.decisions
    assert logged.control_group
    assert CONTROL_MARK.encode() in logged.answer
    assert metrics.control_group._value.get() == before + 1
    # The group is gone by the settings meanwhile: what was answered stays answered.
    assert asyncio.run(gate(log=log).predict(sent, 0.0)) == first
