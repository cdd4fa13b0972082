"""What runs by the clock, as Airflow sees it: the commands that a person would type, in order, and no more.

`k8s/base/schedules.yaml` is the same without Airflow. Airflow and Tollgate have an environment each; a task starts
Tollgate's interpreter: TOLLGATE_PYTHON in the folder TOLLGATE_APP, which are the image's unless they are set.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Param, chain

PYTHON = os.environ.get("TOLLGATE_PYTHON", "/opt/tollgate/bin/python")
APP = os.environ.get("TOLLGATE_APP", "/app")
BEGIN = datetime(2026, 1, 1)

SKIP = 99
"""Airflow's own: a task that ends with it is skipped, and with it what would follow, and its run is no failure."""

ROUND = f"training.retrain --skip-code {SKIP}"


@dataclass(frozen=True)
class Workflow:
    """When it runs, in UTC, and its steps: a name and the module that `python -m` runs.

    Where `in_order`, a step that fails or is skipped ends the run; else each is run whatever becomes of the others.
    """

    schedule: str
    steps: dict[str, str]
    in_order: bool = False


WORKFLOWS = {
    "tollgate_publish": Workflow("5 * * * *", {"publish": "training.batch"}),
    "tollgate_watch": Workflow(
        "20 * * * *",
        {"drift": "monitoring.drift_job", "quality": "monitoring.quality_job", "skew": "training.skew_audit"},
    ),
    # Due or not is asked once, by the first step; the others go on with its round. What a gate holds back is skipped
    # and promoted by nobody. Any other end than that, and than a challenger, is a failure.
    "tollgate_retrain": Workflow(
        "0 3 * * 1",
        {
            "data": f"{ROUND} {{{{ params.due }}}} --until data",
            "validate": f"{ROUND} --force --until validate",
            "train": f"{ROUND} --force --until train",
            "gate": f"{ROUND} --force",
            "promote": f"training.promote promote --skip-code {SKIP}",
        },
        in_order=True,
    ),
    # Rolls back and trains again by what `tollgate_watch` found; have it or `tollgate_retrain`.
    "tollgate_loop": Workflow("50 * * * *", {"loop": "training.loop"}),
}

for name, workflow in WORKFLOWS.items():
    with DAG(
        name,
        schedule=workflow.schedule,
        start_date=BEGIN,
        catchup=False,  # each command looks at what is due by itself
        is_paused_upon_creation=True,
        max_active_runs=1,
        max_active_tasks=1,
        default_args={"retries": 1, "execution_timeout": timedelta(hours=6)},
        params={"due": Param("--every-days 7", enum=["--every-days 7", "--force"])} if workflow.in_order else None,
    ):
        steps = [
            BashOperator(task_id=step, bash_command=f"{PYTHON} -m {run}", cwd=APP)
            for step, run in workflow.steps.items()
        ]
        if workflow.in_order:
            chain(*steps)
