"""Offers a load from processes of their own, which hold nothing but the requests and the driver.

Each is told its share over a pipe, says when its requests are made, and begins when all have.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from feature_repo.settings import ROOT
from tests.load.driver import Driver, Outcome
from tests.load.serving_load import Load, Offered
from tests.load.serving_requests import requests
from tests.load.serving_schedule import constant, pieces

PATIENCE = 5.0
SPARE = 300.0
"""Seconds that making the requests may take, and what came of them to arrive."""


class DriverFailed(RuntimeError):
    """A driver's process ended without a result, or said nothing for too long."""


def offer(load: Load, during: Callable[[], None] | None = None) -> Offered:
    """Offer a load and wait for its end; `during` runs here meanwhile. Raises `DriverFailed`."""
    started = [_start() for _ in range(load.processes)]
    try:
        for number, (_, pipe) in enumerate(started):
            pipe.send((load, number))
        for _, pipe in started:
            _next(pipe, SPARE)
        for _, pipe in started:
            pipe.send("go")
        if during:
            during()
        length = sum(seconds for _, seconds in load.shape) or load.seconds
        return merged(load, [_next(pipe, length + PATIENCE + SPARE) for _, pipe in started])
    finally:
        for process, pipe in started:
            pipe.close()
            process.terminate()
            process.wait()


def merged(load: Load, outcomes: Sequence[Outcome]) -> Offered:
    """The outcomes of all processes as one, in the order of what was due."""
    due = np.concatenate([one.due for one in outcomes])
    order = np.argsort(due, kind="stable")
    bodies = [body for one in outcomes for body in one.bodies or ()]
    return Offered(
        load,
        due[order],
        np.concatenate([one.done for one in outcomes])[order],
        np.concatenate([one.status for one in outcomes])[order],
        began=min(one.began for one in outcomes),
        cpu_seconds=max(one.cpu_seconds for one in outcomes),
        longest=max(one.seconds for one in outcomes),
        bodies=[bodies[place] for place in order.tolist()] if bodies else [],
    )


def drive(load: Load, number: int, ready: Callable[[], Any]) -> Outcome:
    """One process's share: make its requests, say so, send them."""
    share, seed = load.processes, load.seed * 100 + number
    if load.shape:
        due = pieces([(rate / share, seconds) for rate, seconds in load.shape], seed)
    else:
        due = constant(load.most / share, load.seconds)
    made = requests(load.form, due, load.population, host=load.host, seed=seed, size=load.size, api_key=load.api_key)
    driver = Driver(load.host, load.port, max(load.connections // share, 1))
    instants = due.tolist() if load.shape else None
    ready()
    return driver.run(made, instants, load.seconds, patience=PATIENCE, keep_bodies=load.keep_bodies)


def _start() -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = multiprocessing.Pipe()
    with theirs:
        command = [sys.executable, "-m", __name__, str(theirs.fileno())]
        return subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()]), ours


def _next(pipe: Connection, patience: float) -> Any:
    if not pipe.poll(patience):
        raise DriverFailed(f"The driver said nothing for {patience:.0f} s.")
    try:
        return pipe.recv()
    except EOFError:
        raise DriverFailed("The driver has ended without a result; what it said is above.") from None


def main() -> None:
    """Be one driver, at the other end of the pipe whose number is given."""
    with Connection(int(sys.argv[1])) as pipe:
        load, number = pipe.recv()

        def ready() -> None:
            pipe.send("ready")
            pipe.recv()

        pipe.send(drive(load, number, ready))


if __name__ == "__main__":
    main()
