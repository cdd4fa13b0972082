"""Records of a transport as payments: read, judged by the schema and by their age, and put into columns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from feature_repo.quick_json import Payment, decode
from feature_repo.schema import InvalidTransaction, Transaction, parse_json
from feature_repo.window_state import Ints, to_us
from feature_repo.windows import microseconds
from stream_jobs.blocks import Block, block_name
from stream_jobs.transports.base import Record


@dataclass(frozen=True)
class Payments:
    """The valid payments among some records, with their instants (µs since 1970 UTC), and the dead with the reasons."""

    records: list[Record]
    payments: list[Payment | Transaction]
    ts: list[int]
    dead: list[tuple[Record, str]]

    def column(self, name: str) -> list[Any]:
        """One field of every valid payment."""
        return [getattr(payment, name) for payment in self.payments]

    def block(self, partition: str, names: Sequence[str]) -> Block:
        """The valid payments, records of one partition, as columns."""
        return Block(
            name=block_name(),
            partition=partition,
            fields={name: self.column(name) for name in names},
            ts=_ints(self.ts),
            ingested_at=self.ingested_at(),
            appended_at=_ints([record.appended_at for record in self.records]),
        )

    def ingested_at(self) -> Ints:
        """When each valid payment was first had."""
        return _ints([record.ingested_at for record in self.records])


def by_partition(records: Iterable[Record]) -> Iterable[tuple[str, list[Record]]]:
    """The records of each partition, in their order."""
    found: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        found[record.partition].append(record)
    return found.items()


def read(records: Sequence[Record], lateness: timedelta, skew: timedelta) -> Payments:
    """Read records, each valid, or dead for a reason. Too late or too early is measured against when the event was
    first had, not against others, so that it does not depend on what else arrived."""
    latest, earliest = microseconds(lateness), -microseconds(skew)
    found = Payments([], [], [], [])
    valid, payments, instants = found.records, found.payments, found.ts
    for record in records:
        payment: Payment | Transaction
        quick = decode(record.body)
        if quick is not None:
            payment, ts = quick
        else:
            try:
                payment = parse_json(record.body, subject=f"in record {record.id}")
            except InvalidTransaction as error:
                found.dead.append((record, f"invalid: {error}"))
                continue
            ts = to_us(payment.timestamp)
        behind = record.ingested_at - ts
        if behind > latest:
            reason = f"late: {behind / 1e6:.6f} s behind; at most {lateness} is allowed"
        elif behind < earliest:
            reason = f"early: {-behind / 1e6:.6f} s ahead; at most {skew} is allowed"
        else:
            valid.append(record)
            payments.append(payment)
            instants.append(ts)
            continue
        found.dead.append((record, reason))
    return found


def _ints(values: list[int]) -> Ints:
    return np.array(values, np.int64)
