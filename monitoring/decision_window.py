"""The decisions on payments of a period, wherever they lie by now: all of them as columns, or a sample with vectors.

Invariant: a sample is the rows with the smallest hashes, so that each decision is in it with the same chance, the same
log gives the same sample, and memory is that of the sample, not of the log.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from itertools import islice
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.settings import Settings
from monitoring.decision_finder import has_table
from monitoring.decision_log import LoggedDecision, read_decisions

CONTROL_MARK = '"control_group":true'
"""What the answer's JSON holds where the control group let a payment pass."""

COLUMNS = (
    "transaction_id", "card_id", "paid_at", "decided_at", "amount", "score", "decision", "model_name", "model_version",
    "model_role", "degraded_cause", "service", "control_group",
)  # fmt: skip
"""Of a frame of decisions; instants are UTC, `amount` in the payment's currency, `degraded_cause` may be null."""

_READ = (
    "transaction_id, card_id, paid_at, decided_at, amount, fraud_probability, decision, model_name, model_version,"
    " model_role, degraded_cause, service, position(%(mark)s IN answer) > 0"
)
_WHERE = "decided_at >= %(since)s AND paid_at >= %(begin)s AND paid_at < %(end)s"

PAGE = 10_000


class NoDecisions(LookupError):
    """Decisions that cannot be had where this process looks."""


class _Payment(msgspec.Struct, gc=False):
    timestamp: datetime
    card_id: str
    amount: float


_payment = msgspec.json.Decoder(_Payment).decode


@dataclass(frozen=True)
class Period:
    """The payments' own instants, [begin, end), aware."""

    begin: datetime
    end: datetime

    def __contains__(self, instant: datetime) -> bool:
        return self.begin <= instant < self.end

    def __str__(self) -> str:
        return f"[{self.begin:%F %R}, {self.end:%F %R})"

    def before(self) -> Period:
        """The period of the same length that ends where this one begins."""
        return Period(self.begin - (self.end - self.begin), self.begin)


@dataclass(frozen=True)
class Sample:
    """Decisions with what the model saw: `rows` has `COLUMNS`, `vectors` is float32 (rows, features), null as NaN.

    `seen` decisions of the period and service were there to be drawn from; `requests` are the payments' JSON.
    """

    rows: pd.DataFrame
    vectors: npt.NDArray[np.float32]
    requests: list[bytes]
    seen: int

    def __len__(self) -> int:
        return len(self.rows)


def every(current: Settings, period: Period) -> pd.DataFrame:
    """All decisions on payments of the period, one row each, without their vectors.

    Raises `NoDecisions` where the log cannot be read by time, and what redis-py and psycopg raise.
    """
    if _in_table(current):
        from monitoring.decision_table import connect

        with connect(current.postgres_url) as connection, connection.cursor("every") as cursor:
            cursor.itersize = PAGE
            cursor.execute(f"SELECT {_READ} FROM decisions WHERE {_WHERE}", _asked(current, period))  # noqa: S608
            return _frame(cursor)
    return _frame(_row(one, paid) for one, paid in _logged(current, period))


def sampled(current: Settings, period: Period, service: str, rows: int) -> Sample:
    """At most `rows` decisions on payments of the period that were made on a feature service; raises as `every`."""
    return (
        _from_table(current, period, service, rows)
        if _in_table(current)
        else _from_log(_logged(current, period), service, rows)
    )


def _in_table(current: Settings) -> bool:
    """Whether the decisions are asked of Postgres: where it has their table, for the log is trimmed behind it."""
    there = False
    if has_table(current):
        from monitoring.decision_table import connect

        with connect(current.postgres_url) as connection:
            there = connection.execute("SELECT to_regclass('decisions')").fetchone() != (None,)
    if not there and current.decision_log == "kafka":
        raise NoDecisions(
            "Decisions go to Kafka, which cannot be asked for a period: run `stream_jobs.decisions` and set "
            "FRAUD_POSTGRES_URL to the Postgres it carries them into."
        )
    return there


