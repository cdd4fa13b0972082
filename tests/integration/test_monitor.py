"""The monitor runs real commands when they are due, outlives their failures, and tells what they found."""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from prometheus_client import generate_latest

from feature_repo.settings import Settings
from monitoring import job_results
from monitoring.exporter import registry
from monitoring.job_results import Gauge
from monitoring.job_runner import JobRunner
from monitoring.jobs import JOBS, Job
from monitoring.processes import Platform, at_free_ports
from monitoring.snapshot import Watch, parsed, rates
from monitoring.targets import read_targets, targets, write_targets

NOW = datetime.now(UTC)
FINDS = """
import os
from datetime import UTC, datetime
from pathlib import Path
from monitoring import job_results
home = Path(os.environ["FRAUD_HOME"])
job_results.write(home, "drift", [job_results.Gauge("score_drift", {}, 0.25)], {}, datetime.now(UTC))
"""


def job(name: str, code: str, needs: tuple[str, ...] = (), period: str = "drift_every") -> Job:
    return Job(name, (sys.executable, "-c", code), period, needs)


def at(home: Path, **changed: object) -> Settings:
    return Settings(home=home, jobs_after=timedelta(0), **changed)


def awaited(condition: Callable[[], object], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


@contextmanager
def running(runner: JobRunner) -> Iterator[None]:
    ended = threading.Event()
    thread = threading.Thread(target=runner.run, args=(ended,))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def exported(home: Path) -> dict[str, float]:
    return parsed(generate_latest(registry(home)).decode())


def test_a_job_that_fails_is_told_and_stops_no_other(tmp_path: Path):
    current = at(tmp_path, drift_every=timedelta(hours=1))
    bad, good = job("skew", "print('no such table'); raise SystemExit(3)"), job("drift", FINDS)
    runner = JobRunner(current, (bad, good))
    with running(runner):
        awaited(lambda: "drift" in runner.runs)
    found = exported(tmp_path)
    assert found['fraud_job_failed{job="skew"}'] == 1
    assert found['fraud_job_failed{job="drift"}'] == 0
    assert found['fraud_job_failures_total{job="skew"}'] == 1
    assert found['fraud_job_duration_seconds{job="drift"}'] > 0
    assert found['fraud_job_last_success_timestamp_seconds{job="drift"}'] == pytest.approx(time.time(), abs=300)
    assert 'fraud_job_last_success_timestamp_seconds{job="skew"}' not in found
    assert found["fraud_score_drift"] == 0.25
    assert (tmp_path / "logs" / "job-skew.log").read_text() == "no such table\n"


def test_a_job_is_run_again_after_its_period_and_not_before(tmp_path: Path):
    mark = tmp_path / "runs"
    code = f"open({str(mark)!r}, 'a').write('x')"
    often, seldom = at(tmp_path, drift_every=timedelta(milliseconds=1)), at(tmp_path, drift_every=timedelta(hours=1))
    with running(JobRunner(often, (job("drift", code),))):
        awaited(lambda: mark.exists() and len(mark.read_text()) >= 2)
    count = len(mark.read_text())
    second = JobRunner(seldom, (job("drift", code), job("skew", FINDS)))  # a monitor that starts anew
    with running(second):
        awaited(lambda: "skew" in second.runs)
    assert len(mark.read_text()) == count
    assert second.runs["drift"].code == 0


def test_a_job_that_takes_too_long_is_ended_and_has_failed(tmp_path: Path):
    current = at(tmp_path, job_timeout=timedelta(seconds=0.2))
    runner = JobRunner(current, (job("drift", "import time; time.sleep(300)"),))
    with running(runner):
        awaited(lambda: "drift" in runner.runs)
    assert runner.runs["drift"].code is None
    assert runner.runs["drift"].failed
    assert not [each for each in psutil.Process().children() if "time.sleep(300)" in " ".join(each.cmdline())]


def test_what_is_off_or_cannot_be_run_here_is_not_run(tmp_path: Path):
    mark = tmp_path / "ran"
    lacking = job("skew", f"open({str(mark)!r}, 'w')", needs=("no_such_package.module",), period="skew_every")
    runner = JobRunner(at(tmp_path, drift_every=None), (lacking, job("drift", f"open({str(mark)!r}, 'w')")))
    with running(runner):
        time.sleep(0.1)
        awaited(lambda: runner.periods() == {"skew": None, "drift": None})
    assert runner.absent == {"skew": ["no_such_package.module"]}
    assert not mark.exists()


def test_every_job_of_the_table_has_a_period_and_a_name_of_its_own():
    assert len({each.name for each in JOBS}) == len(JOBS)
    off = [each.name for each in JOBS if each.every(Settings()) is None]
    assert off == ["loop"], "nothing acts by itself unless it was asked to"
    assert all(each.every(Settings(loop_every=timedelta(hours=1))) is not None for each in JOBS)


def test_an_unreadable_result_hides_no_other(tmp_path: Path):
    job_results.write(tmp_path, "drift", [Gauge("score_drift", {}, 0.1)], {}, NOW)
    (tmp_path / "monitoring" / "quality.json").write_text("{ half")
    (tmp_path / "monitoring" / "old.json").write_text(
        json.dumps({"job": "old", "at": NOW.isoformat(), "gauges": [["x", {}, 1]], "details": {}})
    )
    assert exported(tmp_path)["fraud_score_drift"] == 0.1


def test_of_two_jobs_figures_of_one_thing_the_later_stands(tmp_path: Path):
    for name, value, when in (("a", 0.1, NOW), ("b", 0.9, NOW - timedelta(hours=1))):
        job_results.write(tmp_path, name, [Gauge("score_drift", {}, value)], {}, when)
    assert exported(tmp_path)["fraud_score_drift"] == 0.1


def test_targets_are_the_parts_that_tell_metrics(tmp_path: Path):
    current = Settings(
        home=tmp_path, port=3100, monitor_port=3110, stream_metrics_port=3111, feedback_metrics_port=None
    )
    names = ["redis", "mlflow", "service", "stream", "feedback", "monitor"]
    write_targets(current, names)
    assert read_targets(current) == [
        {"targets": ["127.0.0.1:3100"], "labels": {"job": "service"}},
        {"targets": ["127.0.0.1:3111"], "labels": {"job": "stream"}},
        {"targets": ["127.0.0.1:3110"], "labels": {"job": "monitor"}},
    ]
    assert targets(current.model_copy(update={"metrics": False}), names) == []
    with_tls = current.model_copy(update={"tls_cert": tmp_path / "cert.pem"})
    assert targets(with_tls, ["service"])[0]["labels"]["__scheme__"] == "https"


def test_the_monitor_serves_its_page_its_metrics_and_reports_and_nothing_else(tmp_path: Path):
    current = at_free_ports(Settings(home=tmp_path / "home"))
    job_results.write(current.home, "drift", [Gauge("score_drift", {}, 0.25)], {}, NOW)
    (current.home / "monitoring" / "drift.html").write_text("<p>drift</p>")
    (current.home / "secret").write_text("secret")
    url = f"http://127.0.0.1:{current.monitor_port}"

    def get(path: str) -> str:
        with urllib.request.urlopen(url + path, timeout=20) as answer:
            return answer.read().decode()

    with Platform(current) as platform:
        platform.start("monitor")
        assert "fraud_score_drift 0.25" in get("/metrics").splitlines()
        assert "<html" in get("/").lower() or "<!doctype" in get("/").lower()
        snapshot = json.loads(get("/snapshot.json"))
        assert set(snapshot) == {"at", "up", "samples", "rates", "jobs"}
        assert snapshot["samples"]["fraud_score_drift"] == 0.25
        assert set(snapshot["jobs"]) == {each.name for each in JOBS}
        assert get("/reports/drift.html") == "<p>drift</p>"
        for path in ("/reports/../secret", "/reports/%2e%2e/secret", "/reports//etc/passwd", "/nothing"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(path)
        assert [each["labels"]["job"] for each in read_targets(current)] == ["monitor"]
    assert read_targets(current) == []


def test_a_rate_is_what_a_count_grew_a_second_also_after_it_began_anew():
    before = {"a_total": 10.0, "b_total": 10.0, "gauge": 1.0}
    now = {"a_total": 30.0, "b_total": 4.0, 'c_total{x="1"}': 2.0, "gauge": 5.0}
    assert rates(before, now, 2.0) == {"a_total": 10.0, "b_total": 2.0, 'c_total{x="1"}': 1.0}
    assert rates(before, now, 0.0) == {}


def test_a_part_that_is_away_is_told(tmp_path: Path):
    current = at_free_ports(Settings(home=tmp_path))
    write_targets(current, ["stream"])
    watch = Watch(current, JobRunner(current, ()))
    watch.scrape(100.0)
    assert watch.look()["up"] == {"stream": 0.0}
