"""The journal on a real disk: what it took is there whatever ends the process, and what it cannot take it says."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bentos.decisions import Entry, Mark
from bentos.errors import Unavailable
from bentos.journal import Journal
from feature_repo.settings import ROOT
from tests.integration.entries import entry

RECORDED, CONFLICT = Mark.RECORDED, Mark.CONFLICT


def child(program: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process with the journal, `entry` and its `arguments` at hand."""
    given = "import sys; from pathlib import Path; from bentos.decisions import Mark\n"
    given += "from bentos.errors import Unavailable; from bentos.journal import Journal\n"
    given += "from tests.integration.entries import entry\n"
    command = [sys.executable, "-c", given + program, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def waiting(file: Path) -> list[Entry]:
    """What an own connection reads in the file."""
    journal = Journal(file)
    found = [one for _, one in journal.oldest(10_000)]
    journal.close()
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "journal.db"


def test_decisions_come_back_in_their_order_as_they_were(file: Path):
    journal = Journal(file)
    entries = [entry(f"t{n}", digest=bytes(range(n, n + 16)), vector=b"\x00\xff" * n, expires_ms=n) for n in range(5)]
    assert journal.append(entries[:3]) == [RECORDED] * 3
    assert journal.append(entries[3:]) == [RECORDED] * 2
    assert [one for _, one in journal.oldest(4)] == entries[:4]
    journal.remove([place for place, _ in journal.oldest(4)])
    assert [one for _, one in journal.oldest(4)] == entries[4:]
    journal.close()
    assert waiting(file) == entries[4:]


def test_a_payment_sent_again_gets_its_first_answer_and_another_payment_a_conflict(file: Path):
    journal = Journal(file)
    first = entry("t1")
    batch = [first, entry("t1", answer=b"later"), entry("t1", digest=b"another payment!"), entry("t2")]
    assert journal.append(batch) == [RECORDED, first.answer, CONFLICT, RECORDED]
    assert journal.append(batch) == [first.answer, first.answer, CONFLICT, entry("t2").answer]
    assert [one.transaction_id for one in waiting(file)] == ["t1", "t2"]
    journal.close()


def test_places_are_never_given_twice(file: Path):
    journal = Journal(file)
    journal.append([entry("t1")])
    ((first, _),) = journal.oldest(1)
    journal.remove([first])
    journal.append([entry("t2")])
    ((second, _),) = journal.oldest(1)
    assert second > first, "a drain that is late would remove another decision"
    journal.close()


def test_a_decision_is_found_by_its_payment(file: Path):
    journal = Journal(file)
    assert journal.find("t1") is None
    assert journal.oldest(1) == []
    assert not file.exists(), "looking makes no journal"
    journal.append([entry("t1")])
    found = journal.find("t1")
    assert found is not None
    assert (found.transaction_id, found.vector.tolist(), found.feature_service) == ("t1", [1.0], "fraud_v1")
    assert (found.request, found.answer) == (entry("t1").request, entry("t1").answer)
    assert journal.find("t2") is None
    journal.close()


def test_a_commit_returns_when_the_disk_has_it(file: Path, monkeypatch: pytest.MonkeyPatch):
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def watched(*arguments: object, **named: object) -> sqlite3.Connection:
        opened.append(connect(*arguments, **named))  # type: ignore[call-overload]
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", watched)
    journal = Journal(file)
    journal.append([entry("t1")])
    (connection,) = opened
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    journal.close()


def test_what_was_taken_outlives_a_kill_at_any_moment(file: Path):
    writer = child(
        """
journal = Journal(Path(sys.argv[1]))
for n in range(100_000):
    assert journal.append([entry(f"a{n}"), entry(f"b{n}")]) == [Mark.RECORDED] * 2
    print(n, flush=True)
""",
        str(file),
    )
    assert writer.stdout is not None
    assert [writer.stdout.readline() for _ in range(20)][-1] == "19\n"
    writer.send_signal(signal.SIGKILL)
    told = 19 + len(writer.communicate()[0].splitlines())
    kept = [one.transaction_id for one in waiting(file)]
    assert kept[: 2 * (told + 1)] == [f"{side}{n}" for n in range(told + 1) for side in "ab"]
    assert len(kept) % 2 == 0, "a batch is there whole or not at all"


def test_two_processes_at_once_lose_nothing_and_decide_a_payment_once(file: Path):
    program = """
journal = Journal(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
made = 0
for n in range(60):
    own, shared = journal.append([entry(f"{sys.argv[2]}-{n}"), entry(f"shared-{n}", answer=sys.argv[2].encode())])
    assert own is Mark.RECORDED, own
    made += shared is Mark.RECORDED
print(made, flush=True)
"""
    workers = [child(program, str(file), name) for name in ("left", "right")]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    told = run_together(workers)
    assert [worker.returncode for worker in workers] == [0, 0]
    assert sum(int(one) for one in told) == 60
    kept = [one.transaction_id for one in waiting(file)]
    assert sorted(kept) == sorted(f"{name}-{n}" for name in ("left", "right", "shared") for n in range(60))


def test_workers_that_open_a_new_journal_at_the_same_instant_all_can(tmp_path: Path):
    program = """
journals = [Journal(Path(sys.argv[1]) / str(n) / "journal.db") for n in range(15)]
print("ready", flush=True)
sys.stdin.readline()
for journal in journals:
    assert journal.append([entry(sys.argv[2])]) == [Mark.RECORDED]
"""
    workers = [child(program, str(tmp_path), name) for name in ("left", "right", "third")]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    run_together(workers)
    assert [worker.returncode for worker in workers] == [0, 0, 0]


def run_together(workers: Sequence[subprocess.Popen[str]]) -> list[str]:
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    return [worker.communicate(timeout=60)[0] for worker in workers]


def test_a_full_disk_refuses_the_whole_batch_and_keeps_what_was_taken(file: Path):
    program = """
import resource
journal = Journal(Path(sys.argv[1]))
assert journal.append([entry("before")]) == [Mark.RECORDED]
room = 200_000
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
taken = 0
try:
    while taken < 1_000:
        journal.append([entry(f"a{taken}", request=b"x" * 2_000), entry(f"b{taken}", request=b"x" * 2_000)])
        taken += 1
except Unavailable as error:
    print(taken, error.part, flush=True)
assert journal.find("before") is not None
try:
    journal.append([entry("refused", request=b"x" * room)])
except Unavailable:
    print("refused", flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(journal.append([entry("room again")]), flush=True)
"""
    writer = child(program, str(file))
    said = writer.communicate(timeout=60)[0].splitlines()
    assert writer.returncode == 0
    taken, part = said[0].split()
    assert part == "decision_log"
    assert 1 <= int(taken) < 1_000
    assert said[1:] == ["refused", str([RECORDED])]
    kept = [one.transaction_id for one in waiting(file)]
    assert kept == ["before", *(f"{side}{n}" for n in range(int(taken)) for side in "ab"), "room again"]


def test_a_journal_that_cannot_be_opened_is_unavailable_until_it_can(file: Path):
    file.parent.write_bytes(b"")  # a file where the folder should be
    journal = Journal(file)
    with pytest.raises(Unavailable, match="decision log"):
        journal.append([entry("t1")])
    os.unlink(file.parent)
    assert journal.append([entry("t1")]) == [RECORDED]
    journal.close()


def test_a_file_that_is_no_journal_is_unavailable(file: Path):
    file.parent.mkdir()
    file.write_bytes(b"no database at all" * 100)
    journal = Journal(file)
    with pytest.raises(Unavailable):
        journal.append([entry("t1")])
    with pytest.raises(Unavailable):
        journal.oldest(1)
    with pytest.raises(Unavailable):
        journal.find("t1")