def _asked(current: Settings, period: Period) -> dict[str, Any]:
    # A payment is decided no earlier than this before its own time; the table has an index on the decision's.
    since = period.begin - current.max_future - timedelta(seconds=1)
    return {"since": since, "begin": period.begin, "end": period.end, "mark": CONTROL_MARK}


def _logged(current: Settings, period: Period) -> Iterator[tuple[LoggedDecision, _Payment]]:
    since = _asked(current, period)["since"]
    for one in read_decisions(current.redis_url, current.decisions_stream, since):
        paid = _payment(one.request)
        if paid.timestamp in period:
            yield one, paid


def _row(one: LoggedDecision, paid: _Payment) -> tuple[Any, ...]:
    told = one.told
    return (
        told.transaction_id, paid.card_id, paid.timestamp, told.timestamp, paid.amount, told.fraud_probability,
        told.decision, told.model_name, told.model_version, told.model_role, told.degraded_cause, one.feature_service,
        told.control_group,
    )  # fmt: skip


def _from_log(logged: Iterable[tuple[LoggedDecision, _Payment]], service: str, rows: int) -> Sample:
    kept: list[tuple[int, str, LoggedDecision, _Payment]] = []
    seen = 0
    for one, paid in logged:
        if one.feature_service != service:
            continue
        seen += 1
        rank = -int.from_bytes(blake2b(one.entry.encode(), digest_size=8).digest())
        if len(kept) < rows:
            heapq.heappush(kept, (rank, one.entry, one, paid))
        elif rank > kept[0][0]:
            heapq.heapreplace(kept, (rank, one.entry, one, paid))
    found = [(one, paid) for _, _, one, paid in sorted(kept, key=lambda each: _place(each[1]))]
    return Sample(
        _frame([_row(*each) for each in found]),
        _stacked([one.vector for one, _ in found]),
        [one.request for one, _ in found],
        seen,
    )


def _place(entry: str) -> tuple[int, ...]:
    """Where an entry stands in its stream."""
    return tuple(int(part) for part in entry.split("-"))


def _from_table(current: Settings, period: Period, service: str, rows: int) -> Sample:
    from monitoring.decision_table import connect

    where = f"{_WHERE} AND service = %(service)s"
    drawn = f"SELECT seq FROM decisions WHERE {where} ORDER BY hashtextextended(transaction_id, 0) LIMIT %(rows)s"  # noqa: S608
    asked = _asked(current, period) | {"service": service, "rows": rows}
    with connect(current.postgres_url) as connection:
        (seen,) = connection.execute(f"SELECT count(*) FROM decisions WHERE {where}", asked).fetchone() or (0,)  # noqa: S608
        found = connection.execute(
            f"SELECT {_READ}, vector, request FROM decisions WHERE seq IN ({drawn}) ORDER BY seq",  # noqa: S608
            asked,
        ).fetchall()
    return Sample(
        _frame([row[:-2] for row in found]),
        _stacked([np.frombuffer(row[-2], "<f4") for row in found]),
        [row[-1].encode() for row in found],
        int(seen),
    )


def _stacked(vectors: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    widths = {len(one) for one in vectors}
    if len(widths) > 1:
        raise NoDecisions(
            f"Vectors of one feature service have {sorted(widths)} columns; must be of one length. Its columns were "
            "changed: ask of the days since then alone (--days)."
        )
    return np.stack(vectors) if vectors else np.empty((0, 0), np.float32)


def _frame(rows: Iterable[tuple[Any, ...]]) -> pd.DataFrame:
    """Rows as columns, page by page; a text that comes again and again is held once."""
    held: dict[Any, Any] = {}
    given, pages = iter(rows), [_page([], held)]
    while page := list(islice(given, PAGE)):
        pages.append(_page(page, held))
    return pd.concat(pages[1:] or pages, ignore_index=True)


def _page(rows: list[tuple[Any, ...]], held: dict[Any, Any]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in ("paid_at", "decided_at"):
        frame[name] = pd.to_datetime(frame[name], utc=True)
    for name in ("card_id", "decision", "model_name", "model_version", "model_role", "degraded_cause", "service"):
        frame[name] = [held.setdefault(value, value) for value in frame[name]]
    return frame.astype({"control_group": bool, "amount": float, "score": float, "degraded_cause": object})
