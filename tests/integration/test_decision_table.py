"""The table `decisions`: each decision once, in a chain that shows whatever was done to it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest

from monitoring import decision_table
from monitoring.decision_chain import START, Anchor, verify
from monitoring.decision_table import append, connect, create, find
from tests.integration.decisions import made
from tests.postgres_server import Postgres


@pytest.fixture
def address(postgres_server: Postgres) -> str:
    return postgres_server.schema()


@pytest.fixture
def table(address: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(address) as connection:
        create(connection)
        yield connection


def filled(table: psycopg.Connection[Any], count: int = 10) -> Anchor:
    done = append(table, [made(number) for number in range(count)])
    assert (done.added, verify(table, done.anchor)) == (count, (count, None))
    return done.anchor


def test_a_decision_comes_back_bit_for_bit(table: psycopg.Connection[Any]) -> None:
    append(table, [made(1), made(2)])
    found = find(table, ["t-2", "t-9"])
    assert list(found) == ["t-2"]
    assert (found["t-2"].request, found["t-2"].answer) == (made(2).request, made(2).answer)
    assert found["t-2"].vector.tobytes() == made(2).vector.tobytes()
    assert found["t-2"].feature_service == "fraud_v1"


def test_what_comes_again_changes_nothing(table: psycopg.Connection[Any]) -> None:
    first = append(table, [made(1), made(2)])
    again = append(table, [made(2), made(1), replace(made(3), entry="3-0"), replace(made(3), entry="9-9")])
    assert (first.added, first.repeated) == (2, 0)
    assert (again.added, again.repeated, again.conflicts, again.recorded) == (1, 3, 0, [0, 1, 2, 3])
    assert again.anchor.seq == 3
    assert verify(table, again.anchor) == (3, None)


def test_another_decision_on_the_same_payment_is_put_aside_once(table: psycopg.Connection[Any]) -> None:
    append(table, [made(1)])
    for _ in range(2):
        done = append(table, [made(1, fraud_probability=0.99), made(2), made(2, decision="decline")])
        assert (done.conflicts, done.recorded) == (2, [1])
    rows = table.execute("SELECT transaction_id, reason FROM decision_conflicts ORDER BY 1").fetchall()
    assert rows == [(name, "another decision on the payment was recorded before") for name in ("t-1", "t-2")]
    assert find(table, ["t-1"])["t-1"].answer == made(1).answer


@pytest.mark.parametrize(
    "broken",
    [
        replace(made(1), answer=b"not JSON"),
        replace(made(1), request=b"\xff"),
        replace(made(1), answer=made(2).answer),
        replace(made(1), request=b"", answer=b"", vector=np.empty(0, np.float32)),
    ],
)
def test_an_entry_that_is_no_decision_holds_nothing_up(table: psycopg.Connection[Any], broken: Any) -> None:
    done = append(table, [broken, made(3)])
    assert (done.added, done.conflicts, done.recorded) == (1, 1, [1])
    [(request, reason)] = table.execute("SELECT request, reason FROM decision_conflicts").fetchall()
    assert request == broken.request
    assert reason.startswith("Entry 1-0: ")


@pytest.mark.parametrize(
    ("tampering", "held", "said"),
    [
        ("UPDATE decisions SET amount = amount + 1 WHERE seq = 4", 3, "Row 4, decision on 't-3' (entry 3-0): does not"),
        ("UPDATE decisions SET answer = replace(answer, 'approve', 'decline') WHERE seq = 4", 3, "Row 4, "),
        ("UPDATE decisions SET vector = set_byte(vector, 3, 7) WHERE seq = 10", 9, "Row 10, "),
        ("UPDATE decisions SET degraded_cause = 'x' WHERE seq = 1", 0, "Row 1, "),
        ("DELETE FROM decisions WHERE seq = 1", 0, "row 1 before it is missing"),
        ("DELETE FROM decisions WHERE seq BETWEEN 5 AND 7", 4, "row 5 to 7 before it is missing"),
        ("DELETE FROM decisions WHERE seq > 8", 8, "Row 9 to 10: cut off the end"),
        ("DELETE FROM decisions", 0, "Row 1 to 10: cut off the end"),
        ("UPDATE decisions SET seq = CASE seq WHEN 4 THEN 5 ELSE 4 END WHERE seq IN (4, 5)", 3, "Row 4, "),
    ],
)
def test_whatever_is_done_to_a_row_shows(table: psycopg.Connection[Any], tampering: str, held: int, said: str) -> None:
    anchor = filled(table)
    if "CASE" in tampering:  # the numbers are unique at every moment
        table.execute("ALTER TABLE decisions DROP CONSTRAINT decisions_pkey")
    table.execute(tampering)  # type: ignore[arg-type]
    found, broken = verify(table, anchor)
    assert (found, said in (broken or "")) == (held, True), broken


def test_a_chain_made_anew_does_not_have_the_anchor_s_hash(table: psycopg.Connection[Any]) -> None:
    anchor = filled(table)
    table.execute("DELETE FROM decisions")
    append(table, [made(number, decision="decline") for number in range(10)])
    assert verify(table) == (10, None)
    assert verify(table, anchor) == (
        9, "Row 10, decision on 't-9' (entry 9-0): is not the row that the sink wrote; the chain was made anew."
    )  # fmt: skip


def test_writers_take_turns_and_make_one_chain(address: str) -> None:
    def write(writer: int) -> int:
        with connect(address) as connection:
            create(connection)
            parts = range(0, 200, 20)
            return sum(append(connection, [made(n) for n in range(part, part + 20)]).added for part in parts)

    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(write, range(4)))
    with connect(address) as connection:
        assert (sum(added), verify(connection)) == (200, (200, None))


def test_the_command_says_whether_the_chain_holds(
    address: str, redis_server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["decision_table", "verify"])
    current = decision_table.settings().model_copy(
        update={"postgres_url": address, "redis_url": redis_server, "decisions_stream": "nobody-s"}
    )
    monkeypatch.setattr(decision_table, "settings", lambda: current)
    assert decision_table.main() == 0
    with connect(address) as connection:
        filled(connection)
        connection.execute("UPDATE decisions SET decision = 'decline' WHERE seq = 2")
    assert decision_table.main() == 1
    said = capsys.readouterr()
    assert said.out == "0 decisions, an unbroken chain (up to the sink's anchor in Redis).\n"
    assert said.err.startswith("BROKEN after 1 rows. Row 2, decision on 't-1'")


def test_an_empty_table_holds(table: psycopg.Connection[Any]) -> None:
    assert verify(table, START) == (0, None)
