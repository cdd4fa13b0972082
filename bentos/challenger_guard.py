"""The guard of the challenger: runs it, counts its failures, times it against the champion, and calls it out.

Invariant: nothing a challenger does reaches the caller but its scores. Times are the calling thread's own CPU time, of
both models on the same rows, so that other work of the machine is held against neither.
"""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from bentos.model import LoadedModel
from feature_repo.settings import Settings
from monitoring.metrics import metrics

logger = logging.getLogger(__name__)

Reason: TypeAlias = Literal["failures", "slow"]
REASONS: tuple[Reason, ...] = ("failures", "slow")

TIMED_EVERY = 0.1
"""Seconds between two timings, which cost a run of the champion each."""

TIMED_ENOUGH = 10
"""Timings before anything is said of a challenger's speed."""


class TakeOut(Protocol):
    """What to do with a challenger that is out; `detail` says why, for people."""

    def __call__(self, challenger: LoadedModel, reason: Reason, detail: str) -> None: ...


@dataclass(frozen=True)
class Allowance:
    """What a challenger may do within `window` seconds before it is out.

    Out for failures: more than `failures` runs failed, and more than `failure_share` of all. Out as slow: its median
    run takes `slow_factor` times the champion's or more, and `slow_from` seconds or more.
    """

    window: float
    failures: int
    failure_share: float
    slow_factor: float
    slow_from: float

    @classmethod
    def of(cls, settings: Settings) -> Allowance:
        """The allowance of the settings."""
        return cls(
            window=settings.challenger_window.total_seconds(),
            failures=settings.challenger_max_failures,
            failure_share=settings.challenger_max_failure_share,
            slow_factor=settings.challenger_slow_factor,
            slow_from=settings.challenger_slow_from,
        )


@dataclass(slots=True)
class _Second:
    began: float
    runs: int = 0
    failed: int = 0


class ChallengerGuard:
    """Watches one challenger at a time; safe for several threads."""

    def __init__(
        self,
        allowance: Allowance,
        take_out: TakeOut,
        clock: Callable[[], float] = time.monotonic,
        timer: Callable[[], float] = time.thread_time,
    ) -> None:
        self._allowance, self._take_out = allowance, take_out
        self._clock, self._timer = clock, timer
        self._lock = threading.Lock()
        self._version = ""
        self.forget()

    def forget(self) -> None:
        """Begin anew, as with a challenger never seen."""
        with self._lock:
            self._seconds: deque[_Second] = deque()
            self._timings: deque[tuple[float, float, float]] = deque()  # (when, challenger's seconds, champion's)
            self._next_timing = self._clock()

    def run(
        self, champion: LoadedModel, challenger: LoadedModel, vectors: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64] | None:
        """The challenger's probabilities, shape (n,); None where it fails, whatever it raises."""
        if challenger.version != self._version:
            self.forget()
            self._version = challenger.version
        timed = self._clock() >= self._next_timing
        began = self._timer() if timed else 0.0  # a call into the kernel
        try:
            found = challenger.score(vectors)
        except Exception as error:  # a candidate's failure of any kind is no reason to fail a payment
            self._failed(challenger, error)
            return None
        spent = self._timer() - began if timed else 0.0
        now = self._clock()
        self._count(now, failed=0)
        if timed:
            self._compare(champion, challenger, vectors, spent, now)
        return found

    def _failed(self, challenger: LoadedModel, error: Exception) -> None:
        metrics.challenger_failures.inc()
        runs, failed = self._count(self._clock(), failed=1)
        if failed == 1:  # the first within the window; the others will not tell more
            logger.warning("Challenger version %s failed, the champion answers: %s", challenger.version, error)
        if failed > self._allowance.failures and failed > self._allowance.failure_share * runs:
            detail = f"{failed} of its {runs} runs failed within {self._allowance.window:g} s, the last one: {error}"
            self._take_out(challenger, "failures", detail)

    def _count(self, now: float, failed: int) -> tuple[int, int]:
        """Count a run; the runs and the failed ones within the window where this one failed, else zeros."""
        with self._lock:
            if not self._seconds or now - self._seconds[-1].began >= 1.0:
                self._seconds.append(_Second(now))
                while now - self._seconds[0].began > self._allowance.window:
                    self._seconds.popleft()
            self._seconds[-1].runs += 1
            self._seconds[-1].failed += failed
            if not failed:
                return 0, 0
            return sum(one.runs for one in self._seconds), sum(one.failed for one in self._seconds)

    def _compare(
        self,
        champion: LoadedModel,
        challenger: LoadedModel,
        vectors: npt.NDArray[np.float32],
        spent: float,
        now: float,
    ) -> None:
        began = self._timer()
        try:
            champion.score(vectors)
        except Exception:  # its failure shows where it answers
            return
        with self._lock:
            self._next_timing = now + TIMED_EVERY
            self._timings.append((now, spent, self._timer() - began))
            while now - self._timings[0][0] > self._allowance.window:
                self._timings.popleft()
            taken = [one[1] for one in self._timings]
            usual = [one[2] for one in self._timings]
        if len(taken) < TIMED_ENOUGH:
            return
        own, other = statistics.median(taken), statistics.median(usual)
        if own >= self._allowance.slow_from and own >= self._allowance.slow_factor * other:
            detail = f"its median run takes {own * 1e3:.2f} ms, the champion's on the same rows {other * 1e3:.2f} ms"
            self._take_out(challenger, "slow", detail)
