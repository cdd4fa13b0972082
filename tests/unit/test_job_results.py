"""What jobs found is read as it was written, and only what the catalogue has is taken."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from monitoring import job_results
from monitoring.job_results import Gauge, InvalidResult

AT = datetime(2025, 3, 1, 12, 30, tzinfo=UTC)
FOUND = [Gauge("live_recall", {"maturity": "full"}, 0.9), Gauge("score_drift", {}, 0.03)]


def test_a_result_is_read_as_it_was_written(tmp_path: Path):
    path = job_results.write(tmp_path, "quality_job", FOUND, {"rows": 12, "worst": ["a"]}, AT)
    assert path == tmp_path / "monitoring" / "quality_job.json"
    found = job_results.read(tmp_path, "quality_job")
    assert found == job_results.JobResult("quality_job", AT, FOUND, {"rows": 12, "worst": ["a"]})
    assert job_results.every(tmp_path) == [found]


def test_the_next_result_replaces_the_last_one(tmp_path: Path):
    job_results.write(tmp_path, "quality_job", FOUND, {}, AT)
    job_results.write(tmp_path, "quality_job", FOUND[:1], {}, AT)
    found = job_results.read(tmp_path, "quality_job")
    assert found is not None
    assert found.gauges == FOUND[:1]
    assert [path.name for path in (tmp_path / "monitoring").iterdir()] == ["quality_job.json"]


def test_a_job_that_never_ran_has_no_result(tmp_path: Path):
    assert job_results.read(tmp_path, "drift_job") is None
    assert job_results.every(tmp_path) == []
    assert job_results.counts(tmp_path) == []


@pytest.mark.parametrize(
    ("gauge", "rule"),
    [
        (Gauge("no_such", {}, 1.0), "not in the catalogue"),
        (Gauge("live_recall", {}, 1.0), "has labels"),
        (Gauge("score_drift", {"card": "c1"}, 1.0), "has labels"),
        (Gauge("score_drift", {}, float("nan")), "leave out"),
        (Gauge("rollbacks", {"reason": "manual"}, 1.0), "is a counter"),
    ],
)
def test_what_the_catalogue_does_not_have_is_refused(tmp_path: Path, gauge: Gauge, rule: str):
    with pytest.raises(InvalidResult, match=rule):
        job_results.write(tmp_path, "drift_job", [gauge], {}, AT)
    assert job_results.read(tmp_path, "drift_job") is None


@pytest.mark.parametrize("job", ["", "../x", "Drift", "counts"])
def test_a_job_is_named_as_a_file_may_be(tmp_path: Path, job: str):
    with pytest.raises(InvalidResult, match="Job"):
        job_results.write(tmp_path, job, FOUND, {}, AT)


def test_a_naive_instant_is_refused(tmp_path: Path):
    with pytest.raises(InvalidResult, match="time zone"):
        job_results.write(tmp_path, "drift_job", FOUND, {}, AT.replace(tzinfo=None))


def test_a_file_of_another_form_is_named(tmp_path: Path):
    path = job_results.write(tmp_path, "drift_job", FOUND, {}, AT)
    path.write_text('{"job": 3')
    with pytest.raises(InvalidResult, match=r"drift_job\.json"):
        job_results.read(tmp_path, "drift_job")


def test_counts_outlive_who_counted_and_add_up_by_label(tmp_path: Path):
    def count() -> None:
        for _ in range(20):
            job_results.add(tmp_path, "rollbacks", reason="manual")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    job_results.add(tmp_path, "rollbacks", reason="live_quality")
    found = {one.labels["reason"]: one.value for one in job_results.counts(tmp_path)}
    assert found == {"manual": 80.0, "live_quality": 1.0}
    assert job_results.every(tmp_path) == [], "counts are no job's result"
    with pytest.raises(InvalidResult, match="must be a counter"):
        job_results.add(tmp_path, "score_drift")
