"""What a transport gives a job: records with an identity, and a place to say that one is done.

Every transport delivers at least once and forgets a record only when it is acknowledged, so whatever is not
acknowledged before a crash is delivered again. Applying a record twice must change nothing. As long as a source lives
it gives each record once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from bytewax.inputs import FixedPartitionedSource

IN_FLIGHT = 50_000
"""Records of a partition that may be given and not yet acknowledged: no more are given until some are. It bounds what a
job holds in memory and what a crash delivers again, and must exceed what a job gathers before it acknowledges."""

COUNTED = 10_000
"""Records that a backlog counts at the most."""

LAST_INSTANT = 253_402_300_799_999_999
"""The end of the year 9999, µs: a sender's word beyond it is none."""

_DIGITS = len(str(LAST_INSTANT))

End = Any
"""A place in a log, in its transport's own terms."""


class Record(NamedTuple):
    """One message as the transport holds it. `partition` and `id` identify it; instants are µs since 1970 UTC.

    `ingested_at` is when the platform first had the event: the sender's word, or else `appended_at`, when the transport
    took it in. `body` may be anything at all.
    """

    partition: str
    id: str
    body: bytes
    ingested_at: int
    appended_at: int


class Acknowledger(Protocol):
    """Says to the transport that records are done; safe to repeat.

    It needs not live where the source does, but all records of a partition go to one acknowledger, by one thread at a
    time.
    """

    def acknowledge(self, partition: str, ids: Sequence[str]) -> None:
        """Forget these records of the partition, in whatever order they come.

        A transport that can only forget from the front on (Kafka, files) forgets a record when all before it are done.
        It may learn of this a little later, and raises then at the next call what went wrong.
        """

    def bury(self, records: Sequence[tuple[Record, str]]) -> None:
        """Keep records that cannot be processed, each with the reason, where a person will look for them."""

    def close(self) -> None:
        """Return when the transport knows of every acknowledgement; without it a few may be delivered again."""


class Publisher(Protocol):
    """Appends messages to the log that a transport reads; for one thread at a time."""

    def publish(self, bodies: Sequence[bytes], ingested_at: Sequence[int | None], keys: Sequence[bytes]) -> None:
        """Append messages and return when the log has them all; those of one key stay in order.

        An instant (µs since 1970 UTC) is when the sender first had the event, if it knows. A key says what belongs
        together: for a transaction its `card_id`. After an error all may be sent again, since an event counts once.
        """

    def close(self) -> None:
        """End the connection."""


class Backlog(Protocol):
    """How far a group is behind its log; for one thread at a time."""

    def end(self) -> End:
        """Where the log ends: what was appended before this call lies below, what comes later does not."""

    def lag(self, end: End = None) -> int:
        """Records below `end` (default: where the log ends now) that the group has not acknowledged.

        Counts to 10,000 of what was given and of what was not. Kafka counts positions, of which a transactional
        producer's markers take some.
        """

    def close(self) -> None:
        """End the connection."""


class Transport(Protocol):
    """A log as one group sees it; each of its parts is made where it is used, and connects there."""

    def source(self) -> FixedPartitionedSource[Record, Any]:
        """The Bytewax source; it connects when it is built, not before."""

    def acknowledger(self) -> Acknowledger:
        """An acknowledger of its own connection."""

    def publisher(self) -> Publisher:
        """The sending side, of its own connection; the same for every group."""

    def backlog(self) -> Backlog:
        """What the group has yet to do, of its own connection."""

    def rewind(self, to: str) -> None:
        """Have this group given again whatever group `to` has not acknowledged; no job may be reading for this one.

        What neither has acknowledged is given once. Where this group is behind the other already, nothing changes.
        """


def sender_instant(stated: bytes | None) -> int | None:
    """The instant that a sender states as text of µs since 1970 UTC; None where it states none that can be read."""
    if not stated or len(stated) > _DIGITS or not stated.isdigit():
        return None
    instant = int(stated)
    return instant if instant <= LAST_INSTANT else None
