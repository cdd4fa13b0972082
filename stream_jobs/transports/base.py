"""What a transport gives a job: records with an identity, and a place to say that one is done.

Every transport delivers at least once and forgets a record only when it is acknowledged, so whatever is not
acknowledged before a crash is delivered again. Applying a record twice must change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bytewax.inputs import Source


@dataclass(frozen=True, slots=True)
class Record:
    """One message as the transport holds it. `partition` and `id` identify it; instants are µs since 1970 UTC.

    `ingested_at` is when the platform first had the event: the sender's word, or else `appended_at`, when the transport
    took it in.
    """

    partition: str
    id: str
    body: bytes
    ingested_at: int
    appended_at: int


class Acknowledger(Protocol):
    """Says to the transport that records are done; safe to repeat."""

    def acknowledge(self, partition: str, ids: Sequence[str]) -> None:
        """Forget these records of the partition."""

    def bury(self, records: Sequence[tuple[Record, str]]) -> None:
        """Keep records that cannot be processed, each with the reason, where a person will look for them."""


class Transport(Protocol):
    """A source of records and the acknowledger that belongs to it, both made where they are used."""

    def source(self) -> Source[Record]:
        """The Bytewax source; it connects when it is built, not before."""

    def acknowledger(self) -> Acknowledger:
        """A connected acknowledger."""
