"""What runs by the clock, as Airflow sees it: the commands that a person would type, in order, and no more.

`k8s/base/schedules.yaml` is the same without Airflow. Airflow and Tollgate have an environment each; a task starts
Tollgate's interpreter.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, chain

PYTHON = "/opt/tollgate/bin/python"
BEGIN = datetime(2026, 1, 1)

SCHEDULES = {
    "tollgate_publish": ("5 * * * *", {"publish": "training.batch"}),
    "tollgate_watch": (
        "20 * * * *",
        {"drift": "monitoring.drift_job", "quality": "monitoring.quality_job", "skew": "training.skew_audit"},
    ),
    "tollgate_retrain": (
        "0 3 * * 1",
        {"retrain": "training.retrain --every-days 7", "promote": "training.promote promote"},
    ),
}
"""Of each workflow when it runs, in UTC, and its steps in order: a name and the module that `python -m` runs.

A step that fails ends its run: what a gate has blocked is promoted by nobody.
"""

for name, (schedule, steps) in SCHEDULES.items():
    with DAG(
        name,
        schedule=schedule,
        start_date=BEGIN,
        catchup=False,  # each command looks at what is due by itself
        max_active_runs=1,
        default_args={"retries": 1, "retry_delay": timedelta(minutes=5), "execution_timeout": timedelta(hours=6)},
    ):
        chain(
            *(BashOperator(task_id=step, bash_command=f"{PYTHON} -m {run}", cwd="/app") for step, run in steps.items())
        )
