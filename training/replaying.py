"""A replay of payments against a running platform, as a process of its own that waits wherever something is due."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.schema import HISTORY_SCHEMA
from feature_repo.settings import Settings
from monitoring.parts import environment
from monitoring.processes import Platform


class ReplayFailed(RuntimeError):
    """A part of the replay ended before its work was done."""


def environ(current: Settings) -> dict[str, str]:
    """The environment of a child process with these settings."""
    return {**os.environ, **environment(current)}


def replay(
    platform: Platform, rows: pd.DataFrame, step: timedelta, due: Callable[[datetime], None], *, quiet: bool = False
) -> Path:
    """Score each payment over HTTP before it enters the stream; returns the file of the answers, one JSON a line.

    At each `step` of event time that the payments pass, `due` is told the instant, and the replay waits for it. `quiet`
    hides the process's progress. Raises `ReplayFailed`.
    """
    current = platform.settings
    payments, answers = current.home / "replay.parquet", current.home / "answers.jsonl"
    table = pa.Table.from_pandas(rows[HISTORY_SCHEMA.names], schema=HISTORY_SCHEMA, preserve_index=False)
    pq.write_table(table, payments)
    command = [sys.executable, "-m", "stream_jobs.replay", str(payments), str(answers)]
    command += ["--service", f"http://{current.host}:{current.port}", "--step", str(step.total_seconds())]
    with subprocess.Popen(  # noqa: S603 — our own module
        command,
        env=environ(current),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for line in process.stdout:
                due(datetime.fromisoformat(json.loads(line)["due"]))
                process.stdin.write("\n")
                process.stdin.flush()
        except BaseException:
            process.kill()
            raise
        if process.wait():
            raise ReplayFailed(f"The replay ended with code {process.returncode}; see {platform.log('stream')}.")
    return answers
