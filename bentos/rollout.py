"""The models in service and how they change: the registry is polled, and a new line-up takes the place of the old one.

Invariant: `lineup` is replaced whole, in one assignment, by models that have passed every check; what goes wrong with
the registry or a version leaves it as it is. Nothing here waits for the registry but the thread that polls it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx

from bentos.challenger_guard import Allowance, ChallengerGuard, Reason
from bentos.lineup import Lineup
from bentos.lineup_card import ChallengerOut, LineupCard
from bentos.model import LoadedModel
from bentos.out_record import OutRecord
from bentos.seat import Prepare
from bentos.seats import Seats
from bentos.shadow import Answered, Shadow
from bentos.swap_report import tell
from bentos.traffic_tags import TrafficTags
from feature_repo.settings import Settings
from monitoring.controls import BACK_TAG

logger = logging.getLogger("bentoml.service.tollgate.models")

OUT_FILE = "challenger-out.json"


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Models:
    """The line-up in service, kept up to date from `open` to `close`; `lineup` may be read by any thread."""

    lineup: Lineup

    def __init__(
        self,
        settings: Settings,
        columns: Sequence[str],
        fallback_columns: Sequence[str],
        *,
        prepare: Prepare = lambda model: None,
        now: Callable[[], datetime] = _utc_now,
        transport: httpx.BaseTransport | None = None,
        shadow_client: Any = None,
    ) -> None:
        self._seats = Seats(settings, columns, fallback_columns, prepare, now, transport)
        self._tags = TrafficTags(settings.challenger_weight, settings.shadow)
        self.guard = ChallengerGuard(Allowance.of(settings), self.take_out)
        self._shadow = Shadow(settings, self.guard, shadow_client)
        self._record = OutRecord(settings.home / "models" / settings.model_name / OUT_FILE)
        self._out: ChallengerOut | None = None
        self._back = ""
        self._now, self._every = now, settings.registry_poll.total_seconds()
        self._lock = threading.Lock()  # of what a line-up is made from; never held while the registry is asked
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="registry", daemon=True)

    def shadow(self, answered: Sequence[Answered]) -> None:
        """Hand over payments that were answered, for the challenger to score in shadow; waits for nothing."""
        self._shadow.take(self.lineup, answered)

    def card(self) -> LineupCard:
        """What the service tells of its models."""
        served = self.lineup
        challenger, fallback = served.challenger, served.fallback
        return LineupCard(
            **dict(served.champion.card()),
            challenger=None if challenger is None else challenger.card(),
            challenger_weight=served.weight,
            shadow=served.shadow,
            challenger_out=self._out,
            fallback=None if fallback is None else fallback.card(),
            refused=self._seats.refused,
            refused_tags=self._tags.refused,
            registry_reachable=bool(self._seats.reachable),
        )

    def open(self) -> None:
        """Find the models to serve, then keep looking. Out of the registry's reach the last ones served are taken.

        Raises `NoModel`, `ContractMismatch` or `InvalidModel` where no champion is fit to serve.
        """
        self._compose(self._seats.take())
        self._thread.start()
        self._shadow.start()

    def poll(self) -> None:
        """Look at the registry once and put in service what has changed."""
        self._compose(self._seats.follow())

    def close(self) -> None:
        """End the threads; the line-up stays."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1.0)  # one that waits for the registry ends with the process
        self._shadow.close()
        self._seats.close()

    def take_out(self, challenger: LoadedModel, reason: Reason, detail: str) -> None:
        """Take the challenger out of service until another version comes or it is called back."""
        version = challenger.version
        with self._lock:
            sitting = self.lineup.challenger
            if sitting is None or sitting.version != version:
                return
            out = ChallengerOut(version=version, reason=reason, detail=detail, since=self._now(), back=self._back)
            self._out = out
            self._swap()
        logger.error(
            "Challenger version %s is out: %s. The champion answers alone; "
            "`python -m monitoring.traffic --challenger-back` brings it back.",
            *(version, detail),
        )
        self._record.write(out)

    def _follow(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self.poll()
            except Exception:  # the thread must outlive whatever a registry may answer or a disk refuse
                logger.exception("The registry could not be followed; what is in service stays.")

    def _compose(self, tags: Mapping[str, str] | None) -> None:
        """Make the line-up from who sits where and what the tags say; None leaves the tags as they were."""
        recorded = self._record.read()
        with self._lock:
            if tags is not None:
                self._tags.read(tags)
                self._back = tags.get(BACK_TAG, "")
            self._out = self._out or recorded
            out, sitting = self._out, self._seats.challenger.model
            over = out is not None and sitting is not None and (out.version, out.back) != (sitting.version, self._back)
            if over:
                self._out = None
                self.guard.forget()
            self._swap()
        if over:
            self._record.clear()

    def _swap(self) -> None:
        champion = self._seats.champion.model
        assert champion is not None
        challenger = None if self._out is not None else self._seats.challenger.model
        weight = 0.0 if challenger is None else self._tags.weight
        shadow = challenger is not None and self._tags.shadow
        before = getattr(self, "lineup", None)
        now = Lineup(champion, challenger, self._seats.fallback.model, weight, shadow)
        if now != before:
            self.lineup = now
            tell(before, now, None if self._out is None else self._out.reason)
