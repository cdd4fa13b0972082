"""Airflow as a person has it who tries a workflow: `airflow dags test`, metadata in a file of SQLite, no server."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from feature_repo.settings import ROOT, Settings
from monitoring.parts import environment

PROGRAM = ROOT / ".tollgate" / "tools" / "airflow" / "bin" / "airflow"


@dataclass(frozen=True)
class Ran:
    """A workflow's run: Airflow's word on it, on each of its tasks, how often each was tried, and all that was said."""

    state: str
    tasks: dict[str, str]
    tries: dict[str, int]
    said: str


class Airflow:
    """An Airflow with the project's workflows, whose tasks start the project's interpreter in the project's folder."""

    def __init__(self, home: Path) -> None:
        if not PROGRAM.exists():
            pytest.fail("There is no Airflow: run `.ci/airflow-tools`, which makes its environment.")
        self.home = home
        self._environment = os.environ | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "k8s" / "workflows"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "0",
            "TOLLGATE_PYTHON": sys.executable,
            "TOLLGATE_APP": str(ROOT),
        }
        self._call("db", "migrate")

    def run(self, workflow: str, current: Settings, **conf: str) -> Ran:
        """Run a workflow once, now, to its end, on the platform of these settings; `conf` are its parameters."""
        before = self._ask("select count(*) from dag_run where dag_id = ?", workflow)
        said = self._call("dags", "test", workflow, "--conf", json.dumps(conf), **environment(current))
        newest = "select run_id, state from dag_run where dag_id = ? order by id desc"
        assert self._ask("select count(*) from dag_run where dag_id = ?", workflow) != before, said
        run, state = self._ask(newest, workflow)[0]
        asked = "select task_id, state, try_number from task_instance where dag_id = ? and run_id = ?"
        found = self._ask(asked, workflow, run)
        return Ran(state, {task: word for task, word, _ in found}, {task: tries for task, _, tries in found}, said)

    def _call(self, *arguments: str, **settings: str) -> str:
        """What Airflow says; it ends with 1 where a run has failed, which is the caller's to look at."""
        done = subprocess.run(
            [PROGRAM, *arguments],
            cwd=self.home,
            env=self._environment | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
        )
        assert done.returncode in (0, 1), done.stdout
        return done.stdout

    def _ask(self, query: str, *values: str) -> list[tuple[str, ...]]:
        with sqlite3.connect(self.home / "airflow.db") as database:
            return database.execute(query, values).fetchall()
