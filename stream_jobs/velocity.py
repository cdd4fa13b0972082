"""The job that keeps windowed features fresh: `python -m bytewax.run stream_jobs.velocity`.

A record is acknowledged only when every view's state that counts it is readable in the online store, or when it lies
among the dead letters. Importing this module connects to nothing.

One job runs for a consumer group, with as many workers as it likes: a second one would keep states of its own, and of
two writers each would overwrite what the other has counted.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.operators import KeyedStream, StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from prometheus_client import start_http_server

from feature_repo.schema import InvalidTransaction, parse_json
from feature_repo.settings import Settings, settings
from feature_repo.store import feature_store
from feature_repo.window_state import to_us
from feature_repo.windows import microseconds
from monitoring.metrics import metrics
from stream_jobs.engine import Event, Plan, ShardLogic, Written, fan_out
from stream_jobs.history import write_history
from stream_jobs.transports.base import Acknowledger, Record, Transport
from stream_jobs.transports.configured import transport as configured

STREAM_SOURCE = "transactions_stream"

Parsed = Event | tuple[Record, str]
"""A valid event, or a record with the reason why it is none."""


def parse(record: Record, lateness: timedelta, skew: timedelta) -> Parsed:
    """A record as an event. Too late or too early is measured against when the event was first had, not against others,
    so that it does not depend on what else arrived."""
    try:
        transaction = parse_json(record.body, subject=f"in record {record.id}")
    except InvalidTransaction as error:
        return record, f"invalid: {error}"
    ts = to_us(transaction.timestamp)
    behind = record.ingested_at - ts
    if behind > microseconds(lateness):
        return record, f"late: {behind / 1e6:.6f} s behind; at most {lateness} is allowed"
    if -behind > microseconds(skew):
        return record, f"early: {-behind / 1e6:.6f} s ahead; at most {skew} is allowed"
    return Event(record, transaction.__dict__, ts, record.ingested_at)


class _CountDown(StatefulBatchLogic[tuple[str, int], list[str], None]):
    """Which records of a partition every view has accounted for; views are bits, `all_views` has them all set.

    Bits and not numbers, because a transport may deliver a record again before every view has had it the first time.
    """

    def __init__(self, all_views: Callable[[], int]) -> None:
        self._all_views = all_views
        self._open: dict[str, int] = {}

    def on_batch(self, batch: list[tuple[str, int]]) -> tuple[Iterable[list[str]], bool]:
        done = []
        wanted = self._all_views()
        for record, views in batch:
            accounted = self._open.pop(record, 0) | views
            if accounted == wanted:
                done.append(record)
            else:
                self._open[record] = accounted
        return ([done] if done else []), self.RETAIN

    def snapshot(self) -> None:
        """Nothing: what was open at a crash is delivered again."""
        return


@dataclass
class _Steps:
    """The steps that touch the outside, connected when they first run."""

    plan: Plan
    transport: Transport
    metrics_port: int | None

    def start(self, worker: int) -> None:
        """Before the first record: refuse what cannot be executed, and serve metrics to this machine."""
        specs = self.plan.specs
        for view in specs:
            metrics.state_overflow.labels(view=view)
        if worker == 0 and self.metrics_port is not None:
            start_http_server(self.metrics_port, addr="127.0.0.1")

    @cached_property
    def bits(self) -> dict[str, int]:
        """A bit for each view."""
        return {view: 1 << place for place, view in enumerate(self.plan.specs)}

    def all_views(self) -> int:
        """The bits of all views."""
        return sum(self.bits.values())

    @cached_property
    def _acknowledger(self) -> Acknowledger:
        return self.transport.acknowledger()

    def bury(self, dead: list[tuple[Record, str]]) -> Iterable[tuple[str, tuple[str, int]]]:
        self._acknowledger.bury(dead)
        for record, reason in dead:
            metrics.dead_letters.labels(reason=reason.split(":", 1)[0]).inc()
            metrics.stream_events.labels(outcome="dead").inc()
            yield record.partition, (record.id, self.all_views())

    def write(self, batch: list[tuple[str, Written]]) -> Iterable[tuple[str, tuple[str, int]]]:
        by_view: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        for _, written in batch:
            by_view[written.view] |= written.states
        for view, states in by_view.items():
            self.plan.write(view, states)
        now = time.time()
        first = next(iter(self.plan.specs))
        for _, written in batch:
            metrics.state_overflow.labels(view=written.view).inc(written.overflowed)
            if written.view == first:
                metrics.stream_events.labels(outcome="applied").inc(written.added)
                metrics.stream_events.labels(outcome="duplicate").inc(len(written.records) - written.added)
            for record in written.records:
                metrics.feature_freshness.observe(max(now - record.appended_at / 1e6, 0.0))
                yield record.partition, (record.id, self.bits[written.view])


class _AckSink(DynamicSink[tuple[str, list[str]]]):
    def __init__(self, steps: _Steps) -> None:
        self._steps = steps

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSinkPartition[Any]:
        self._steps.start(worker_index)
        return _AckPartition(self._steps.transport.acknowledger())


class _AckPartition(StatelessSinkPartition[tuple[str, list[str]]]):
    def __init__(self, acknowledger: Acknowledger) -> None:
        self._acknowledger = acknowledger

    def write_batch(self, items: list[tuple[str, list[str]]]) -> None:
        for partition, ids in items:
            self._acknowledger.acknowledge(partition, ids)

    def close(self) -> None:
        self._acknowledger.close()


def build_flow(transport: Transport, current: Settings, plan: Plan | None = None) -> Dataflow:
    """The dataflow from a transport's records to fresh features in the online store."""
    plan = plan or Plan(lambda: feature_store(current), STREAM_SOURCE)
    steps = _Steps(plan, transport, current.stream_metrics_port)
    flow = Dataflow("velocity")
    records = op.input("records", flow, transport.source())
    # Record
    parsed = op.map("parse", records, lambda r: parse(r, current.allowed_lateness, current.max_future))
    # Event | (Record, reason)
    ways = op.branch("valid", parsed, lambda p: isinstance(p, Event))
    buried = op.flat_map_batch("bury", ways.falses, steps.bury)
    # (partition, (record id, bits of the views that have accounted for it))
    sharded = op.flat_map_batch("fan out", ways.trues, lambda events: fan_out(plan, events))
    # (shard, (view, entity, Event))
    merged = op.stateful_batch("merge", sharded, lambda _: ShardLogic(plan))
    # (shard, Written)
    written = op.flat_map_batch("write online", merged, steps.write)
    # (partition, (record id, bit of the view))
    accounted: KeyedStream[tuple[str, int]] = op.merge("accounted", buried, written)
    done = op.stateful_batch("count down", accounted, lambda _: _CountDown(steps.all_views))
    # (partition, [record id])
    op.output("acknowledge", done, _AckSink(steps))
    return flow


flow = build_flow(configured(settings(), settings().consumer_group), settings())
write_history(flow, configured(settings(), f"{settings().consumer_group}.history"), settings())
