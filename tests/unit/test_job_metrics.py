"""Every metric of jobs has a job or a command that writes it, by name."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from feature_repo.settings import ROOT
from monitoring.catalogue_jobs import JobMetrics
from monitoring.catalogue_quality import QualityMetrics
from monitoring.declaration import Metric, declared
from monitoring.quality_job import PROMISES

WRITERS = ("monitoring", "training")
WRITING = ("Gauge(", "job_results.add(")
OWN = ("job_results", "exporter")


def texts() -> Iterator[str]:
    """Every text in the code of modules that make figures; those that only read them are left out."""
    for folder in WRITERS:
        for file in sorted((ROOT / folder).glob("*.py")):
            code = file.read_text()
            if file.stem not in OWN and any(word in code for word in WRITING):
                yield from (node.value for node in ast.walk(ast.parse(code)) if _is_text(node))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


NAMED = {*texts(), *(f"live_{name}" for name in PROMISES)}


@pytest.mark.parametrize("entry", [*declared(JobMetrics), *declared(QualityMetrics)], ids=lambda entry: entry.attribute)
def test_a_metric_of_jobs_is_written_by_one(entry: Metric):
    assert entry.attribute in NAMED
