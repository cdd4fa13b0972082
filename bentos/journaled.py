"""The decision log with its stand-in: the log's server while it answers, else the journal, and back again by itself.

A decision is on record in one of the two before it is answered; where neither takes it, it is refused. While the
journal holds anything, new decisions join it, so that a payment in it is known for decided.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from bentos.decisions import DecisionLog, Entry, Mark, Outcome
from bentos.errors import Unavailable
from bentos.journal import Journal
from bentos.wire import RECONNECT_EVERY
from monitoring.decision_log import LoggedDecision
from monitoring.metrics import metrics

logger = logging.getLogger("bentoml.service.tollgate.log")

T = TypeVar("T")

LOOK_EVERY = 0.2
"""Seconds between looks whether the log's server is back."""

PAGE = 500
"""Journal entries carried over in one call: more than the batches that join it between two calls."""


class JournaledLog:
    """A `DecisionLog`; for one event loop. `conflicts` takes what a later drain finds decided otherwise."""

    def __init__(self, log: DecisionLog, journal: Journal, conflicts: Callable[[Entry], None]) -> None:
        self._log, self._journal, self._conflicts = log, journal, conflicts
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._away = False
        self._turn = asyncio.Lock()
        """Held to use the journal, and to give it up: no decision joins it unseen in its last moment."""
        self._returning: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Carry over what an earlier process left in the journal."""
        metrics.journal_in_use.set(0)
        if self._journal.in_use() or await self._in_thread(lambda: bool(self._journal.oldest(1))):
            self._use_journal("An earlier process left decisions in the journal.")

    async def append(self, entries: Sequence[Entry]) -> list[Outcome]:
        """See `DecisionLog`."""
        given, why = await self._append_to_log(entries)
        if given is not None:
            return given
        async with self._turn:
            self._use_journal(why or "Another worker has decisions there.")
            take = self._journal.append if why else self._journal.join
            while (outcomes := await self._in_thread(partial(take, entries))) is None:  # all are in the log meanwhile
                given, why = await self._append_to_log(entries)
                if given is not None:
                    return given
                take = self._journal.append if why else self._journal.join
        metrics.decisions_journaled.inc(sum(one is Mark.RECORDED for one in outcomes))
        return outcomes

    async def find(self, transaction_id: str) -> LoggedDecision | None:
        """See `DecisionLog`."""
        waiting = await self._in_thread(lambda: self._journal.find(transaction_id))
        return waiting or await self._log.find(transaction_id)

    async def alive(self) -> bool:
        """See `DecisionLog`: the journal is there where the log's server is not."""
        return (not self._away and await self._log.alive()) or await self._takes()

    def close(self) -> None:
        """See `DecisionLog`."""
        if self._returning is not None:
            self._returning.cancel()
        self._thread.submit(self._journal.close).result()
        self._thread.shutdown()
        self._log.close()

    async def _append_to_log(self, entries: Sequence[Entry], *, last: bool = False) -> tuple[list[Outcome] | None, str]:
        """What the log's server makes of them; None and, where it was asked, why it does not answer."""
        if self._journal.in_use():  # a payment that waits in the journal is unknown to the log, and any other to it
            return None, ""
        try:
            return await self._log.append(entries), ""
        except Unavailable as error:
            why = f"{error} {error.__cause__ or ''}"
        if self._away and not last:  # another worker is back already: this one's connection is a moment behind
            await asyncio.sleep(2 * RECONNECT_EVERY)
            return await self._append_to_log(entries, last=True)
        return None, why

    async def _takes(self) -> bool:
        try:
            await self._in_thread(self._journal.check)
        except Unavailable:
            return False
        return True

    def _use_journal(self, why: str) -> None:
        if not self._away:
            self._away = True
            metrics.journal_in_use.set(1)
            logger.warning("Decisions go to the journal. %s", why)
            self._returning = asyncio.get_running_loop().create_task(self._return())

    async def _return(self) -> None:
        """Until the log's server answers and has everything that the journal held."""
        while True:
            try:
                while await self._log.alive():
                    async with self._turn:
                        page = await self._in_thread(lambda: self._journal.oldest(PAGE))
                        if page:
                            await self._carry(page)
                        if len(page) < PAGE and await self._in_thread(self._journal.give_up):
                            self._away = False
                            metrics.journal_in_use.set(0)
                            logger.warning("The decision log answers again; the journal is empty.")
                            return
            except Unavailable:
                pass  # it was told when the journal took over; what waits is looked at again
            except Exception:
                logger.exception("The journal cannot be carried over; trying again.")
            await asyncio.sleep(LOOK_EVERY)

    async def _carry(self, page: Sequence[tuple[int, Entry]]) -> None:
        outcomes = await self._log.append([entry for _, entry in page])
        for (_, entry), outcome in zip(page, outcomes, strict=True):
            # An answer equal to its own is this very entry, carried before the connection was lost.
            if outcome is not Mark.RECORDED and outcome != entry.answer:
                logger.error("Payment '%s' was decided twice while the log was away.", entry.transaction_id)
                await asyncio.get_running_loop().run_in_executor(None, self._conflicts, entry)
                metrics.decision_conflicts.inc()
        await self._in_thread(lambda: self._journal.remove([place for place, _ in page]))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
