"""One large state at a time: merged by itself, sealed when that pays, and never above its bound.

A large state is sealed: events that no exact window can reach any more become tiles (`window_tiles`), and a ledger
comes to lie beside the state. So an entity of any number of events is answered exactly, as long as those of the last 25
to 34 hours are at most `MAX_EVENTS`. The price: an event 24 h and `STATE_SLACK` older than its entity's latest one
may lie below the seal, where it cannot be told from one that is there already; it is refused, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from feature_repo.window_kernels import HEADER, NEVER
from feature_repo.window_layout import InvalidState, Layout, words_of
from feature_repo.window_ledger import Ledger
from feature_repo.window_merge import merge
from feature_repo.window_state import Events, Ints
from feature_repo.window_tiles import Tiles, seal, seal_at
from feature_repo.windows import WindowSpec

SEAL_ABOVE = 2_048
"""Events of a state from which on it may be sealed, and is as soon as that takes a quarter of them off it."""


@dataclass(slots=True)
class Sealed:
    """A sealed state with its ledger; `saved` says whether the online store has this ledger already.

    A state that is sealed no more leaves an empty ledger once, so that the store lets go the last one.
    """

    state: bytes
    ledger: bytes
    saved: bool = False


Stored = bytes | Sealed
"""What the online store holds of an entity: a state, and beside one that is sealed its ledger."""


@dataclass
class LargeState:
    """A state under way: its events in `words`, apart from the tiles and the ledger if it is sealed.

    `added`, `overflowed` and `refused` count the events of `merge`.
    """

    layout: Layout
    words: Ints
    tiles: Tiles | None = None
    ledger: Ledger | None = None
    stored: Sealed | None = None
    unsealed: bool = False
    added: int = 0
    overflowed: int = 0
    refused: int = 0

    @classmethod
    def of(cls, layout: Layout, spec: WindowSpec, stored: Stored | None) -> LargeState:
        """Raises `InvalidState` for a state of another view, and for a sealed one without the ledger of its seal."""
        if not isinstance(stored, Sealed):
            return cls(layout, words_of(layout, spec, stored, sealed=False))
        words = words_of(layout, spec, stored.state)
        if words[0] != layout.sealed_magic:
            return cls(layout, words)
        end = HEADER + layout.sealed_width * int(words[1])
        tiles = Tiles.of(words[end:], layout.n_values, layout.n_distinct)
        ledger = Ledger.loads(stored.ledger, layout.n_distinct)
        if ledger is None or (ledger.magic, ledger.seal) != (layout.sealed_magic, tiles.seal):
            raise InvalidState(
                f"The ledger beside a sealed state of the view keyed by '{spec.join_key}' ({len(stored.ledger)} bytes) "
                "is not that state's. Rebuild the state from history."
            )
        return cls(layout, words[:end], tiles, ledger, stored)

    @property
    def ts(self) -> Ints:
        """The instants of the events that are not sealed, ascending."""
        return self.words[HEADER : HEADER + int(self.words[1])] if len(self.words) else self.words

    def merge(self, events: Events, bound: int, seal_above: int) -> None:
        """Merge events in, seal what pays, and drop what is beyond the bound."""
        if self.tiles is not None and self.ledger is not None:
            events = self._above(self.tiles.seal, events)
            events = replace(events, distinct=np.concatenate((events.distinct, self.ledger.before(events.distinct))))
        room = 0
        if len(events.ts):
            latest = max(int(events.ts.max()), int(self.ts[-1]) if len(self.ts) else NEVER)
            edge = seal_at(latest)  # what will be sealed needs no room
            room = int(np.searchsorted(self.ts, edge)) + int((events.ts < edge).sum())
        self._merge(events, bound + room)
        if self.tiles is None or self.added:
            self._forget()
            self.settle(bound, seal_above)

    def settle(self, bound: int, seal_above: int) -> bool:
        """Seal what pays, and drop what is beyond the bound; returns whether there was any of it."""
        before, n = self.words, int(self.words[1])
        if n > min(seal_above, bound):
            below = int(np.searchsorted(self.ts, seal_at(int(self.ts[-1]))))
            if below and (4 * below >= n or n > bound):
                self._seal(below)
        if self.words[1] > bound:
            self._merge(self._no_events(), bound)
        return self.words is not before

    def dumps(self) -> Stored:
        """What to store; the very object that was given where a sealed state has not changed."""
        if self.tiles is None or self.ledger is None:
            return Sealed(self.words.tobytes(), b"") if self.unsealed else self.words.tobytes()
        if self.stored is None:
            return Sealed(b"".join((self.words.data, self.tiles.words().data)), self.ledger.dumps())
        if not self.added:
            return self.stored
        return replace(self.stored, state=b"".join((self.words.data, self.tiles.words().data)))

    def _above(self, edge: int, events: Events) -> Events:
        above = events.ts >= edge
        if above.all():
            return events
        # What is forgotten already, and comes again, is no loss.
        self.refused += int((~above & (events.ts > self.words[3])).sum())
        return events.where(above)

    def _merge(self, events: Events, bound: int) -> None:
        magic = self.layout.magic if self.tiles is None else self.layout.sealed_magic
        self.words, added, overflowed = merge(
            self.words, events.ts, events.ids, events.values, events.distinct, events.ingest,
            magic, self.layout.retention, bound,
        )  # fmt: skip
        self.added += int(added)
        self.overflowed += int(overflowed)

    def _forget(self) -> None:
        """Let go the tiles that no window can reach, and be an ordinary state again when all of them are."""
        if self.tiles is None:
            return
        oldest = int(self.ts[-1]) - self.layout.retention
        kept = self.tiles.since(oldest)
        gone = len(self.tiles.begins) - len(kept.begins)
        if gone:
            self.words[3] = max(self.words[3], self.tiles.lasts[gone - 1])
        self.tiles = kept
        if kept.seal <= oldest:
            self.words = self.words[: HEADER + self.layout.width * int(self.words[1])]
            self.words[0] = self.layout.magic
            self.tiles = self.ledger = self.stored = None
            self.unsealed = True

    def _seal(self, below: int) -> None:
        n, layout = int(self.words[1]), self.layout
        columns = self.words[HEADER:].reshape(-1, n)
        values, distinct = columns[2 : 2 + layout.n_values], columns[2 + layout.n_values : layout.width]
        self.tiles, self.ledger = seal(
            self.tiles or Tiles.empty(layout.n_values, layout.n_distinct),
            self.ledger or Ledger.empty(layout.sealed_magic, layout.n_distinct),
            columns[0, :below],
            np.array(values[:, :below], order="C").view(np.float64),
            distinct[:, :below],
            int(columns[0, -1]),
            layout.retention,
        )
        before = self.ledger.before(distinct[:, below:])
        head = self.words[:HEADER].copy()
        head[0], head[1] = layout.sealed_magic, n - below
        self.words = np.concatenate((head, columns[: layout.width, below:].ravel(), before.ravel()))
        self.stored = None

    def _no_events(self) -> Events:
        none = np.empty(0, np.int64)
        rows = self.layout.n_distinct * (1 if self.tiles is None else 2)
        return Events(none, none, np.empty((self.layout.n_values, 0)), np.empty((rows, 0), np.int64), none)
