"""The monitor: runs the jobs, tells Prometheus what they found, and shows the platform on one page.

    python -m monitoring.monitor

`/` is the page, `/status.json` its figures, `/metrics` for Prometheus, `/snapshot.json` what the page is made of,
`/reports/...` the files that jobs left in `<home>/monitoring`, `/docs/...` the documents, the runbook among them,
`/livez` says that it runs. It goes on whatever else of the platform is away.
"""

from __future__ import annotations

import json
import logging
import mimetypes
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from feature_repo.settings import Settings, settings
from monitoring import documents, job_results
from monitoring.exporter import registry
from monitoring.job_runner import JobRunner
from monitoring.snapshot import Watch
from monitoring.status_figures import figures
from monitoring.status_page import render

HTML = "text/html; charset=utf-8"

log = logging.getLogger("monitoring.monitor")


class Answers:
    """What is answered to a GET: content type and body; None where there is nothing at a path."""

    def __init__(self, current: Settings, watch: Watch) -> None:
        self._settings, self._watch = current, watch
        self._registry = registry(current.home)

    def get(self, path: str) -> tuple[str, bytes] | None:
        """The answer to one path."""
        if path == "/livez":
            return "text/plain", b"ok\n"
        if path == "/":
            return HTML, render(self._settings.home, self._settings, self._watch.look()).encode()
        if path == "/metrics" and self._settings.metrics:
            return CONTENT_TYPE_LATEST, generate_latest(self._registry)
        if path == "/snapshot.json":
            return "application/json", json.dumps(self._watch.look()).encode()
        if path == "/status.json":
            return "application/json", json.dumps(figures(self._watch.look())).encode()
        if path.startswith("/docs/"):
            document = documents.page(unquote(path.removeprefix("/docs/")))
            return None if document is None else (HTML, document.encode())
        if path.startswith("/reports/"):
            return self._report(unquote(path.removeprefix("/reports/")))
        return None

    def _report(self, name: str) -> tuple[str, bytes] | None:
        folder = (self._settings.home / job_results.FOLDER).resolve()
        path = (folder / name).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            return None
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return (HTML if kind == "text/html" else kind), path.read_bytes()


def server(current: Settings, answers: Answers) -> ThreadingHTTPServer:
    """The HTTP server, bound; raises `OSError` where the address cannot be had."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                found = answers.get(urlsplit(self.path).path)
            except Exception:
                log.exception("%s cannot be answered.", self.path)
                self.send_error(500)
                return
            if found is None:
                self.send_error(404)
                return
            kind, body = found
            self.send_response(200)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, form: str, *arguments: object) -> None:
            log.debug(form, *arguments)

    return ThreadingHTTPServer((current.metrics_host, current.monitor_port), Handler)


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit code, 1 where the address cannot be had."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    current, ended = settings(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    runner = JobRunner(current)
    watch = Watch(current, runner)
    try:
        serving = server(current, Answers(current, watch))
    except OSError as error:
        at = f"{current.metrics_host}:{current.monitor_port}"
        print(f"The monitor cannot listen at {at} ({error}). Set FRAUD_MONITOR_PORT to a free port.", file=sys.stderr)
        return 1
    threads = [
        threading.Thread(target=serving.serve_forever, name="http", daemon=True),
        threading.Thread(target=watch.run, args=(ended,), name="watch"),
        threading.Thread(target=runner.run, args=(ended,), name="jobs"),
    ]
    for thread in threads:
        thread.start()
    log.info("The monitor is at http://%s:%d.", current.metrics_host, current.monitor_port)
    ended.wait()
    serving.shutdown()
    for thread in threads:
        thread.join()
    serving.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
