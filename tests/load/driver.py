"""An open-loop HTTP/1.1 load generator: requests leave when they are due, whatever became of the ones before.

Invariant: a request's latency counts from the instant at which it was due, also while it waited for a free connection,
so that a service that stops for a second shows it in every request of that second (coordinated omission, as in wrk2).
One thread, requests encoded beforehand: about 15 µs of CPU for each at full speed, most of it the kernel's.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.load.connections import RETRY, Connections

CONNECTIONS = 64
LEAD = 0.02
"""Seconds from the call until the first request is due."""

TICK = 0.000_2
"""Seconds for which requests that fall due are gathered, to be sent together: it saves waking up for each.
A request's latency holds its share of it."""

Floats = npt.NDArray[np.float64]


@dataclass
class Outcome:
    """What became of the requests, in their order: seconds from the start at which each was due and answered.

    `done` is NaN and `status` `NO_ANSWER` where no answer came. `bodies` are kept on demand. `began` is Unix time.
    """

    due: Floats
    done: Floats
    status: npt.NDArray[np.int64]
    began: float
    seconds: float
    cpu_seconds: float
    bodies: list[bytes] | None = None


class Driver:
    """A load from this thread on one address. `run` is called once."""

    def __init__(self, host: str, port: int, connections: int = CONNECTIONS) -> None:
        self._connections = Connections(host, port, connections)

    def run(
        self,
        requests: Sequence[bytes],
        due: Sequence[float] | None = None,
        seconds: float = float("inf"),
        *,
        patience: float = 5.0,
        keep_bodies: bool = False,
    ) -> Outcome:
        """Send each request at its instant `due` (ascending), or without instants as fast as answers come.

        The latter ends after `seconds` or with the last request. What is not answered `patience` seconds after the last
        one was due, or sent, never is.
        """
        flow = self._connections
        flow.carry(requests, keep_bodies=keep_bodies)
        gc.collect()
        gc.disable()  # a pause of the driver would count as the service's
        began, wall, cpu = time.perf_counter() + LEAD, time.time() + LEAD, time.process_time()
        try:
            when = self._closed(began, seconds, patience) if due is None else self._open(began, due, patience)
        finally:
            gc.enable()
            flow.close()
        count = len(when)
        return Outcome(
            due=np.array(when, np.float64),
            done=np.array(flow.done[:count]) - began,
            status=np.array(flow.status[:count], np.int64),
            began=wall,
            seconds=time.perf_counter() - began,
            cpu_seconds=time.process_time() - cpu,
            bodies=None if flow.bodies is None else flow.bodies[:count],
        )

    def _open(self, began: float, due: Sequence[float], patience: float) -> Sequence[float]:
        clock, flow, idle, send = time.perf_counter, self._connections, self._connections.idle, self._connections.send
        sent, count, give_up = 0, len(due), began + due[-1] + patience
        while (now := clock()) < give_up:
            elapsed = now - began
            while sent < count and due[sent] <= elapsed and idle:
                send(idle.pop(), sent)
                sent += 1
            if sent == count and not flow.flying:
                break
            wait = max(due[sent] - (clock() - began), TICK) if sent < count and idle else RETRY
            flow.receive(min(wait, RETRY) if flow.lost else wait)
        return due

    def _closed(self, began: float, seconds: float, patience: float) -> Sequence[float]:
        clock, flow, idle, send = time.perf_counter, self._connections, self._connections.idle, self._connections.send
        when: list[float] = []
        count, end = len(flow.status), began + seconds
        time.sleep(LEAD)
        while (now := clock()) < end and len(when) < count:
            while idle and len(when) < count:
                when.append(clock() - began)
                send(idle.pop(), len(when) - 1)
            flow.receive(min(RETRY, end - now))
        end = clock() + patience
        while flow.flying and clock() < end:
            flow.receive(RETRY)
        return when
