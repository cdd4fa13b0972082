"""The challenger in the champion's shadow: it scores the payments that the champion answered, and nobody waits for it.

Invariant: handing a batch over costs an append; what is too much is dropped and counted, whatever fails stays here. The
scoring has a thread of its own, which lets several batches gather and scores them in one run.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bentos.challenger_guard import ChallengerGuard
from bentos.lineup import Floats, Lineup
from bentos.model import LoadedModel
from bentos.payments import Asked
from feature_repo.contract import ModelContract
from feature_repo.settings import Settings
from monitoring.declaration import observe_many
from monitoring.metrics import metrics
from monitoring.shadow_log import encode

logger = logging.getLogger(__name__)

GATHER = 0.05
"""Seconds batches gather: runs are long enough to be cheap, and short enough not to be in the way."""

AT_ONCE = 1_000
"""Payments in one run and in one entry of the stream."""

REDIS_TIMEOUT = 1.0


class Answered(Protocol):
    """A payment with its answer, as `bentos.scoring.Scored`; the vector must not change any more."""

    @property
    def asked(self) -> Asked: ...

    @property
    def vector(self) -> npt.NDArray[np.float32]: ...

    @property
    def model(self) -> LoadedModel: ...

    @property
    def probability(self) -> float: ...


Batch = tuple[Lineup, Sequence[Answered]]


class Shadow:
    """Takes answered batches from the gate's thread and scores them in its own. `client` is a Redis for the stream."""

    def __init__(self, settings: Settings, guard: ChallengerGuard, client: Any = None) -> None:
        self._stream, self._kept, self._room = settings.shadow_stream, settings.shadow_kept, settings.shadow_waiting
        self._guard, self._client = guard, client or _redis(settings.redis_url)
        self._batches: deque[Batch] = deque()
        self._handed = self._taken = 0  # payments; each is written by one thread alone, so neither needs a lock
        self._recording = True
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)

    def start(self) -> None:
        """Begin to score."""
        self._thread.start()

    def close(self) -> None:
        """Score what waits and end; what takes longer than a second is left."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=REDIS_TIMEOUT)
        self._client.close()

    def take(self, lineup: Lineup, answered: Sequence[Answered]) -> None:
        """Hand over payments; those that the line-up's champion answered will be scored."""
        if lineup.challenger is None or not lineup.shadow:
            return
        if self._handed - self._taken + len(answered) > self._room:
            metrics.shadow_dropped.inc(len(answered))
            return
        self._handed += len(answered)
        self._batches.append((lineup, answered))

    def _run(self) -> None:
        last = False
        while not last:
            last = self._stop.wait(GATHER)
            try:
                self.score_waiting()
            except Exception:  # a thread that ended would drop everything from here on
                logger.exception("A batch could not be scored in shadow.")

    def score_waiting(self) -> None:
        """Score and record every batch that waits."""
        while self._batches:
            lineup, answered = self._gather()
            self._taken += len(answered)
            chosen = [one for one in answered if one.model is lineup.champion]
            if chosen and lineup.challenger is not None:
                self._score(lineup.champion, lineup.challenger, chosen)

    def _gather(self) -> Batch:
        """The next batches of one line-up, of `AT_ONCE` payments together or one larger batch alone."""
        lineup, first = self._batches.popleft()
        gathered = list(first)
        while self._batches and self._batches[0][0] is lineup and len(gathered) + len(self._batches[0][1]) <= AT_ONCE:
            gathered.extend(self._batches.popleft()[1])
        return lineup, gathered

    def _score(self, champion: LoadedModel, challenger: LoadedModel, chosen: Sequence[Answered]) -> None:
        given = self._guard.run(champion, challenger, np.stack([one.vector for one in chosen]))
        if given is None:
            return
        own = _decisions(champion.contract, np.array([one.probability for one in chosen]))
        metrics.shadow_scores.inc(len(given))
        metrics.shadow_disagreements.inc(int((own != _decisions(challenger.contract, given)).sum()))
        observe_many(metrics.shadow_score, given)
        self._record(challenger.version, [one.asked.payment.transaction_id for one in chosen], given)

    def _record(self, version: str, transaction_ids: Sequence[str], given: Floats) -> None:
        fields = encode(version, transaction_ids, given)
        try:
            self._client.xadd(self._stream, fields, maxlen=self._kept, approximate=True)
            self._recording = True
        except Exception as error:  # redis-py's own errors and the system's; the scores are in the metrics
            metrics.shadow_unrecorded.inc(len(given))
            if self._recording:
                logger.warning("Shadow scores do not reach stream '%s', they are lost: %s", self._stream, error)
            self._recording = False


def _decisions(contract: ModelContract, probabilities: Floats) -> npt.NDArray[np.int8]:
    """2 for decline, 1 for review, 0 for approve, as `contract.decide` has it."""
    declined = probabilities >= contract.decline_from
    return np.where(declined, 2, probabilities >= contract.review_from).astype(np.int8)


def _redis(url: str) -> Any:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    once = Retry(NoBackoff(), 0)  # patience here would hold up the batches behind
    return redis.Redis.from_url(url, socket_timeout=REDIS_TIMEOUT, socket_connect_timeout=REDIS_TIMEOUT, retry=once)
