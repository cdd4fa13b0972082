"""Marks of a round: whole or not there, and worth nothing once their files have changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from feature_repo.settings import ROOT
from training.marks import Busy, Marks, alone


def test_a_step_is_done_once_it_is_marked_and_stays_so(tmp_path: Path):
    marks = Marks(tmp_path, "a")
    assert marks.found("data") is None
    (marks.folder / "rows").write_bytes(b"1")
    marks.done("data", {"rows": 1}, ["rows"])
    assert Marks(tmp_path, "a").found("data") == {"rows": 1}
    assert Marks(tmp_path, "b").found("data") is None, "another round"
    marks.forget(["data", "train"])
    assert marks.found("data") is None


@pytest.mark.parametrize("spoil", [lambda file: file.write_bytes(b"2"), lambda file: file.unlink()])
def test_a_step_whose_files_are_not_as_it_left_them_is_not_done(tmp_path: Path, spoil):  # type: ignore[no-untyped-def]
    marks = Marks(tmp_path, "a")
    (marks.folder / "rows").write_bytes(b"1")
    marks.done("data", {}, ["rows"])
    spoil(marks.folder / "rows")
    assert marks.found("data") is None


def test_the_files_of_the_newest_rounds_stay(tmp_path: Path):
    for age, key in enumerate(("new", "older", "oldest")):
        folder = Marks(tmp_path, key).folder
        os.utime(folder, (1e9 - age, 1e9 - age))
    Marks(tmp_path, "now").tidy(2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "now"]


def test_two_rounds_don_t_run_at_once_and_one_that_is_killed_lets_go(tmp_path: Path):
    code = (
        "import sys, time; from pathlib import Path; from training.marks import alone\n"
        "with alone(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Busy, match="Another round is running"), alone(tmp_path):
            pass
        other.kill()
        other.wait()
    with alone(tmp_path):
        pass
